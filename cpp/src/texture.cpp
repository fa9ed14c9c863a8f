// texture.cpp — colours of vertices: sampling, mirroring, membrane offsets.
#include "extreme3d/texture.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "extreme3d/parallel.h"
#include "extreme3d/render.h"

namespace e3d {
namespace {

constexpr int kGrain = 4096;
constexpr float kMaxTilt = 0.26f;    // cos 75°
constexpr int kErodedRings = 2;      // one vertex a pixel in the dense part: two pixels
constexpr float kFadeLength = 40.f;  // mm: about half a face; beyond, the model's own colour
constexpr int kMedianSmooth = 4;     // rounds that take pores and noise out of the offsets
constexpr int kMembraneSweeps = 3;   // forward and backward; the picture is still after two
constexpr std::size_t kFewestForMedian = 64;

// Neighbours of each vertex: the next corner of each face around it, i.e. the whole ring inside the
// mesh and all but one on its border.
struct Rings {
  std::vector<std::int32_t> offset, neighbor;
};

Rings rings_of(MeshView mesh) {
  Rings r;
  r.offset.assign(mesh.vertices.n + 1, 0);
  for (int f = 0; f < mesh.faces.n; ++f) {
    const Tri t = mesh.faces[f];
    ++r.offset[t.v0 + 1], ++r.offset[t.v1 + 1], ++r.offset[t.v2 + 1];
  }
  for (int v = 0; v < mesh.vertices.n; ++v) r.offset[v + 1] += r.offset[v];
  r.neighbor.resize(3 * static_cast<std::size_t>(mesh.faces.n));
  std::vector<std::int32_t> at(r.offset.begin(), r.offset.end() - 1);
  for (int f = 0; f < mesh.faces.n; ++f) {
    const Tri t = mesh.faces[f];
    r.neighbor[at[t.v0]++] = t.v1;
    r.neighbor[at[t.v1]++] = t.v2;
    r.neighbor[at[t.v2]++] = t.v0;
  }
  return r;
}

Vec3 to_vec(Rgb c) { return {float(c.r), float(c.g), float(c.b)}; }

std::uint8_t to_byte(float x) {
  return static_cast<std::uint8_t>(std::clamp(x + 0.5f, 0.f, 255.f));
}

Rgb to_rgb(Vec3 c) { return {to_byte(c.x), to_byte(c.y), to_byte(c.z)}; }

// Bilinear; p in pixels with centres at +0.5, at least half a pixel inside the picture.
Vec3 sample(ImageView<const Rgb> photo, Vec2 p) {
  const int x = std::min(static_cast<int>(p.x - 0.5f), photo.width - 2);
  const int y = std::min(static_cast<int>(p.y - 0.5f), photo.height - 2);
  const float fx = p.x - 0.5f - float(x), fy = p.y - 0.5f - float(y);
  const Vec3 top = (1.f - fx) * to_vec(photo(x, y)) + fx * to_vec(photo(x + 1, y));
  const Vec3 low = (1.f - fx) * to_vec(photo(x, y + 1)) + fx * to_vec(photo(x + 1, y + 1));
  return (1.f - fy) * top + fy * low;
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
  const std::vector<Vec3> normals = vertex_normals(mesh);
  parallel_for(n, threads, kGrain, [&](int begin, int end) {
    for (int v = begin; v < end; ++v) {
      if (!ok[v]) continue;
      const Vec3 x = mesh.vertices[v];
      const bool facing = x.z > 0.f && -dot(normals[v], x) > kMaxTilt * norm(x);
      const Vec2 p = facing ? project(in.camera, x) : Vec2{-1.f, -1.f};
      ok[v] = p.x >= 0.5f && p.x <= float(in.photo.width) - 0.5f && p.y >= 0.5f &&
              p.y <= float(in.photo.height) - 0.5f;
    }
  });
  return ok;
}

float median(std::vector<float>& values) {
  auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// The model's colours, each channel scaled so that its median over the known vertices is the
// photo's: the complexion and the light of the photo.
std::vector<Vec3> toned_fallback(const TextureInput& in, const std::vector<std::uint8_t>& known,
                                 const std::vector<Vec3>& color) {
  std::array<float, 3> gain{1.f, 1.f, 1.f};
  for (int channel = 0; channel < 3; ++channel) {
    const auto pick = [channel](Vec3 c) { return channel == 0 ? c.x : channel == 1 ? c.y : c.z; };
    std::vector<float> photo, model;
    for (std::size_t v = 0; v < known.size(); ++v) {
      if (!known[v]) continue;
      photo.push_back(pick(color[v]));
      model.push_back(pick(to_vec(in.fallback[static_cast<int>(v)])));
    }
    if (photo.size() >= kFewestForMedian)
      gain[channel] = median(photo) / std::max(median(model), 1.f);
  }
  std::vector<Vec3> toned(known.size());
  for (std::size_t v = 0; v < known.size(); ++v) {
    const Vec3 c = to_vec(in.fallback[static_cast<int>(v)]);
    toned[v] = {gain[0] * c.x, gain[1] * c.y, gain[2] * c.z};
  }
  return toned;
}

// Spreads the values of the source vertices over the mesh: a screened membrane with the (smoothed)
// sources as its frame, first grown outwards ring by ring, then swept in that order and back.
void spread(MeshView mesh, const Rings& rings, const std::vector<std::uint8_t>& source, int threads,
            std::vector<Vec3>& value) {
  const int n = mesh.vertices.n;
  std::vector<Vec3> before;
  for (int round = 0; round < kMedianSmooth; ++round) {
    before = value;
    parallel_for(n, threads, kGrain, [&](int begin, int end) {
      for (int v = begin; v < end; ++v) {
        if (!source[v]) continue;
        Vec3 sum = before[v];
        float count = 1.f;
        for (int k = rings.offset[v]; k < rings.offset[v + 1]; ++k) {
          const int w = rings.neighbor[k];
          if (!source[w]) continue;
          sum = sum + before[w];
          count += 1.f;
        }
        value[v] = (1.f / count) * sum;
      }
    });
  }

  std::vector<std::int32_t> order, distance(n, -1);
  order.reserve(n);
  for (int v = 0; v < n; ++v)
    if (source[v]) distance[v] = 0, order.push_back(v);
  const std::size_t sources = order.size();
  for (std::size_t at = 0; at < order.size(); ++at) {
    const int v = order[at];
    if (at >= sources) {
      Vec3 sum{0.f, 0.f, 0.f};
      float count = 0.f, length = 0.f;
      for (int k = rings.offset[v]; k < rings.offset[v + 1]; ++k) {
        const int w = rings.neighbor[k];
        if (distance[w] < 0 || distance[w] >= distance[v]) continue;
        sum = sum + value[w];
        length += norm(mesh.vertices[w] - mesh.vertices[v]);
        count += 1.f;
      }
      if (count > 0.f) value[v] = (std::exp(-length / count / kFadeLength) / count) * sum;
    }
    for (int k = rings.offset[v]; k < rings.offset[v + 1]; ++k) {
      const int w = rings.neighbor[k];
      if (distance[w] >= 0) continue;
      distance[w] = distance[v] + 1;
      order.push_back(w);
    }
  }

  const auto relax = [&](int v) {
    Vec3 sum{0.f, 0.f, 0.f};
    float count = 0.f, squared = 0.f;
    for (int k = rings.offset[v]; k < rings.offset[v + 1]; ++k) {
      const int w = rings.neighbor[k];
      const Vec3 edge = mesh.vertices[w] - mesh.vertices[v];
      sum = sum + value[w];
      squared += dot(edge, edge);
      count += 1.f;
    }
    // On a regular ring of edge length h: mean of the neighbours − u = h²/4 Δu = h²/4 u/L².
    if (count > 0.f) value[v] = (1.f / (count + squared / (4.f * kFadeLength * kFadeLength))) * sum;
  };
  for (int sweep = 0; sweep < kMembraneSweeps; ++sweep) {
    for (std::size_t at = sources; at < order.size(); ++at) relax(order[at]);
    for (std::size_t at = order.size(); at-- > sources;) relax(order[at]);
  }
}

}  // namespace

std::vector<Rgb> vertex_colors(const TextureInput& in, int threads) {
  const MeshView mesh = in.mesh_in_camera;
  const int n = mesh.vertices.n;
  const Rings rings = rings_of(mesh);
  const std::vector<std::uint8_t> photographed = trusted(in, threads);

  const Vec3 zero{0.f, 0.f, 0.f};
  std::vector<Vec3> color(n, zero);
  parallel_for(n, threads, kGrain, [&](int begin, int end) {
    for (int v = begin; v < end; ++v)
      if (photographed[v]) color[v] = sample(in.photo, project(in.camera, mesh.vertices[v]));
  });

  // Mirrored colours.
  std::vector<std::uint8_t> paired(n, 0), known = photographed;
  std::vector<Vec3> offset(n, zero);
  for (int v = 0; v < n; ++v) {
    const int m = in.mirror_of[v];
    if (m < 0 || !photographed[m]) continue;
    known[v] = 1;
    paired[v] = photographed[v];
    if (paired[v]) offset[v] = color[v] - color[m];
  }
  spread(mesh, rings, paired, threads, offset);
  for (int v = 0; v < n; ++v)
    if (known[v] && !photographed[v]) color[v] = color[in.mirror_of[v]] + offset[v];

  // The model's colours.
  const std::vector<Vec3> model = toned_fallback(in, photographed, color);
  for (int v = 0; v < n; ++v) offset[v] = known[v] ? color[v] - model[v] : zero;
  spread(mesh, rings, known, threads, offset);
  std::vector<Rgb> out(n);
  for (int v = 0; v < n; ++v) out[v] = to_rgb(known[v] ? color[v] : model[v] + offset[v]);
  return out;
}

}  // namespace e3d
