// texture.cpp — colours of vertices: sampling, mirroring, membrane offsets.
#include "extreme3d/texture.h"

#include <array>
#include <limits>
#include <memory>
#include <stdexcept>

#include "extreme3d/parallel.h"

namespace e3d {
namespace {

constexpr int kGrain = 4096;
constexpr int kFrameGrain = 512;
constexpr int kMembraneSweeps = 3;  // forward and backward; the picture is still after two

// === Membrane ===

enum class Role : std::uint8_t { kOutside, kSource, kWanted };

// Wanted vertices in rings around the sources, nearest first, and the sources beside them. The
// place of a vertex is that in `order`, or ~ that in `frame`.
struct Front {
  std::vector<std::int32_t> order, frame;     // wanted vertices, sources
  std::vector<std::int32_t> ring;             // where each ring begins in `order`, and the end
  std::vector<std::int32_t> row;              // (order + 1,) where the neighbours of each begin
  std::unique_ptr<std::int32_t[]> neighbors;  // their places
};

// Neighbours are the next corners of the faces around a vertex: the whole ring inside the mesh, all
// but one on its border.
Front front_of(const CornerView& corners, const std::vector<Role>& role) {
  const int n = static_cast<int>(role.size());
  Front front;
  front.order.reserve(n);
  front.row.reserve(n + 1);
  front.neighbors = std::make_unique_for_overwrite<std::int32_t[]>(corners.next.n);
  // of each vertex, or what it still is
  constexpr std::int32_t kOutside = std::numeric_limits<std::int32_t>::min();
  constexpr std::int32_t kNewSource = kOutside + 1, kNewWanted = kOutside + 2;
  std::vector<std::int32_t> place(n);
  for (int v = 0; v < n; ++v) {
    constexpr std::int32_t kPlaces[] = {kOutside, kNewSource, kNewWanted};
    place[v] = kPlaces[static_cast<int>(role[v])];
  }
  const auto enter = [&](std::vector<std::int32_t>& list, int v) {
    list.push_back(v);
    return static_cast<std::int32_t>(list.size()) - 1;
  };
  for (int v = 0; v < n; ++v) {
    if (role[v] != Role::kSource) continue;
    for (int k = corners.offsets[v]; k < corners.offsets[v + 1]; ++k)
      if (const int w = corners.next[k]; place[w] == kNewWanted) place[w] = enter(front.order, w);
  }
  std::int32_t* neighbor = front.neighbors.get();
  for (std::size_t at = 0, end = 0; at < front.order.size(); ++at) {
    if (at == end) {
      front.ring.push_back(static_cast<std::int32_t>(at));
      end = front.order.size();
    }
    front.row.push_back(static_cast<std::int32_t>(neighbor - front.neighbors.get()));
    const int v = front.order[at];
    const std::int32_t* const last = corners.next.data + corners.offsets[v + 1];
    for (const std::int32_t* next = corners.next.data + corners.offsets[v]; next < last; ++next) {
      std::int32_t& there = place[*next];
      if (there == kNewWanted) there = enter(front.order, *next);
      if (there == kNewSource) there = ~enter(front.frame, *next);
      if (there != kOutside) *neighbor++ = there;
    }
  }
  front.row.push_back(static_cast<std::int32_t>(neighbor - front.neighbors.get()));
  front.ring.push_back(static_cast<std::int32_t>(front.order.size()));
  return front;
}

// A vector in a register.
struct alignas(16) Value {
  float lanes[4];
};
Value add(Value a, const Value& b) {
  for (int i = 0; i < 4; ++i) a.lanes[i] += b.lanes[i];
  return a;
}
Value scaled(float s, Value a) {
  for (float& lane : a.lanes) lane *= s;
  return a;
}

// Puts the neighbours just before and just after a place last in its row: where places are worked
// off one by one these are the last to be known, and so should be the last of a sum.
void put_nearest_last(std::int32_t place, std::int32_t* begin, std::int32_t* end) {
  const auto put_last = [&](const auto& is_nearer) {
    if (begin == end) return;
    std::int32_t* nearest = begin;
    for (std::int32_t* p = begin + 1; p < end; ++p)
      if (is_nearer(*p, *nearest)) nearest = p;
    std::swap(*nearest, *--end);
  };
  // as unsigned, places on the other side are far
  put_last([=](std::uint32_t p, std::uint32_t q) { return place - p < place - q; });
  put_last([=](std::uint32_t p, std::uint32_t q) { return p - place < q - place; });
}

// Spreads the values of the source vertices to the wanted ones: a screened membrane with the
// sources as its frame, first grown outwards ring by ring, then relaxed in that order and back,
// which carries a value from one end to the other. Wanted vertices that no source reaches are left
// as they are.
template <class SourceValue>
void spread(const CornerView& corners, View<const Vec3> vertices, const std::vector<Role>& role,
            const SourceValue& source_value, int threads, std::vector<Vec3>& offset) {
  const Front front = front_of(corners, role);
  const int n = static_cast<int>(front.order.size());
  const int n_frame = static_cast<int>(front.frame.size());
  const auto positions = std::make_unique_for_overwrite<Vec3[]>(n_frame + n);
  const auto values = std::make_unique<Value[]>(n_frame + n + 1);
  Vec3* const position = positions.get() + n_frame;  // by place
  Value* const value = values.get() + n_frame;       // by place; value[n] stays 0
  parallel_for(n_frame, threads, kFrameGrain, [&](int begin, int end) {
    for (int i = begin; i < end; ++i) {
      const Vec3 x = source_value(front.frame[i]);
      value[~i] = {{x.x, x.y, x.z, 0.f}};
      position[~i] = vertices[front.frame[i]];
    }
  });
  parallel_for(n, threads, kGrain, [&](int begin, int end) {
    for (int i = begin; i < end; ++i) position[i] = vertices[front.order[i]];
  });

  struct Membrane {
    float weight, fade;
  };
  const auto membrane = std::make_unique_for_overwrite<Membrane[]>(n);
  std::int32_t* const neighbors = front.neighbors.get();
  parallel_for(n, threads, kGrain, [&](int begin, int end) {
    for (int i = begin; i < end; ++i) {
      const std::int32_t first = front.row[i], last = front.row[i + 1];
      float squared = 0.f;
      for (int k = first; k < last; ++k) {
        const Vec3 edge = position[neighbors[k]] - position[i];
        squared += dot(edge, edge);
      }
      const float count = float(last - first);
      membrane[i] = {membrane_weight(count, squared), membrane_fade(count, squared)};
      put_nearest_last(i, neighbors + first, neighbors + last);
    }
  });

  for (std::size_t ring = 0; ring + 1 < front.ring.size(); ++ring) {
    const int first = front.ring[ring];
    for (int i = first; i < front.ring[ring + 1]; ++i) {
      Value nearer{};
      float count = 0.f;
      for (int k = front.row[i]; k < front.row[i + 1]; ++k) {
        const bool is_nearer = neighbors[k] < first;
        nearer = add(nearer, value[is_nearer ? neighbors[k] : n]);
        count += is_nearer ? 1.f : 0.f;
      }
      value[i] = scaled(membrane[i].fade / std::max(count, 1.f), nearer);
    }
  }
  const auto sum = [&](int begin, int end) {
    Value s{};
    for (int k = begin; k < end; ++k) s = add(s, value[neighbors[k]]);
    return s;
  };
  for (int sweep = 0; sweep < kMembraneSweeps; ++sweep) {
    for (int i = 0; i < n; ++i)
      value[i] = scaled(membrane[i].weight, sum(front.row[i], front.row[i + 1]));
    for (int i = n; i-- > 0;) {
      const int begin = front.row[i], end = front.row[i + 1], split = std::max(begin, end - 2);
      Value s = sum(begin, split);
      for (int k = end; k-- > split;) s = add(s, value[neighbors[k]]);
      value[i] = scaled(membrane[i].weight, s);
    }
  }
  for (int i = 0; i < n; ++i) {
    const auto& [x, y, z, unused] = value[i].lanes;
    offset[front.order[i]] = {x, y, z};
  }
}

// === Tone ===

// The lightness below which a share of the known vertices lies.
float lightness_quantile(const std::array<int, 256>& histogram, int count, float share) {
  int value = 0;
  for (int below = histogram[0]; float(below) < share * float(count) && value < 255;
       below += histogram[++value]) {
  }
  return float(value);
}

// What brings the model's colours under the light of the photo and into its complexion: each
// channel is scaled so that the lit skin of both agrees. Lit skin is the lighter half of the known
// vertices, without the lightest fifth: darker are shadows, beards, brows and glasses, lighter are
// highlights.
Vec3 model_gain(View<const Rgb> fallback, const std::vector<std::uint8_t>& known,
                const std::vector<Vec3>& color) {
  std::array<int, 256> histogram{};
  int count = 0;
  for (std::size_t v = 0; v < known.size(); ++v) {
    if (!known[v]) continue;
    ++histogram[to_byte(lightness(color[v]))];
    ++count;
  }
  if (count < kFewestForTone) return {1.f, 1.f, 1.f};
  const float low = lightness_quantile(histogram, count, kLitSkinLow) - 1.f;
  const float high = lightness_quantile(histogram, count, kLitSkinHigh) + 1.f;
  Vec3 photo{0.f, 0.f, 0.f}, model{1.f, 1.f, 1.f};
  for (std::size_t v = 0; v < known.size(); ++v) {
    if (!known[v] || lightness(color[v]) < low || lightness(color[v]) > high) continue;
    photo = photo + color[v];
    model = model + to_vec(fallback[static_cast<int>(v)]);
  }
  return {photo.x / model.x, photo.y / model.y, photo.z / model.z};
}

}  // namespace

VertexColors::VertexColors(View<const Tri> faces, View<const std::int32_t> mirror_of,
                           View<const Rgb> fallback)
    : corners_(corner_rows(faces, mirror_of.n)),
      mirror_of_(mirror_of.data, mirror_of.data + mirror_of.n),
      fallback_(fallback.data, fallback.data + fallback.n) {
  if (fallback.n != mirror_of.n)
    throw std::invalid_argument("fallback should have a colour a vertex");
}

std::vector<Rgb> VertexColors::colors(View<const Vec3> vertices, View<const std::uint8_t> seen,
                                      ImageView<const Rgb> photo, const Camera& camera,
                                      int threads) const {
  const int n = n_vertices();
  const CornerView corners = view(corners_);
  const View<const Rgb> fallback{fallback_.data(), n};
  const auto for_each = [&](const auto& body) {
    parallel_for(n, threads, kGrain, [&](int begin, int end) {
      for (int v = begin; v < end; ++v) body(v);
    });
  };

  // What the photo shows.
  static_assert(kErodedRings == 2);
  std::vector<std::uint8_t> eroded(n), photographed(n);
  std::vector<Vec3> color(n);
  for_each([&](int v) { eroded[v] = stays_in_mask(seen, corners, v); });
  for_each([&](int v) {
    photographed[v] = stays_in_mask({eroded.data(), n}, corners, v) &&
                      is_sampled(camera, vertices[v], area_normal(vertices, corners, v));
    if (photographed[v]) color[v] = sample(photo, project(camera, vertices[v]));
  });

  // Of a source: its mean with the sources around it, through faces that are not all photographed.
  std::vector<Role> role(n);
  const auto smoothed = [&](const auto& value, int v) {
    Vec3 sum = value(v);
    float count = 1.f;
    for (int k = corners.offsets[v]; k < corners.offsets[v + 1]; ++k) {
      const int next = corners.next[k];
      if (role[next] != Role::kSource) continue;
      if (photographed[v] && photographed[next] && photographed[corners.previous[k]]) continue;
      sum = sum + value(next);
      count += 1.f;
    }
    return (1.f / count) * sum;
  };
  static_assert(kSmoothRounds == 2);
  const auto spread_from = [&](const auto& value, std::vector<Vec3>& offset) {
    const auto once = [&](int v) { return smoothed(value, v); };
    const auto twice = [&](int v) { return smoothed(once, v); };
    spread(corners, vertices, role, twice, threads, offset);
  };

  // Mirrored colours.
  std::vector<Vec3> offset(n, Vec3{0.f, 0.f, 0.f});
  for_each([&](int v) {
    const int m = mirror_of_[v];
    role[v] = m < 0 || !photographed[m] ? Role::kOutside
              : photographed[v]         ? Role::kSource
                                        : Role::kWanted;
  });
  spread_from([&](int v) { return color[v] - color[mirror_of_[v]]; }, offset);

  // The model's colours.
  const Vec3 gain = model_gain(fallback, photographed, color);
  const auto model = [&](int v) {
    const Vec3 c = to_vec(fallback[v]);
    return Vec3{gain.x * c.x, gain.y * c.y, gain.z * c.z};
  };
  for_each([&](int v) {
    const bool mirrored = role[v] == Role::kWanted;
    role[v] = mirrored || photographed[v] ? Role::kSource : Role::kWanted;
    if (mirrored) color[v] = color[mirror_of_[v]] + offset[v];
  });
  spread_from([&](int v) { return color[v] - model(v); }, offset);

  std::vector<Rgb> out(n);
  for_each(
      [&](int v) { out[v] = to_rgb(role[v] == Role::kSource ? color[v] : model(v) + offset[v]); });
  return out;
}

}  // namespace e3d
