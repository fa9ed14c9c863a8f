// references.cu — relief between crop and unrolled face, and its conditional mean from references.
#include <cfloat>
#include <cmath>
#include <stdexcept>

#include "extreme3d/cuda/grid.h"
#include "extreme3d/cuda/references.h"

namespace e3d::cuda {
namespace {

constexpr int kWidth = kChartWidth, kHeight = kChartHeight, kPixels = kChartPixels;
constexpr int kHalfWidth = kWidth / 2, kHalfHeight = kHeight / 2,
              kHalfPixels = kHalfWidth * kHalfHeight;

// Columns [x0, x1] and rows [y0, y1]; see bounding_box.
struct Box {
  int x0, y0, x1, y1;
  E3D_HD int width() const { return x1 - x0 + 1; }
  E3D_HD int height() const { return y1 - y0 + 1; }
};

E3D_HD inline Box box_of(View<const std::int32_t> b) { return {b[0], b[1], -b[2], -b[3]}; }

// === Into the chart ===

struct CropMap {
  ImageView<const float> map;
  ImageView<const std::uint8_t> known;
  Box box;
};

// The mean of what is known round each of 2 × 2 pixels, weighted by the prefilter, interpolated
// between them. The borders of the box mirror what is inside.
E3D_HD inline float blurred(const CropMap& crop, const Blur& blur, Bilinear at) {
  const int w = crop.box.width(), h = crop.box.height();
  float sum[2][2] = {{0.f, 0.f}, {0.f, 0.f}}, share[2][2] = {{0.f, 0.f}, {0.f, 0.f}};
  for (int j = 0; j <= kBlurTaps; ++j) {
    const int y = crop.box.y0 + reflected(at.y - kBlurReach + j, h);
    float row_sum[2] = {0.f, 0.f}, row_share[2] = {0.f, 0.f};
    for (int i = 0; i <= kBlurTaps; ++i) {
      const int x = crop.box.x0 + reflected(at.x - kBlurReach + i, w);
      if (!crop.known(x, y)) continue;
      const float value = crop.map(x, y);
      const float weight[2] = {i < kBlurTaps ? blur.w[i] : 0.f, i > 0 ? blur.w[i - 1] : 0.f};
      for (int k = 0; k < 2; ++k) row_sum[k] += weight[k] * value, row_share[k] += weight[k];
    }
    const float weight[2] = {j < kBlurTaps ? blur.w[j] : 0.f, j > 0 ? blur.w[j - 1] : 0.f};
    for (int k = 0; k < 4; ++k) {
      sum[k / 2][k % 2] += weight[k / 2] * row_sum[k % 2];
      share[k / 2][k % 2] += weight[k / 2] * row_share[k % 2];
    }
  }
  return sampled(at, w, h, [&](int x, int y) {
    const int k = y - at.y, l = x - at.x;
    return sum[k][l] / std::fmax(share[k][l], 1e-6f);
  });
}

E3D_KERNEL unroll_kernel(ImageView<const float> map, ImageView<const std::uint8_t> known,
                         View<const std::int32_t> bounds, View<const float> pinhole,
                         View<const Vec3> vertices, View<const std::uint8_t> visible,
                         View<const Tri> corners, View<const Vec2> barycentric, Blur blur,
                         ImageView<float> out, ImageView<std::uint8_t> seen) {
  const int i = thread_index();
  if (i >= kPixels) return;
  out[i] = 0.f, seen[i] = 0;
  const CropMap crop{map, known, box_of(bounds)};
  const Tri t = corners[i];
  if (t.v0 < 0 || crop.box.x0 > crop.box.x1) return;
  const Vec2 uv = barycentric[i];
  const auto share = [&](int v) { return visible[v] ? 1.f : 0.f; };
  if (!(on_face(uv, share(t.v0), share(t.v1), share(t.v2)) > kShown)) return;
  const auto place = [&](int v) {
    const Vec3 p = vertices[v];
    if (!visible[v]) return Vec2{-9.f, -9.f};  // outside
    return Vec2{p.x / p.z * pinhole[0] + pinhole[2] - float(crop.box.x0),
                p.y / p.z * pinhole[1] + pinhole[3] - float(crop.box.y0)};
  };
  const Vec2 p = on_face(uv, place(t.v0), place(t.v1), place(t.v2)) - Vec2{0.5f, 0.5f};
  const Bilinear at = bilinear(p);
  const int w = crop.box.width(), h = crop.box.height();
  const float counted = sampled(
      at, w, h, [&](int x, int y) { return known(crop.box.x0 + x, crop.box.y0 + y) ? 1.f : 0.f; });
  if (!(counted > kShown)) return;
  out[i] = blurred(crop, blur, at);
  seen[i] = 1;
}

// === Out of the chart ===

E3D_KERNEL warp_by_surface_kernel(ImageView<const float> relief, ImageView<const std::uint8_t> seen,
                                  ImageView<const std::int32_t> triangle,
                                  ImageView<const Vec2> barycentric,
                                  View<const std::int32_t> bounds, View<const Vec2> place,
                                  View<const Tri> faces, ImageView<float> bump,
                                  ImageView<std::uint8_t> valid) {
  const int i = thread_index();
  if (i >= bump.width * bump.height) return;
  bump[i] = 0.f, valid[i] = 0;
  const int x = i % bump.width, y = i / bump.width;
  const Box box = box_of(bounds);
  const bool inside = x >= box.x0 && x <= box.x1 && y >= box.y0 && y <= box.y1;
  if (!inside || triangle[i] < 0) return;
  const Tri t = faces[triangle[i]];
  const Vec2 p = on_face(barycentric[i], place[t.v0], place[t.v1], place[t.v2]) - Vec2{0.5f, 0.5f};
  bump[i] = sampled_cubic(relief, p);
  const float shown =
      sampled(bilinear(p), kWidth, kHeight, [&](int u, int v) { return seen(u, v) ? 1.f : 0.f; });
  valid[i] = shown > kShown;
}

// === Expected relief ===

// Rows of the Gram matrix: a reference's deviations each, then the own relief's, then zeros.
constexpr int kTile = 4;
constexpr int kTiles = (kMaxReferences + 1 + kTile - 1) / kTile;
constexpr int kRows = kTile * kTiles;
constexpr int kPairs = kTiles * (kTiles + 1) / 2;  // of tiles, each once
constexpr int kEntries = kPairs * kTile * kTile;
// The pixels are summed up in strips, those in groups; small ones, so that there are enough
// threads.
constexpr int kStrip = 25;
constexpr int kGroup = 32;
constexpr int kGroups = (kHalfPixels + kStrip * kGroup - 1) / (kStrip * kGroup);
constexpr int kStrips = kGroups * kGroup;
constexpr int kUnroll = 8;  // maps that are asked for before the first is used
static_assert(kMaxReferences % kTile == 0 && kMaxReferences % kUnroll == 0);
static_assert(kWidth % (2 * kSeenBlock) == 0 && kHeight % (2 * kSeenBlock) == 0);

struct alignas(16) Quad {
  float v[kTile];
};

struct Relief {
  float mm;
  bool seen;
};

// Of a reference in a slot, at pixel i of the chart.
E3D_HD inline Relief relief_at(View<const StoredRelief> stored, std::int32_t chosen, int i) {
  const int y = i / kWidth, column = i % kWidth;
  const int x = chosen & 1 ? kWidth - 1 - column : column;
  const StoredRelief& r = stored[chosen >> 1];
  const int block = y / kSeenBlock * (kWidth / kSeenBlock) + x / kSeenBlock;
  return {r.level[y * kWidth + x] * r.step + r.zero, is_block_seen(r, block)};
}

E3D_HD inline int mirrored(int i) { return i - i % kWidth + (kWidth - 1 - i % kWidth); }

struct ReliefScratch {
  View<float> mean;               // mm, (H W,)
  View<std::uint8_t> known;       // enough references show it
  View<std::uint8_t> row, inner;  // mirrored `seen`, eroded along rows, then along columns
  View<std::uint8_t> sum;         // of `inner` along rows, 0 to 9
  View<Quad> deviation;           // at half the resolution, (H W / 4, kTiles)
  View<std::uint8_t> used;        // whether slopes there count
  View<Quad> partial;             // (kStrips, kPairs, kTile)
  View<double> grouped;           // (kGroups, kEntries)
};

// Mean of the references, and the products of all slopes.
struct GramProgram {
  View<const StoredRelief> stored;
  View<const std::int32_t> chosen;
  ImageView<const float> own;
  ImageView<const std::uint8_t> seen;
  ReliefScratch to;

  __device__ void mean_at(int i) const {
    float total = 0.f, weights = 0.f;
    int count = 0, number = 0;
    for (int k = 0; k < kMaxReferences; k += kUnroll) {
      Relief relief[kUnroll];
      for (int l = 0; l < kUnroll; ++l)
        relief[l] = relief_at(stored, chosen[k + l] < 0 ? 0 : chosen[k + l], i);
      for (int l = 0; l < kUnroll; ++l) {
        if (chosen[k + l] < 0) continue;
        const float weight = relief[l].seen ? 1.f : kUnseen;
        weights += weight;
        total += weight * relief[l].mm;
        count += relief[l].seen;
        ++number;
      }
    }
    to.mean[i] = number ? total / weights : 0.f;
    to.known[i] = number && count >= kEnough * number;
  }

  __device__ bool rows_seen(int i) const {
    const int x = i % kWidth, from = mirrored(i);  // what is d to the right here is to the left
    for (int d = -kRimReach; d <= kRimReach; ++d)
      if (x + d >= 0 && x + d < kWidth && !seen[from - d]) return false;
    return true;
  }

  __device__ bool columns_seen(int i) const {
    const int y = i / kWidth;
    for (int d = -kRimReach; d <= kRimReach; ++d)
      if (y + d >= 0 && y + d < kHeight && !to.row[i + d * kWidth]) return false;
    return true;
  }

  __device__ int row_sum(int i) const {
    const int x = i % kWidth;
    int sum = 0;
    for (int d = -kRimReach; d <= kRimReach; ++d) sum += to.inner[i - x + reflected(x + d, kWidth)];
    return sum;
  }

  __device__ Quad deviation_at(int half, int tile) const {
    const int first = 2 * (half / kHalfWidth) * kWidth + 2 * (half % kHalfWidth);
    Quad sum{{0.f, 0.f, 0.f, 0.f}};
    for (int p = 0; p < 4; ++p) {
      const int i = first + p / 2 * kWidth + p % 2;
      const float mean = to.mean[i];
      if (tile == kTiles - 1) {
        if (seen[i]) sum.v[0] += own[i] - mean;
        continue;
      }
      for (int k = 0; k < kTile; ++k) {
        const std::int32_t which = chosen[tile * kTile + k];
        if (which < 0) continue;
        const Relief relief = relief_at(stored, which, i);
        if (relief.seen) sum.v[k] += relief.mm - mean;
      }
    }
    for (float& v : sum.v) v *= 0.25f;
    return sum;
  }

  __device__ bool all_used(int half) const {
    const int first = 2 * (half / kHalfWidth) * kWidth + 2 * (half % kHalfWidth);
    bool all = true;
    for (int p = 0; p < 4; ++p) {
      const int i = first + p / 2 * kWidth + p % 2;
      all = all && seen[i] && to.known[i];
    }
    return all;
  }

  // Products of the slopes of two tiles of rows over a strip of pixels.
  __device__ void products(int strip, int pair) const {
    int a = 0, b = pair;
    while (b >= kTiles - a) b -= kTiles - a, ++a;
    b += a;
    float sum[kTile][kTile] = {};
    const auto add = [&](int from, int end) {
      const Quad a0 = to.deviation[from * kTiles + a], a1 = to.deviation[end * kTiles + a];
      const Quad b0 = to.deviation[from * kTiles + b], b1 = to.deviation[end * kTiles + b];
      for (int k = 0; k < kTile; ++k)
        for (int l = 0; l < kTile; ++l) sum[k][l] += (a1.v[k] - a0.v[k]) * (b1.v[l] - b0.v[l]);
    };
    for (int h = strip * kStrip; h < (strip + 1) * kStrip && h < kHalfPixels; ++h) {
      if (!to.used[h]) continue;
      if ((h + 1) % kHalfWidth && to.used[h + 1]) add(h, h + 1);
      if (h + kHalfWidth < kHalfPixels && to.used[h + kHalfWidth]) add(h, h + kHalfWidth);
    }
    for (int k = 0; k < kTile; ++k) {
      Quad row;
      for (int l = 0; l < kTile; ++l) row.v[l] = sum[k][l];
      to.partial[(strip * kPairs + pair) * kTile + k] = row;
    }
  }

  __device__ void run(Grid& grid) const {
    grid.for_each(kPixels, [&](int i) {
      mean_at(i);
      to.row[i] = rows_seen(i);
    });
    grid.sync();
    grid.for_each(kTiles * kHalfPixels, [&](int j) {
      const int half = j % kHalfPixels, tile = j / kHalfPixels;
      to.deviation[half * kTiles + tile] = deviation_at(half, tile);
      if (tile == 0) to.used[half] = all_used(half);
    });
    grid.for_each(kPixels, [&](int i) { to.inner[i] = columns_seen(i); });
    grid.sync();
    grid.for_each(kStrips * kPairs, [&](int j) { products(j / kPairs, j % kPairs); });
    grid.for_each(kPixels, [&](int i) { to.sum[i] = static_cast<std::uint8_t>(row_sum(i)); });
    grid.sync();
    grid.for_each(kGroups * kEntries, [&](int j) {
      const int group = j / kEntries, entry = j % kEntries;
      double sum = 0.0;
      for (int k = 0; k < kGroup; ++k)
        sum += to.partial[((group * kGroup + k) * kEntries + entry) / kTile].v[entry % kTile];
      to.grouped[j] = sum;
    });
  }
};

// Four unknowns of a positive definite system.
struct Four {
  double v[kTile];
};

E3D_HD inline Four solve_four(double (&m)[kTile][kTile], Four rhs) {
  for (int k = 0; k < kTile; ++k) {
    const double inverse = 1.0 / m[k][k];
    for (int i = k + 1; i < kTile; ++i) {
      const double factor = m[i][k] * inverse;
      for (int j = k + 1; j < kTile; ++j) m[i][j] -= factor * m[k][j];
      rhs.v[i] -= factor * rhs.v[k];
    }
    m[k][k] = inverse;
  }
  for (int k = kTile - 1; k >= 0; --k) {
    for (int j = k + 1; j < kTile; ++j) rhs.v[k] -= m[k][j] * rhs.v[j];
    rhs.v[k] *= m[k][k];
  }
  return rhs;
}

// Ridge regression: c = (G + prior)⁻¹ b by Gauss-Jordan elimination of four unknowns at a time, in
// as few steps as there are syncs to wait for. Of a single block.
struct SolveProgram {
  View<const std::int32_t> chosen;
  View<const double> grouped;
  View<double> gram;          // (kRows, kRows)
  View<double> system, next;  // (kMaxReferences, kRows): the matrix, then b
  View<float> coefficients;   // (kMaxReferences,)

  static constexpr int kRight = kMaxReferences;  // column of b

  __device__ void gather(int entry) const {
    double sum = 0.0;
    for (int g = 0; g < kGroups; ++g) sum += grouped[g * kEntries + entry];
    int a = 0, b = entry / (kTile * kTile);
    while (b >= kTiles - a) b -= kTiles - a, ++a;
    const int row = a * kTile + entry / kTile % kTile, column = (a + b) * kTile + entry % kTile;
    gram[row * kRows + column] = sum;
    if (b > 0) gram[column * kRows + row] = sum;
  }

  __device__ void eliminate(const double* from, double* into, int step, int tile,
                            int column) const {
    const int k0 = step * kTile, i0 = tile * kTile;
    double pivot[kTile][kTile];
    Four y;
    for (int k = 0; k < kTile; ++k) {
      for (int l = 0; l < kTile; ++l) pivot[k][l] = from[(k0 + k) * kRows + k0 + l];
      y.v[k] = from[(k0 + k) * kRows + column];
    }
    y = solve_four(pivot, y);
    for (int i = 0; i < kTile; ++i) {
      double value = tile == step ? y.v[i] : from[(i0 + i) * kRows + column];
      if (tile != step)
        for (int k = 0; k < kTile; ++k) value -= from[(i0 + i) * kRows + k0 + k] * y.v[k];
      into[(i0 + i) * kRows + column] = value;
    }
  }

  __device__ void run(Grid& grid) const {
    grid.for_each(kEntries, [&](int entry) { gather(entry); });
    grid.sync();
    const Sum3 trace = grid.sum3(kMaxReferences, [&](int k) {
      return Sum3{gram[k * kRows + k], chosen[k] < 0 ? 0.0 : 1.0, 0.0};
    });
    const double prior = (trace.y > 0.0 ? kPrior * trace.x / trace.y : 0.0) + FLT_MIN;
    grid.for_each(kMaxReferences * (kMaxReferences + 1), [&](int j) {
      const int row = j / (kMaxReferences + 1), column = j % (kMaxReferences + 1);
      system[row * kRows + column] = gram[row * kRows + column] + (row == column ? prior : 0.0);
    });
    grid.sync();
    double* from = system.data;
    double* into = next.data;
    constexpr int kSteps = kMaxReferences / kTile;
    for (int step = 0; step < kSteps; ++step) {
      const int first = (step + 1) * kTile;  // columns before are done with
      grid.for_each(kSteps * (kRight + 1 - first),
                    [&](int j) { eliminate(from, into, step, j % kSteps, first + j / kSteps); });
      grid.sync();
      double* const swap = from;
      from = into, into = swap;
    }
    grid.for_each(kMaxReferences,
                  [&](int k) { coefficients[k] = static_cast<float>(from[k * kRows + kRight]); });
  }
};

E3D_KERNEL combine_kernel(View<const StoredRelief> stored, View<const std::int32_t> chosen,
                          View<const float> coefficients, ImageView<const float> own,
                          ImageView<const std::uint8_t> seen, View<const float> mean,
                          View<const std::uint8_t> known, View<const std::uint8_t> rim,
                          ImageView<float> out, ImageView<std::uint8_t> valid) {
  const int i = thread_index();
  if (i >= kPixels) return;
  float sum = 0.f;
  for (int k = 0; k < kMaxReferences; k += kUnroll) {
    Relief relief[kUnroll];
    for (int l = 0; l < kUnroll; ++l)
      relief[l] = relief_at(stored, chosen[k + l] < 0 ? 0 : chosen[k + l], i);
    for (int l = 0; l < kUnroll; ++l)
      if (chosen[k + l] >= 0 && relief[l].seen)
        sum += coefficients[k + l] * (relief[l].mm - mean[i]);
  }
  int count = 0;
  for (int d = -kRimReach; d <= kRimReach; ++d)
    count += rim[reflected(i / kWidth + d, kHeight) * kWidth + i % kWidth];
  constexpr int kRim = 2 * kRimReach + 1;
  const float expected = mean[i] + sum, share = kOwnMirrored * float(count) / float(kRim * kRim);
  const int other = mirrored(i);
  out[i] = count ? expected + share * (own[other] - expected) : expected;
  valid[i] = known[i] || seen[other];
}

}  // namespace

struct FaceChart::Internals {
  DeviceArray<Tri> corners;
  DeviceArray<Vec2> barycentric, place;
  DeviceArray<Tri> faces;
  Blur blur;
};

FaceChart::FaceChart(const std::vector<Tri>& corners, const std::vector<Vec2>& barycentric,
                     const std::vector<Vec2>& place, const std::vector<Tri>& faces)
    : in_(new Internals{DeviceArray<Tri>(corners), DeviceArray<Vec2>(barycentric),
                        DeviceArray<Vec2>(place), DeviceArray<Tri>(faces), prefilter()}) {
  if (corners.size() != kPixels || barycentric.size() != kPixels)
    throw std::invalid_argument("the chart has another size");
}

FaceChart::~FaceChart() = default;

int FaceChart::vertex_count() const { return static_cast<int>(in_->place.size()); }

void FaceChart::unroll(ImageView<const float> map, ImageView<const std::uint8_t> known,
                       View<const std::int32_t> box, View<const float> pinhole,
                       View<const Vec3> vertices_in_camera, View<const std::uint8_t> visible,
                       ImageView<float> out, ImageView<std::uint8_t> seen, Stream s) const {
  launch(unroll_kernel, kPixels, s, map, known, box, pinhole, vertices_in_camera, visible,
         in_->corners.cview(), in_->barycentric.cview(), in_->blur, out, seen);
}

void FaceChart::warp_by_surface(ImageView<const float> relief, ImageView<const std::uint8_t> seen,
                                ImageView<const std::int32_t> triangle,
                                ImageView<const Vec2> barycentric, View<const std::int32_t> box,
                                ImageView<float> bump, ImageView<std::uint8_t> valid,
                                Stream s) const {
  launch(warp_by_surface_kernel, bump.width * bump.height, s, relief, seen, triangle, barycentric,
         box, in_->place.cview(), in_->faces.cview(), bump, valid);
}

struct ReferenceRelief::Internals {
  explicit Internals(int slots)
      : stored(slots),
        mean(kPixels),
        known(kPixels),
        row(kPixels),
        inner(kPixels),
        sum(kPixels),
        used(kHalfPixels),
        deviation(kHalfPixels * kTiles),
        partial(kStrips * kPairs * kTile),
        grouped(kGroups * kEntries),
        gram(kRows * kRows),
        system(kMaxReferences * kRows),
        next(kMaxReferences * kRows),
        coefficients(kMaxReferences) {
    fill_bytes(stored.view(), 0, nullptr);
    wait(nullptr);
  }
  DeviceArray<StoredRelief> stored;
  DeviceArray<float> mean;
  DeviceArray<std::uint8_t> known, row, inner, sum, used;
  DeviceArray<Quad> deviation, partial;
  DeviceArray<double> grouped, gram, system, next;
  DeviceArray<float> coefficients;
  GridScratch scratch;
};

ReferenceRelief::ReferenceRelief(int slots) {
  if (slots < 1) throw std::invalid_argument("at least one slot is needed");
  in_.reset(new Internals(slots));
}

ReferenceRelief::~ReferenceRelief() = default;

int ReferenceRelief::slots() const { return static_cast<int>(in_->stored.size()); }

void ReferenceRelief::store(int slot, View<const std::uint8_t> relief, Stream s) const {
  if (slot < 0 || slot >= slots()) throw std::invalid_argument("there is no such slot");
  if (relief.n != sizeof(StoredRelief)) throw std::invalid_argument("no stored relief");
  copy_to_device(in_->stored.data() + slot, relief.data, sizeof(StoredRelief), s);
}

void ReferenceRelief::expected_relief(View<const std::int32_t> chosen, ImageView<const float> own,
                                      ImageView<const std::uint8_t> seen, ImageView<float> out,
                                      ImageView<std::uint8_t> valid, Stream s) const {
  const GramProgram products{
      in_->stored.cview(),
      chosen,
      own,
      seen,
      {in_->mean.view(), in_->known.view(), in_->row.view(), in_->inner.view(), in_->sum.view(),
       in_->deviation.view(), in_->used.view(), in_->partial.view(), in_->grouped.view()}};
  launch_grid(products, kTiles * kHalfPixels, in_->scratch, s);
  const SolveProgram solve{chosen,           in_->grouped.cview(),
                           in_->gram.view(), in_->system.view(),
                           in_->next.view(), in_->coefficients.view()};
  launch_grid(solve, 1, in_->scratch, s);
  launch(combine_kernel, kPixels, s, in_->stored.cview(), chosen, in_->coefficients.cview(), own,
         seen, in_->mean.cview(), in_->known.cview(), in_->sum.cview(), out, valid);
}

}  // namespace e3d::cuda
