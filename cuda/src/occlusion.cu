// occlusion.cu — holes of a face as one grid program, and masks that follow from them.
#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <vector>

#include "extreme3d/cuda/components.h"
#include "extreme3d/cuda/grid.h"
#include "extreme3d/cuda/occlusion.h"
#include "extreme3d/occlusion.h"

namespace e3d::cuda {
namespace {

constexpr std::uint8_t kFar = 255;  // of `away`: no hole within reach

struct HoleProgram {
  ImageView<const std::uint8_t> face_mask;
  ImageView<const float> weight;
  ImageView<std::uint8_t> hole;
  View<double> stats;
  Components parts;
  View<std::uint8_t> away;              // px to the next large hidden part in the row
  View<std::uint8_t> grown;             // near one
  View<std::int32_t> any;               // (1,) whether there is one
  View<const std::uint8_t> half_width;  // half widths
  int min_hole, min_seen;               // px

  __device__ bool hidden(int i) const { return weight[i] > 0.f && !face_mask[i]; }

  // Distance along the row, as far as the disc reaches.
  __device__ std::uint8_t row_distance(int i) const {
    const int x = i % weight.width;
    for (int d = 0; d <= half_width[0]; ++d) {
      if (x >= d && is_large(parts, i - d, min_hole)) return static_cast<std::uint8_t>(d);
      if (x + d < weight.width && is_large(parts, i + d, min_hole))
        return static_cast<std::uint8_t>(d);
    }
    return kFar;
  }

  __device__ bool is_near(int i) const {
    const int y = i / weight.width;
    for (int d = 0; d < half_width.n; ++d) {
      if (y >= d && away[i - d * weight.width] <= half_width[d]) return true;
      if (y + d < weight.height && away[i + d * weight.width] <= half_width[d]) return true;
    }
    return false;
  }

  __device__ void run(Grid& grid) const {
    const int n = weight.width * weight.height;
    grid.for_each(n, [&](int i) {
      if (i == 0) any[0] = 0;
      start_labels(parts, i, [&](int k) { return hidden(k); });
    });
    const Sum3 face = grid.sum3(n, [&](int i) {
      const double w = weight[i], lost = hidden(i) ? w : 0.0;
      return Sum3{w, lost, lost > 0.0 ? 1.0 : 0.0};
    });
    if (face.z > 0.0) {
      grid.for_each(n, [&](int i) { link_labels(parts, i, true); });
      grid.sync();
      grid.for_each(n, [&](int i) {
        if (count_labels(parts, i, min_hole)) atomic_or(any.data, 1);
      });
      grid.sync();
    }
    Sum3 covered{0.0, 0.0, 0.0};
    if (any[0]) {
      grid.for_each(n, [&](int i) { away[i] = row_distance(i); });
      grid.sync();
      grid.for_each(n, [&](int i) { grown[i] = weight[i] > 0.f && is_near(i); });
      grid.sync();
      grid.for_each(n, [&](int i) {
        start_labels(parts, i, [&](int k) { return weight[k] > 0.f && !grown[k]; });
      });
      grid.sync();
      grid.for_each(n, [&](int i) { link_labels(parts, i, false); });
      grid.sync();
      grid.for_each(n, [&](int i) { count_labels(parts, i, min_seen); });
      grid.sync();
      covered = grid.sum3(n, [&](int i) {
        hole[i] = weight[i] > 0.f && !is_large(parts, i, min_seen);
        return hole[i] ? Sum3{weight[i], 1.0, 0.0} : Sum3{0.0, 0.0, 0.0};
      });
    } else {
      grid.for_each(n, [&](int i) { hole[i] = 0; });
    }
    grid.for_each(1, [&](int) {
      stats[0] = face.x > 0.0 ? face.y / face.x : 0.0;
      stats[1] = covered.y;
      stats[2] = covered.x / (face.x > 1.0 ? face.x : 1.0);
    });
  }
};

E3D_KERNEL bounding_box_kernel(ImageView<const std::uint8_t> mask, View<std::int32_t> box) {
  const int i = thread_index();
  if (i >= mask.width * mask.height || !mask[i]) return;
  const int x = i % mask.width, y = i / mask.width;
  // the mask's edges alone, and of those only what widens the box: few atomics
  const auto widen = [&](int k, std::int32_t to) {
    if (to < box[k]) atomic_min(&box[k], to);
  };
  if (x == 0 || !mask[i - 1]) widen(0, x);
  if (y == 0 || !mask[i - mask.width]) widen(1, y);
  if (x + 1 == mask.width || !mask[i + 1]) widen(2, -x);
  if (y + 1 == mask.height || !mask[i + mask.width]) widen(3, -y);
}

E3D_KERNEL cover_masks_kernel(ImageView<const std::uint8_t> face_mask,
                              ImageView<const std::uint8_t> in_photo, ImageView<const float> weight,
                              ImageView<const std::uint8_t> hole, bool ignored,
                              ImageView<std::uint8_t> filled, ImageView<std::uint8_t> uncovered) {
  const int i = thread_index();
  if (i >= weight.width * weight.height) return;
  const bool lost = hole[i] || (!in_photo[i] && weight[i] > 0.f);
  filled[i] = lost;
  uncovered[i] = ignored ? in_photo[i] : face_mask[i] && !lost;
}

E3D_HD inline bool mask_at(ImageView<const std::uint8_t> mask, std::int32_t pixel) {
  return pixel >= 0 && mask[pixel];
}

E3D_KERNEL shown_vertices_kernel(ImageView<const std::uint8_t> uncovered,
                                 View<const std::int32_t> pixel, View<const std::uint8_t> visible,
                                 View<const std::uint8_t> face_region, View<std::uint8_t> out) {
  const int v = thread_index();
  if (v < out.n) out[v] = visible[v] && face_region[v] && mask_at(uncovered, pixel[v]);
}

}  // namespace

struct HoleFinder::Internals {
  int width, height, min_hole, min_seen;
  DeviceArray<std::int32_t> label, size, any;
  DeviceArray<std::uint8_t> away, grown, half_width;
  GridScratch scratch;
};

HoleFinder::HoleFinder(int width, int height) {
  if (width < 1 || height < 1) throw std::invalid_argument("a crop has at least one pixel");
  const double scale = width / kHoleCropSize;
  const std::vector<int> disc = disc_half_widths(std::min(kTrustMargin * scale, kFar - 1.0));
  const std::vector<std::uint8_t> half_width(disc.begin(), disc.end());
  const auto pixels = [&](double at_500) {
    return static_cast<int>(std::min(std::ceil(at_500 * scale * scale), 2147483647.0));
  };
  const std::size_t n = static_cast<std::size_t>(width) * height;
  using Labels = DeviceArray<std::int32_t>;
  using Mask = DeviceArray<std::uint8_t>;
  in_.reset(new Internals{width, height, pixels(kMinHole), pixels(kMinSeen), Labels(n), Labels(n),
                          Labels(1), Mask(n), Mask(n), Mask(half_width), GridScratch()});
}

HoleFinder::~HoleFinder() = default;

int HoleFinder::width() const { return in_->width; }
int HoleFinder::height() const { return in_->height; }

void HoleFinder::find(ImageView<const std::uint8_t> face_mask, ImageView<const float> weight,
                      ImageView<std::uint8_t> hole, View<double> stats, Stream s) const {
  const Components parts{in_->width, in_->height, in_->label.view(), in_->size.view()};
  const HoleProgram program{face_mask,
                            weight,
                            hole,
                            stats,
                            parts,
                            in_->away.view(),
                            in_->grown.view(),
                            in_->any.view(),
                            in_->half_width.cview(),
                            in_->min_hole,
                            in_->min_seen};
  launch_grid(program, in_->width * in_->height, in_->scratch, s);
}

void bounding_box(ImageView<const std::uint8_t> mask, View<std::int32_t> box, Stream s) {
  fill_bytes(box, 0x7f, s);
  launch(bounding_box_kernel, mask.width * mask.height, s, mask, box);
}

void cover_masks(ImageView<const std::uint8_t> face_mask, ImageView<const std::uint8_t> in_photo,
                 ImageView<const float> weight, ImageView<const std::uint8_t> hole, bool ignored,
                 ImageView<std::uint8_t> filled, ImageView<std::uint8_t> uncovered, Stream s) {
  launch(cover_masks_kernel, weight.width * weight.height, s, face_mask, in_photo, weight, hole,
         ignored, filled, uncovered);
}

void shown_vertices(ImageView<const std::uint8_t> uncovered, View<const std::int32_t> pixel,
                    View<const std::uint8_t> visible, View<const std::uint8_t> face_region,
                    View<std::uint8_t> out, Stream s) {
  launch(shown_vertices_kernel, out.n, s, uncovered, pixel, visible, face_region, out);
}

}  // namespace e3d::cuda
