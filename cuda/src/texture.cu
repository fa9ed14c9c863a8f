// texture.cu — colours of the head model's skin, of the final mesh, and of the parts.
#include "extreme3d/cuda/grid.h"
#include "extreme3d/cuda/memory.h"
#include "extreme3d/cuda/texture.h"
#include "extreme3d/mesh.h"
#include "extreme3d/zipper.h"

namespace e3d::cuda {
namespace {

constexpr int kLevels = 256;  // of a histogram of bytes

E3D_HD inline Camera camera_of(View<const float> pinhole, int width, int height) {
  return {pinhole[0], pinhole[1], pinhole[2], pinhole[3], width, height};
}

// === Skin ===

// Sweeps over all vertices at once. On 29 photos 99.7 % of the vertices are within one grey level
// of the host's with 10; 98.2 % with 8, 98.7 % with 12. An even number.
constexpr int kSweeps = 10;
// Rings grown before the grid looks whether the last of them had a vertex.
constexpr int kRingsPerLook = 4;

constexpr std::int32_t kSource = 0, kWanted = -1, kOutside = -2;

// Of a vertex: offset, and which ring around the sources it is in, or one of the constants above.
struct alignas(16) Offset {
  Vec3 value;
  std::int32_t ring;
};

struct Tone {
  float low, high;  // lightness of lit skin
  std::int32_t count;
};

// All of VertexColors::colors.
struct ColorsProgram {
  CornerView corners;
  View<const std::int32_t> mirror_of;
  View<const Rgb> fallback;
  View<const Vec3> vertices;
  View<const std::uint8_t> seen;
  ImageView<const Rgb> photo;
  View<const float> pinhole;

  View<std::uint8_t> eroded, photographed;  // (V,)
  View<Vec3> color;                         // (V,)
  View<Offset> offset, other;               // (V,) in turn
  View<float> weight;                       // (V,)
  View<std::int32_t> histogram;             // (kLevels,)
  View<Tone> tone;                          // (1,)
  View<std::int32_t> grown;                 // (3,) in turn: not 0 if the last ring had a vertex
  View<Rgb> out;

  __device__ bool has_mirrored_color(int v) const {
    const int m = mirror_of[v];
    return m >= 0 && photographed[m];
  }

  // Vertices that may take the photo's colour, and that colour.
  __device__ void sample_photo(Grid& grid) const {
    const int n = vertices.n;
    grid.for_each(n, [&](int v) { eroded[v] = stays_in_mask(seen, corners, v); });
    grid.for_each(kLevels, [&](int i) { histogram[i] = 0; });
    grid.sync();
    static_assert(kErodedRings == 2);
    const Camera camera = camera_of(pinhole, photo.width, photo.height);
    grid.for_each(n, [&](int v) {
      const bool known = stays_in_mask({eroded.data, n}, corners, v) &&
                         is_sampled(camera, vertices[v], area_normal(vertices, corners, v));
      photographed[v] = known;
      if (!known) return;
      color[v] = sample(photo, project(camera, vertices[v]));
      atomic_add(&histogram[to_byte(lightness(color[v]))], 1);
    });
    grid.sync();
  }

  // What `lightness_quantile` of the host finds: each level asks whether it is the one.
  __device__ void find_lit_skin(int level) const {
    std::int32_t below = 0, count = 0;
    for (int i = 0; i < kLevels; ++i) {
      if (i < level) below += histogram[i];
      count += histogram[i];
    }
    const std::int32_t reached = below + histogram[level];
    const auto is_quantile = [&](float share) {
      const float wanted = share * float(count);
      const bool enough = float(reached) >= wanted || level == kLevels - 1;
      return enough && (level == 0 || float(below) < wanted);
    };
    if (is_quantile(kLitSkinLow)) tone[0].low = float(level) - 1.f;
    if (is_quantile(kLitSkinHigh)) tone[0].high = float(level) + 1.f;
    if (level == 0) tone[0].count = count;
  }

  __device__ bool is_lit_skin(int v) const {
    if (!photographed[v]) return false;
    const float light = lightness(color[v]);
    return light >= tone[0].low && light <= tone[0].high;
  }

  __device__ Vec3 model_gain(Grid& grid) const {
    const auto sum = [&](auto color_of) {
      return grid.sum3(vertices.n, [&](int v) {
        if (!is_lit_skin(v)) return Sum3{0.0, 0.0, 0.0};
        const Vec3 c = color_of(v);
        return Sum3{c.x, c.y, c.z};
      });
    };
    const Sum3 shown = sum([&](int v) { return color[v]; });
    const Sum3 model = sum([&](int v) { return to_vec(fallback[v]); });
    if (tone[0].count < kFewestForTone) return {1.f, 1.f, 1.f};
    return {float(shown.x / (1.0 + model.x)), float(shown.y / (1.0 + model.y)),
            float(shown.z / (1.0 + model.z))};
  }

  // A source's mean with the sources around it, through faces that are not all photographed.
  __device__ Offset smoothed(View<const Offset> from, int v) const {
    Offset own = from[v];
    if (own.ring != kSource) return own;
    const bool known = photographed[v];
    float count = 1.f;
    for (int k = corners.offsets[v]; k < corners.offsets[v + 1]; ++k) {
      const int next = corners.next[k];
      if (known && photographed[next] && photographed[corners.previous[k]]) continue;
      const Offset near = from[next];
      if (near.ring != kSource) continue;
      own.value = own.value + near.value;
      count += 1.f;
    }
    own.value = (1.f / count) * own.value;
    return own;
  }

  // True if the vertex is beside the ring before, and so in this one.
  __device__ bool grow(int v, int ring) const {
    if (offset[v].ring != kWanted) return false;
    const int begin = corners.offsets[v], end = corners.offsets[v + 1];
    // Others enter this ring meanwhile: that reads as not being in the ring before, as it should.
    Vec3 nearer{0.f, 0.f, 0.f};
    float nearer_count = 0.f;
    for (int k = begin; k < end; ++k) {
      const Offset near = offset[corners.next[k]];
      if (near.ring != ring - 1) continue;
      nearer = nearer + near.value;
      nearer_count += 1.f;
    }
    if (nearer_count == 0.f) return false;
    const Vec3 x = vertices[v];
    float count = 0.f, squared = 0.f;
    for (int k = begin; k < end; ++k) {
      const int next = corners.next[k];
      if (offset[next].ring == kOutside) continue;
      const Vec3 edge = vertices[next] - x;
      squared += dot(edge, edge);
      count += 1.f;
    }
    weight[v] = membrane_weight(count, squared);
    offset[v].value = (membrane_fade(count, squared) / nearer_count) * nearer;
    offset[v].ring = ring;
    return true;
  }

  __device__ Offset relaxed(View<const Offset> from, int v) const {
    Offset own = from[v];
    if (own.ring <= kSource) return own;
    Vec3 sum{0.f, 0.f, 0.f};
    for (int k = corners.offsets[v]; k < corners.offsets[v + 1]; ++k)
      sum = sum + from[corners.next[k]].value;  // zero where neither source nor wanted
    own.value = weight[v] * sum;
    return own;
  }

  // Spreads the offsets of the sources to the wanted vertices.
  __device__ void spread(Grid& grid) const {
    const int n = vertices.n;
    const auto in_turn = [&](int rounds, const auto& step) {
      for (int round = 0; round < rounds; ++round) {
        const View<Offset> from = round % 2 == 0 ? offset : other;
        const View<Offset> to = round % 2 == 0 ? other : offset;
        grid.for_each(n, [&](int v) { to[v] = step(View<const Offset>{from.data, n}, v); });
        grid.sync();
      }
    };
    static_assert(kSmoothRounds % 2 == 0 && kSweeps % 2 == 0, "the last one is to be in `offset`");
    grid.for_each(3, [&](int i) { grown[i] = 0; });
    in_turn(kSmoothRounds, [&](View<const Offset> from, int v) { return smoothed(from, v); });
    for (int look = 0;; ++look) {
      for (int i = 1; i <= kRingsPerLook; ++i) {
        const int ring = look * kRingsPerLook + i;
        grid.for_each(n, [&](int v) {
          if (grow(v, ring) && i == kRingsPerLook) grown[look % 3] = 1;
        });
        // Last looked at before the rings of this look.
        if (i == 1) grid.for_each(1, [&](int) { grown[(look + 1) % 3] = 0; });
        grid.sync();
      }
      if (!grown[look % 3]) break;
    }
    in_turn(kSweeps, [&](View<const Offset> from, int v) { return relaxed(from, v); });
  }

  __device__ void run(Grid& grid) const {
    const int n = vertices.n;
    sample_photo(grid);

    // Mirrored colours.
    grid.for_each(n, [&](int v) {
      offset[v] = {{0.f, 0.f, 0.f}, kOutside};
      if (!has_mirrored_color(v)) return;
      offset[v].ring = photographed[v] ? kSource : kWanted;
      if (photographed[v]) offset[v].value = color[v] - color[mirror_of[v]];
    });
    grid.for_each(kLevels, [&](int level) { find_lit_skin(level); });
    grid.sync();
    const Vec3 gain = model_gain(grid);
    const auto model = [&](int v) {
      const Vec3 c = to_vec(fallback[v]);
      return Vec3{gain.x * c.x, gain.y * c.y, gain.z * c.z};
    };
    spread(grid);

    // The model's colours.
    grid.for_each(n, [&](int v) {
      const bool mirrored = !photographed[v] && has_mirrored_color(v);
      if (mirrored) color[v] = color[mirror_of[v]] + offset[v].value;
      if (mirrored || photographed[v])
        offset[v] = {color[v] - model(v), kSource};
      else
        offset[v] = {{0.f, 0.f, 0.f}, kWanted};
    });
    grid.sync();
    spread(grid);
    grid.for_each(n, [&](int v) {
      out[v] = to_rgb(offset[v].ring == kSource ? color[v] : model(v) + offset[v].value);
    });
  }
};

}  // namespace

struct VertexColors::Internals {
  int vertices;
  DeviceArray<std::int32_t> offsets, next, previous, mirror_of;
  DeviceArray<Rgb> fallback;
  DeviceArray<std::uint8_t> eroded, photographed;
  DeviceArray<Vec3> color;
  DeviceArray<Offset> offset, other;
  DeviceArray<float> weight;
  DeviceArray<std::int32_t> histogram, grown;
  DeviceArray<Tone> tone;
  GridScratch grid;
};

VertexColors::VertexColors(View<const Tri> faces, View<const std::int32_t> mirror_of,
                           View<const Rgb> fallback) {
  const int n = mirror_of.n;
  if (fallback.n != n) throw std::invalid_argument("fallback should have a colour a vertex");
  for (int v = 0; v < n; ++v)
    if (mirror_of[v] < -1 || mirror_of[v] >= n)
      throw std::invalid_argument("mirror_of has an index outside [-1, vertices)");
  for (int f = 0; f < faces.n; ++f)
    for (const std::int32_t v : {faces[f].v0, faces[f].v1, faces[f].v2})
      if (v < 0 || v >= n) throw std::invalid_argument("faces has an index outside [0, vertices)");
  const CornerRows corners = corner_rows(faces, n);
  const std::size_t size = n;
  internals_.reset(new Internals{n,
                                 DeviceArray<std::int32_t>(corners.offsets),
                                 DeviceArray<std::int32_t>(corners.next),
                                 DeviceArray<std::int32_t>(corners.previous),
                                 {mirror_of.data, size},
                                 {fallback.data, size},
                                 DeviceArray<std::uint8_t>(size),
                                 DeviceArray<std::uint8_t>(size),
                                 DeviceArray<Vec3>(size),
                                 DeviceArray<Offset>(size),
                                 DeviceArray<Offset>(size),
                                 DeviceArray<float>(size),
                                 DeviceArray<std::int32_t>(kLevels),
                                 DeviceArray<std::int32_t>(3),
                                 DeviceArray<Tone>(1),
                                 {}});
}

VertexColors::~VertexColors() = default;
VertexColors::VertexColors(VertexColors&&) noexcept = default;
int VertexColors::n_vertices() const { return internals_->vertices; }

void VertexColors::colors(View<const Vec3> vertices_in_camera, View<const std::uint8_t> seen,
                          ImageView<const Rgb> photo, View<const float> pinhole, View<Rgb> out,
                          Stream s) const {
  const Internals& own = *internals_;
  const ColorsProgram program{{own.offsets.cview(), own.next.cview(), own.previous.cview()},
                              own.mirror_of.cview(),
                              own.fallback.cview(),
                              vertices_in_camera,
                              seen,
                              photo,
                              pinhole,
                              own.eroded.view(),
                              own.photographed.view(),
                              own.color.view(),
                              own.offset.view(),
                              own.other.view(),
                              own.weight.view(),
                              own.histogram.view(),
                              own.tone.view(),
                              own.grown.view(),
                              out};
  launch_grid(program, own.vertices, own.grid, s);
}

// === The final mesh ===

namespace {

E3D_KERNEL provenance_kernel(FinalMesh mesh, DensePixels dense, SparseOrigin sparse,
                             View<std::uint8_t> out) {
  const int i = thread_index();
  if (i >= out.n || i >= mesh.count[0]) return;
  const auto source = static_cast<VertexSource>(mesh.source[i]);
  out[i] = static_cast<std::uint8_t>(provenance_of(source, mesh.source_vertex[i], dense, sparse));
}

E3D_KERNEL mesh_colors_kernel(FinalMesh mesh, DensePixels dense, RegisteredDense registration,
                              View<const Rgb> color_of_sparse, ImageView<const Rgb> photo,
                              View<Rgb> out) {
  const int i = thread_index();
  if (i >= out.n || i >= mesh.count[0]) return;
  const auto source = static_cast<VertexSource>(mesh.source[i]);
  out[i] = mesh_color(source, mesh.source_vertex[i], dense, registration, color_of_sparse, photo);
}

}  // namespace

void provenance(const FinalMesh& mesh, const DensePixels& dense, const SparseOrigin& sparse,
                View<std::uint8_t> out, Stream s) {
  launch(provenance_kernel, out.n, s, mesh, dense, sparse, out);
}

void mesh_colors(const FinalMesh& mesh, const DensePixels& dense,
                 const RegisteredDense& registration, View<const Rgb> color_of_sparse,
                 ImageView<const Rgb> photo, View<Rgb> out, Stream s) {
  launch(mesh_colors_kernel, out.n, s, mesh, dense, registration, color_of_sparse, photo, out);
}

// === Parts ===

namespace {

constexpr double kBrightShare = 0.9;  // the brighter ones tell a part from lips and lids on its rim

// The values around a share of sorted bytes, and how far the share lies between them.
struct Quantile {
  std::uint8_t low, high;
};

// Pairs of histograms: of what is seen and of the model there; the skin's first, then each part's.
E3D_HD inline int pair_of(View<const std::int32_t> begin, int v) {
  int pair = 0;
  while (pair < begin.n - 1 && v >= begin[pair]) ++pair;
  return pair;
}

__device__ inline void count_color(View<std::int32_t> histogram, int index, Rgb c) {
  std::int32_t* levels = &histogram[index * kLevels];
  atomic_add(&levels[c.r], 1);
  atomic_add(&levels[c.g], 1);
  atomic_add(&levels[c.b], 1);
}

E3D_KERNEL count_colors_kernel(View<const Rgb> skin, View<const std::uint8_t> shown,
                               View<const std::uint8_t> visible,
                               View<const std::int32_t> pixel_of_vertex, ImageView<const Rgb> photo,
                               View<const Rgb> model, View<const std::int32_t> begin,
                               View<std::int32_t> histogram) {
  const int v = thread_index();
  if (v >= model.n) return;
  const int own = v - skin.n;
  if (own < 0 ? !shown[v] : !visible[own]) return;
  const int pair = pair_of(begin, v);
  count_color(histogram, 2 * pair, own < 0 ? skin[v] : photo[pixel_of_vertex[own]]);
  count_color(histogram, 2 * pair + 1, model[v]);
}

E3D_HD inline double share_of(int histogram) { return histogram < 2 ? 0.5 : kBrightShare; }

// Each level of each histogram asks whether it holds the values at the share.
E3D_KERNEL quantile_kernel(View<const std::int32_t> histogram, View<Quantile> quantile,
                           View<std::int32_t> count) {
  const int i = thread_index();
  if (i >= histogram.n) return;
  const int at = i / kLevels, level = i % kLevels;
  std::int32_t below = 0, all = 0;
  for (int k = 0; k < kLevels; ++k) {
    const std::int32_t here = histogram[at * kLevels + k];
    if (k < level) below += here;
    all += here;
  }
  if (level == 0) count[at] = all;
  if (all == 0) return;
  const int low = static_cast<int>(share_of(at) * (all - 1));
  const int high = low + 1 < all ? low + 1 : low;
  const auto holds = [&](int rank) { return rank >= below && rank < below + histogram[i]; };
  if (holds(low)) quantile[at].low = static_cast<std::uint8_t>(level);
  if (holds(high)) quantile[at].high = static_cast<std::uint8_t>(level);
}

// Linear between the two values, as NumPy has it.
E3D_HD inline double value_of(Quantile q, double share, std::int32_t count) {
  const double rank = share * (count - 1);
  return q.low + (rank - std::floor(rank)) * (q.high - q.low);
}

// How bright what is seen is, of the model's, at most 1.
E3D_HD inline double brightness(View<const Quantile> quantile, View<const std::int32_t> count,
                                int pair) {
  if (count[2 * pair] == 0) return 1.0;
  const double share = share_of(2 * pair);
  const double seen = value_of(quantile[2 * pair], share, count[2 * pair]);
  const double model = value_of(quantile[2 * pair + 1], share, count[2 * pair + 1]);
  return std::min(seen / std::max(model, 1.0), 1.0);
}

E3D_KERNEL part_colors_kernel(View<const std::uint8_t> visible,
                              View<const std::int32_t> pixel_of_vertex, ImageView<const Rgb> photo,
                              View<const Rgb> model, View<const std::int32_t> begin,
                              View<const Quantile> quantile, View<const std::int32_t> count,
                              View<Rgb> out) {
  const int v = thread_index();
  if (v >= out.n) return;
  if (visible[v]) {
    out[v] = photo[pixel_of_vertex[v]];
    return;
  }
  const int all = v + begin[0], pair = pair_of(begin, all);
  const double gain = brightness(quantile, count, count[2 * pair] ? pair : 0);
  const Rgb c = model[all];
  out[v] = {static_cast<std::uint8_t>(gain * c.r), static_cast<std::uint8_t>(gain * c.g),
            static_cast<std::uint8_t>(gain * c.b)};
}

}  // namespace

struct PartColors::Internals {
  int skin, parts;
  DeviceArray<Rgb> model;
  DeviceArray<std::int32_t> begin, histogram, count;
  DeviceArray<Quantile> quantile;
};

PartColors::PartColors(View<const Rgb> model_colors, View<const std::int32_t> begin) {
  bool rises = begin.n > 0 && begin[0] >= 0 && begin[begin.n - 1] == model_colors.n;
  for (int p = 1; rises && p < begin.n; ++p) rises = begin[p - 1] <= begin[p];
  if (!rises) throw std::invalid_argument("begin should rise to the number of model_colors");
  const std::size_t histograms = 2 * static_cast<std::size_t>(begin.n);
  internals_.reset(new Internals{begin[0],
                                 model_colors.n - begin[0],
                                 {model_colors.data, static_cast<std::size_t>(model_colors.n)},
                                 {begin.data, static_cast<std::size_t>(begin.n)},
                                 DeviceArray<std::int32_t>(histograms * kLevels),
                                 DeviceArray<std::int32_t>(histograms),
                                 DeviceArray<Quantile>(histograms)});
}

PartColors::~PartColors() = default;
PartColors::PartColors(PartColors&&) noexcept = default;
int PartColors::n_skin() const { return internals_->skin; }
int PartColors::n_parts() const { return internals_->parts; }

void PartColors::colors(View<const Rgb> skin, View<const std::uint8_t> shown,
                        View<const std::uint8_t> visible, View<const std::int32_t> pixel_of_vertex,
                        ImageView<const Rgb> photo, View<Rgb> out, Stream s) const {
  const Internals& own = *internals_;
  const View<const Rgb> model = own.model.cview();
  const View<const std::int32_t> begin = own.begin.cview();
  fill_bytes(own.histogram.view(), 0, s);
  launch(count_colors_kernel, model.n, s, skin, shown, visible, pixel_of_vertex, photo, model,
         begin, own.histogram.view());
  launch(quantile_kernel, own.histogram.view().n, s, own.histogram.cview(), own.quantile.view(),
         own.count.view());
  launch(part_colors_kernel, out.n, s, visible, pixel_of_vertex, photo, model, begin,
         own.quantile.cview(), own.count.cview(), out);
}

}  // namespace e3d::cuda
