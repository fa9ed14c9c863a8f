// texture.cpp — colours of vertices: sampling, mirroring, membrane offsets.
#include "extreme3d/texture.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "extreme3d/mesh.h"
#include "extreme3d/parallel.h"

namespace e3d {
namespace {

constexpr int kGrain = 4096;
constexpr int kMembraneSweeps = 3;  // forward and backward; the picture is still after two

// Neighbours of each vertex: the next corner of each face around it, i.e. the whole ring inside the
// mesh and all but one on its border. Only faces with a corner that is not `done` count, so that
// inside what the photo shows, where nothing is to be guessed, rings are empty.
struct Rings {
  std::vector<std::int32_t> offset, neighbor;
};

Rings rings_of(MeshView mesh, const std::vector<std::uint8_t>& done) {
  Rings r;
  std::vector<Tri> open;
  for (int f = 0; f < mesh.faces.n; ++f) {
    const Tri t = mesh.faces[f];
    if (!(done[t.v0] && done[t.v1] && done[t.v2])) open.push_back(t);
  }
  r.offset.assign(mesh.vertices.n + 1, 0);
  for (const Tri t : open) ++r.offset[t.v0 + 1], ++r.offset[t.v1 + 1], ++r.offset[t.v2 + 1];
  for (int v = 0; v < mesh.vertices.n; ++v) r.offset[v + 1] += r.offset[v];
  r.neighbor.resize(3 * open.size());
  std::vector<std::int32_t> at(r.offset.begin(), r.offset.end() - 1);
  for (const Tri t : open) {
    r.neighbor[at[t.v0]++] = t.v1;
    r.neighbor[at[t.v1]++] = t.v2;
    r.neighbor[at[t.v2]++] = t.v0;
  }
  return r;
}

// Vertices that may take the photo's colour (point 1 of the header).
std::vector<std::uint8_t> trusted(const TextureInput& in, int threads) {
  const MeshView mesh = in.mesh_in_camera;
  const int n = mesh.vertices.n;
  std::vector<std::uint8_t> ok(in.seen.data, in.seen.data + n);
  for (int ring = 0; ring < kErodedRings; ++ring) {
    const std::vector<std::uint8_t> before = ok;
    for (int f = 0; f < mesh.faces.n; ++f) {
      const Tri t = mesh.faces[f];
      if (!before[t.v0] || !before[t.v1] || !before[t.v2]) ok[t.v0] = ok[t.v1] = ok[t.v2] = 0;
    }
  }
  // Normals of what is left; a vertex that is has all its faces among those visited.
  std::vector<Vec3> normals(n, Vec3{0.f, 0.f, 0.f});
  for (int f = 0; f < mesh.faces.n; ++f) {
    const Tri t = mesh.faces[f];
    if (!ok[t.v0] && !ok[t.v1] && !ok[t.v2]) continue;
    const Vec3 area = face_area_vector(mesh, f);
    normals[t.v0] = normals[t.v0] + area;
    normals[t.v1] = normals[t.v1] + area;
    normals[t.v2] = normals[t.v2] + area;
  }
  parallel_for(n, threads, kGrain, [&](int begin, int end) {
    for (int v = begin; v < end; ++v) {
      if (!ok[v]) continue;
      ok[v] = is_sampled(in.camera, mesh.vertices[v], normals[v]);
    }
  });
  return ok;
}

// The lightness below which a share of the known vertices lies.
float lightness_quantile(const std::array<int, 256>& histogram, int count, float share) {
  int value = 0;
  for (int below = histogram[0]; float(below) < share * float(count) && value < 255;
       below += histogram[++value]) {
  }
  return float(value);
}

// The model's colours under the light of the photo and in its complexion: each channel is scaled so
// that the lit skin of both agrees. Lit skin is the lighter half of the known vertices, without the
// lightest fifth: darker are shadows, beards, brows and glasses, lighter are highlights.
std::vector<Vec3> toned_fallback(const TextureInput& in, const std::vector<std::uint8_t>& known,
                                 const std::vector<Vec3>& color) {
  std::array<int, 256> histogram{};
  int count = 0;
  for (std::size_t v = 0; v < known.size(); ++v) {
    if (!known[v]) continue;
    ++histogram[to_byte(lightness(color[v]))];
    ++count;
  }
  const float low = lightness_quantile(histogram, count, kLitSkinLow) - 1.f;
  const float high = lightness_quantile(histogram, count, kLitSkinHigh) + 1.f;
  Vec3 photo{0.f, 0.f, 0.f}, model{1.f, 1.f, 1.f};
  for (std::size_t v = 0; v < known.size(); ++v) {
    if (!known[v] || lightness(color[v]) < low || lightness(color[v]) > high) continue;
    photo = photo + color[v];
    model = model + to_vec(in.fallback[static_cast<int>(v)]);
  }
  Vec3 gain{1.f, 1.f, 1.f};
  if (count >= kFewestForTone) gain = {photo.x / model.x, photo.y / model.y, photo.z / model.z};
  std::vector<Vec3> toned(known.size());
  for (std::size_t v = 0; v < known.size(); ++v) {
    const Vec3 c = to_vec(in.fallback[static_cast<int>(v)]);
    toned[v] = {gain.x * c.x, gain.y * c.y, gain.z * c.z};
  }
  return toned;
}

// Spreads the values of the source vertices to the wanted ones: a screened membrane with the
// (smoothed) sources as its frame, first grown outwards ring by ring, then relaxed in that order
// and back, which carries a value from one end to the other.
void spread(MeshView mesh, const Rings& rings, const std::vector<std::uint8_t>& source,
            const std::vector<std::uint8_t>& wanted, std::vector<Vec3>& value) {
  const int n = mesh.vertices.n;
  std::vector<std::int32_t> frame, order, distance(n, -1);
  for (int v = 0; v < n; ++v) {
    if (!source[v]) continue;
    distance[v] = 0;
    if (rings.offset[v] < rings.offset[v + 1]) frame.push_back(v);
  }
  std::vector<Vec3> smoothed(frame.size());
  for (int round = 0; round < kSmoothRounds; ++round) {
    for (std::size_t at = 0; at < frame.size(); ++at) {
      const int v = frame[at];
      Vec3 sum = value[v];
      float count = 1.f;
      for (int k = rings.offset[v]; k < rings.offset[v + 1]; ++k) {
        const int w = rings.neighbor[k];
        if (!source[w]) continue;
        sum = sum + value[w];
        count += 1.f;
      }
      smoothed[at] = (1.f / count) * sum;
    }
    for (std::size_t at = 0; at < frame.size(); ++at) value[frame[at]] = smoothed[at];
  }

  const auto enter = [&](int v) {
    for (int k = rings.offset[v]; k < rings.offset[v + 1]; ++k) {
      const int w = rings.neighbor[k];
      if (distance[w] >= 0 || !wanted[w]) continue;
      distance[w] = distance[v] + 1;
      order.push_back(w);
    }
  };
  for (const int v : frame) enter(v);
  std::vector<float> weight;  // of each vertex in `order`
  for (std::size_t at = 0; at < order.size(); ++at) {
    const int v = order[at];
    Vec3 nearer{0.f, 0.f, 0.f};
    float count = 0.f, squared = 0.f, nearer_count = 0.f;
    for (int k = rings.offset[v]; k < rings.offset[v + 1]; ++k) {
      const int w = rings.neighbor[k];
      if (!source[w] && !wanted[w]) continue;
      const Vec3 edge = mesh.vertices[w] - mesh.vertices[v];
      squared += dot(edge, edge);
      count += 1.f;
      if (distance[w] < 0 || distance[w] >= distance[v]) continue;
      nearer = nearer + value[w];
      nearer_count += 1.f;
    }
    weight.push_back(membrane_weight(count, squared));
    if (nearer_count > 0.f) value[v] = (membrane_fade(count, squared) / nearer_count) * nearer;
    enter(v);
  }
  const auto relax = [&](std::size_t at) {
    const int v = order[at];
    Vec3 sum{0.f, 0.f, 0.f};
    for (int k = rings.offset[v]; k < rings.offset[v + 1]; ++k)
      sum = sum + value[rings.neighbor[k]];  // zero where neither source nor wanted
    value[v] = weight[at] * sum;
  };
  for (int sweep = 0; sweep < kMembraneSweeps; ++sweep) {
    for (std::size_t at = 0; at < order.size(); ++at) relax(at);
    for (std::size_t at = order.size(); at-- > 0;) relax(at);
  }
}

}  // namespace

std::vector<Rgb> vertex_colors(const TextureInput& in, int threads) {
  const MeshView mesh = in.mesh_in_camera;
  const int n = mesh.vertices.n;
  const std::vector<std::uint8_t> photographed = trusted(in, threads);
  const Rings rings = rings_of(mesh, photographed);

  const Vec3 zero{0.f, 0.f, 0.f};
  std::vector<Vec3> color(n, zero);
  parallel_for(n, threads, kGrain, [&](int begin, int end) {
    for (int v = begin; v < end; ++v)
      if (photographed[v]) color[v] = sample(in.photo, project(in.camera, mesh.vertices[v]));
  });

  // Mirrored colours.
  std::vector<std::uint8_t> source(n, 0), wanted(n, 0);
  std::vector<Vec3> offset(n, zero);
  for (int v = 0; v < n; ++v) {
    const int m = in.mirror_of[v];
    if (m < 0 || !photographed[m]) continue;
    source[v] = photographed[v];
    wanted[v] = !photographed[v];
    if (source[v]) offset[v] = color[v] - color[m];
  }
  spread(mesh, rings, source, wanted, offset);
  std::vector<std::uint8_t> known = photographed;
  for (int v = 0; v < n; ++v) {
    if (!wanted[v]) continue;
    color[v] = color[in.mirror_of[v]] + offset[v];
    known[v] = 1;
  }

  // The model's colours.
  const std::vector<Vec3> model = toned_fallback(in, photographed, color);
  for (int v = 0; v < n; ++v) {
    wanted[v] = !known[v];
    offset[v] = known[v] ? color[v] - model[v] : zero;
  }
  spread(mesh, rings, known, wanted, offset);
  std::vector<Rgb> out(n);
  for (int v = 0; v < n; ++v) out[v] = to_rgb(known[v] ? color[v] : model[v] + offset[v]);
  return out;
}

}  // namespace e3d
