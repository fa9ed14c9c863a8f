// network_maps.cu — kernels over the pixels of a crop, before and after the bump network.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "extreme3d/cuda/grid.h"
#include "extreme3d/cuda/memory.h"
#include "extreme3d/cuda/network_maps.h"
#include "extreme3d/cuda/scan.h"

namespace e3d::cuda {
namespace {

constexpr float kFaceShown = 0.5f;  // probability; of bump_network.py

constexpr int kSampleStride = 7;  // face pixels that a sample of depth stands for
constexpr int kFewestLines = 8;   // rows, and columns, of a face

E3D_HD inline int clamped(int i, int n) { return i < 0 ? 0 : i < n ? i : n - 1; }

// === Where the face is ===

// used: (W H + 1,), the last one 0, so that running sums tell whether a pixel is used. columns:
// (W,) zeros, 1 where a column has a pixel of the face; many threads may write that same 1.
E3D_KERNEL mark_face_kernel(ImageView<const float> weight, ImageView<const float> depth,
                            View<std::int32_t> used, View<std::int32_t> columns) {
  const int p = thread_index();
  if (p >= used.n) return;
  const bool face = p + 1 < used.n && weight[p] > 0.f && std::isfinite(depth[p]);
  used[p] = face;
  if (face) columns[p % weight.width] = 1;
}

// first: (W H + 1,) pixels of the face before each. Positive floats sort as the integers that
// their bits are.
E3D_KERNEL sample_depth_kernel(ImageView<const float> depth, View<const std::int32_t> first,
                               View<std::int32_t> samples) {
  const int p = thread_index();
  if (p + 1 >= first.n) return;
  const std::int32_t rank = first[p];
  if (first[p + 1] == rank || rank % kSampleStride != 0) return;
  std::memcpy(&samples[rank / kSampleStride], &depth[p], sizeof(float));
}

// The median by halving the range twice a round, on one block: it needs no barrier of the grid.
struct MeasureFace {
  int width;
  View<const std::int32_t> first, columns, samples;
  View<const float> pinhole;
  View<std::int32_t> scratch;  // (5,) the box while it is found, and the value below the median
  View<float> out;

  __device__ void run(Grid& grid) const {
    const int height = (first.n - 1) / width, lines = width > height ? width : height;
    const std::int32_t face = first[first.n - 1];
    const int n = (face + kSampleStride - 1) / kSampleStride;
    grid.for_each(5, [&](int i) { scratch[i] = i == 0 || i == 2 ? lines : 0; });
    grid.sync();
    const auto has_row = [&](int y) {
      return y < height && first[y * width] < first[(y + 1) * width];
    };
    const auto has_column = [&](int x) { return x < width && columns[x] > 0; };
    grid.for_each(lines, [&](int i) {
      if (has_row(i)) {
        atomic_min(&scratch[0], i);
        atomic_max(&scratch[1], i + 1);
      }
      if (has_column(i)) {
        atomic_min(&scratch[2], i);
        atomic_max(&scratch[3], i + 1);
      }
    });
    const Sum3 used = grid.sum3(
        lines, [&](int i) { return Sum3{has_row(i) ? 1.0 : 0.0, has_column(i) ? 1.0 : 0.0, 0.0}; });
    if (used.x < kFewestLines || used.y < kFewestLines) {
      grid.for_each(5, [&](int i) { out[i] = 0.f; });
      return;
    }

    // The smallest value that more than n / 2 samples do not exceed lies in [low, high].
    std::int32_t low = 0, high = 0x7f800000;  // infinity
    while (low < high) {
      const std::int32_t step = (high - low) / 4;
      const std::int32_t a = low + step, b = a + step, c = b + step;
      const Sum3 below = grid.sum3(n, [&](int i) {
        const std::int32_t value = samples[i];
        return Sum3{value <= a ? 1.0 : 0.0, value <= b ? 1.0 : 0.0, value <= c ? 1.0 : 0.0};
      });
      const double half = n / 2;
      if (below.x > half) {
        high = a;
      } else if (below.y > half) {
        low = a + 1, high = b;
      } else if (below.z > half) {
        low = b + 1, high = c;
      } else {
        low = c + 1;
      }
    }
    // An even number of samples has two in the middle.
    const double lower = grid.sum(n, [&](int i) { return samples[i] < low ? 1.0 : 0.0; });
    const bool between = n % 2 == 0 && lower == n / 2;
    if (between)
      grid.for_each(n, [&](int i) {
        if (samples[i] < low) atomic_max(&scratch[4], samples[i]);
      });
    grid.sync();
    grid.for_each(5, [&](int i) {
      if (i < 4) {
        out[i] = static_cast<float>(scratch[i]);
        return;
      }
      float at = 0.f, before = 0.f;
      std::memcpy(&at, &low, sizeof(float));
      const std::int32_t value = between ? scratch[4] : low;
      std::memcpy(&before, &value, sizeof(float));
      out[i] = 0.5f * (before + at) / pinhole[0];
    });
  }
};

// === What the network sees ===

// at(k): what lies k px from the middle of the blur.
template <class At>
E3D_HD Seen blurred(Blur blur, const At& at) {
  float depth = 0.f, share = 0.f, sum = 0.f;
  for (int k = -blur.radius; k <= blur.radius; ++k) {
    const float weight = std::exp(blur.falloff * static_cast<float>(k * k));
    const Seen seen = at(k);
    depth += weight * seen.depth;
    share += weight * seen.share;
    sum += weight;
  }
  return {depth / sum, share / sum};
}

E3D_KERNEL blur_rows_kernel(ImageView<const float> depth, Cut cut, Blur blur, View<Seen> out) {
  const int p = thread_index();
  if (p >= out.n) return;
  const int x = p % cut.width, y = p / cut.width;
  out[p] = blurred(blur, [&](int k) {
    const float z = depth(cut.x + clamped(x + k, cut.width), cut.y + y);
    return std::isfinite(z) ? Seen{z, 1.f} : Seen{0.f, 0.f};
  });
}

// Depth in pixels, as wide as they are.
E3D_KERNEL blur_columns_kernel(View<const Seen> rows, Cut cut, Blur blur, float mm_per_pixel,
                               View<float> out) {
  const int p = thread_index();
  if (p >= out.n) return;
  const int x = p % cut.width, y = p / cut.width;
  const Seen mean =
      blurred(blur, [&](int k) { return rows[clamped(y + k, cut.height) * cut.width + x]; });
  out[p] = smoothed_depth(mean, mm_per_pixel);
}

E3D_KERNEL input_kernel(ImageView<const Rgb> crop, ImageView<const float> depth, MapWindow window,
                        Cut cut, ImageView<const float> smooth, int channels, View<float> out) {
  const int p = thread_index(), pixels = window.width * window.height;
  if (p >= pixels) return;
  const int x = p % window.width + window.x, y = p / window.width + window.y;
  float seen[5] = {0.f, 0.f, 0.f, 0.f, 0.f};
  if (x >= 0 && y >= 0 && x < crop.width && y < crop.height) {
    const Rgb c = crop(x, y);
    seen[0] = seen_color(c.r), seen[1] = seen_color(c.g), seen[2] = seen_color(c.b);
    if (channels == 5 && std::isfinite(depth(x, y))) {
      const Vec2 normal = normal_at(smooth, x - cut.x, y - cut.y);
      seen[3] = normal.x, seen[4] = normal.y;
    }
  }
  for (int c = 0; c < channels; ++c) out[c * pixels + p] = seen[c];
}

// === Openings ===

// For each row and column of the crop, how many pixels from either end come before the face.
struct Margins {
  View<std::int32_t> left, right, above, below;
};

E3D_KERNEL margins_kernel(ImageView<const float> weight, Margins m) {
  const int p = thread_index();
  const int w = weight.width, h = weight.height;
  if (p >= w * h || !(weight[p] > 0.f)) return;
  const int x = p % w, y = p / w;
  // Only the first pixels of runs can be the first of all.
  if (x == 0 || !(weight(x - 1, y) > 0.f)) atomic_min(&m.left[y], x);
  if (x == w - 1 || !(weight(x + 1, y) > 0.f)) atomic_min(&m.right[y], w - 1 - x);
  if (y == 0 || !(weight(x, y - 1) > 0.f)) atomic_min(&m.above[x], y);
  if (y == h - 1 || !(weight(x, y + 1) > 0.f)) atomic_min(&m.below[x], h - 1 - y);
}

// Sets of pixels off the face that touch, as trees: the parent of pixel p is parents[p + 1], a
// root is its own. Root 0 is what lies outside the crop; pixels that see the border straight along
// their row or column belong to it from the start, which leaves few to be joined.
E3D_KERNEL plant_kernel(ImageView<const float> weight, Margins m, View<std::int32_t> parents) {
  const int node = thread_index();
  if (node >= parents.n) return;
  const int p = node - 1, w = weight.width, h = weight.height;
  const int x = p % w, y = p / w;
  const bool outside = node == 0 || x < m.left[y] || w - 1 - x < m.right[y] || y < m.above[x] ||
                       h - 1 - y < m.below[x];
  parents[node] = outside ? 0 : node;
}

// Parents only ever get smaller and stay in their set, so one read too early leads to its root too.
E3D_HD inline int root_of(View<std::int32_t> parents, int node) {
  for (int parent = parents[node]; parent != node; parent = parents[node]) node = parent;
  return node;
}

__device__ inline void join(View<std::int32_t> parents, int a, int b) {
  for (;;) {
    a = root_of(parents, a);
    b = root_of(parents, b);
    if (a == b) return;
    const int low = a < b ? a : b, high = a < b ? b : a;
    const int before = atomic_min(&parents[high], low);
    if (before == high) return;  // it was a root indeed
    a = before, b = low;
  }
}

E3D_KERNEL join_kernel(ImageView<const float> weight, View<std::int32_t> parents) {
  const int p = thread_index();
  const int w = weight.width, h = weight.height;
  if (p >= w * h || weight[p] > 0.f || parents[p + 1] == 0) return;
  const int x = p % w, y = p / w;
  if (x > 0 && !(weight[p - 1] > 0.f)) join(parents, p + 1, p);
  if (x < w - 1 && !(weight[p + 1] > 0.f)) join(parents, p + 1, p + 2);
  if (y > 0 && !(weight[p - w] > 0.f)) join(parents, p + 1, p + 1 - w);
  if (y < h - 1 && !(weight[p + w] > 0.f)) join(parents, p + 1, p + 1 + w);
}

E3D_KERNEL face_kernel(ImageView<const float> weight, View<std::int32_t> parents,
                       ImageView<std::uint8_t> face) {
  const int p = thread_index();
  if (p >= weight.width * weight.height) return;
  face[p] = weight[p] > 0.f || root_of(parents, p + 1) != 0;
}

// === What the network answers ===

E3D_KERNEL output_kernel(ImageView<const float> bump, ImageView<const float> mask, MapWindow window,
                         ImageView<const float> weight, ImageView<const std::uint8_t> face,
                         ImageView<const std::uint8_t> in_photo, BumpView out) {
  const int p = thread_index();
  if (p >= weight.width * weight.height) return;
  const int x = p % weight.width - window.x, y = p / weight.width - window.y;
  const bool inside = x >= 0 && y >= 0 && x < window.width && y < window.height;
  const bool moved = inside && weight[p] > 0.f, asked = inside && face[p] && in_photo[p];
  out.bump[p] = 0.f;
  if (moved) out.bump[p] = std::isfinite(bump(x, y)) ? bump_answer(bump(x, y), weight[p]) : NAN;
  float probability = asked ? probability_answer(mask(x, y)) : 0.f;
  // what covers the face is filled, which must not hide a fault of the network
  if (asked && !(std::isfinite(bump(x, y)) && std::isfinite(mask(x, y)))) probability = NAN;
  out.face_probability[p] = probability;
  out.face_mask[p] = probability > kFaceShown;
}

}  // namespace

struct NetworkMaps::Internals {
  int size;
  DeviceArray<Seen> rows;
  DeviceArray<float> smooth;
  DeviceArray<std::int32_t> margins, parents;
  DeviceArray<std::int32_t> numbers, columns, samples, measured;
  ExclusiveSum sum;
  GridScratch grid;
};

NetworkMaps::NetworkMaps(int size) {
  const std::size_t pixels = std::size_t(size) * size;
  internals_.reset(new Internals{size,
                                 DeviceArray<Seen>(pixels),
                                 DeviceArray<float>(pixels),
                                 DeviceArray<std::int32_t>(4 * std::size_t(size)),
                                 DeviceArray<std::int32_t>(pixels + 1),
                                 DeviceArray<std::int32_t>(pixels + 1),
                                 DeviceArray<std::int32_t>(size),
                                 DeviceArray<std::int32_t>(pixels / kSampleStride + 1),
                                 DeviceArray<std::int32_t>(5),
                                 ExclusiveSum(size * size + 1),
                                 {}});
}
NetworkMaps::~NetworkMaps() = default;

int NetworkMaps::size() const { return internals_->size; }

void NetworkMaps::find_face(ImageView<const float> weight, ImageView<const float> depth,
                            View<const float> pinhole, View<float> out, Stream s) const {
  const Internals& own = *internals_;
  const View<std::int32_t> numbers = own.numbers.view();
  fill_bytes(own.columns.view(), 0, s);
  launch(mark_face_kernel, numbers.n, s, weight, depth, numbers, own.columns.view());
  own.sum(own.numbers.cview(), numbers, s);
  launch(sample_depth_kernel, numbers.n, s, depth, own.numbers.cview(), own.samples.view());
  const MeasureFace measure{own.size,
                            own.numbers.cview(),
                            own.columns.cview(),
                            own.samples.cview(),
                            pinhole,
                            own.measured.view(),
                            out};
  launch_grid(measure, 1, own.grid, s);
}

void NetworkMaps::input(ImageView<const Rgb> crop, ImageView<const float> depth, float mm_per_pixel,
                        MapWindow window, int channels, View<float> out, Stream s) const {
  const Cut cut = cut_of(window, internals_->size);
  const Blur blur = normals_blur(mm_per_pixel);
  const int n = cut.width * cut.height;
  const View<Seen> rows{internals_->rows.data(), n};
  const View<float> smooth{internals_->smooth.data(), n};
  if (channels == 5) {
    launch(blur_rows_kernel, n, s, depth, cut, blur, rows);
    launch(blur_columns_kernel, n, s, View<const Seen>{rows.data, n}, cut, blur, mm_per_pixel,
           smooth);
  }
  launch(input_kernel, window.width * window.height, s, crop, depth, window, cut,
         ImageView<const float>{smooth.data, cut.width, cut.height}, channels, out);
}

void NetworkMaps::close_openings(ImageView<const float> weight, ImageView<std::uint8_t> face,
                                 Stream s) const {
  const int side = internals_->size, n = side * side;
  const View<std::int32_t> all = internals_->margins.view(), parents = internals_->parents.view();
  const Margins margins{{all.data, side},
                        {all.data + side, side},
                        {all.data + 2 * side, side},
                        {all.data + 3 * side, side}};
  fill_bytes(all, 0x7f, s);  // further than any pixel
  launch(margins_kernel, n, s, weight, margins);
  launch(plant_kernel, parents.n, s, weight, margins, parents);
  launch(join_kernel, n, s, weight, parents);
  launch(face_kernel, n, s, weight, parents, face);
}

void NetworkMaps::output(ImageView<const float> bump, ImageView<const float> mask, MapWindow window,
                         ImageView<const float> weight, ImageView<const std::uint8_t> face,
                         ImageView<const std::uint8_t> in_photo, BumpView out, Stream s) const {
  launch(output_kernel, weight.width * weight.height, s, bump, mask, window, weight, face, in_photo,
         out);
}

}  // namespace e3d::cuda
