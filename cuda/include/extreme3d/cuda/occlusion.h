// occlusion.h — what is hidden of a face, on the device; see python/extreme3d_fast/occlusion.py.
#pragma once

#include <cstdint>
#include <memory>

#include "extreme3d/cuda/launch.h"

namespace e3d::cuda {

// Holes of crops of one size: what the face mask rejects, grown, and islands too small to trust.
class HoleFinder {
 public:
  HoleFinder(int width, int height);
  ~HoleFinder();

  // stats (3,): hidden share of the face before growing, pixels of the holes, share of the face
  // that they cover.
  void find(ImageView<const std::uint8_t> face_mask, ImageView<const float> weight,
            ImageView<std::uint8_t> hole, View<double> stats, Stream s) const;

  int width() const;
  int height() const;

 private:
  struct Internals;
  std::unique_ptr<Internals> in_;
};

// Smallest box of a mask: (4,) first column and row, minus the last column and row; 0x7f7f7f7f each
// where the mask is empty.
void bounding_box(ImageView<const std::uint8_t> mask, View<std::int32_t> box, Stream s);

// filled: holes, and face that the photo does not have. uncovered: pixels that show the face; all
// of the photo if covers are `ignored`.
void cover_masks(ImageView<const std::uint8_t> face_mask, ImageView<const std::uint8_t> in_photo,
                 ImageView<const float> weight, ImageView<const std::uint8_t> hole, bool ignored,
                 ImageView<std::uint8_t> filled, ImageView<std::uint8_t> uncovered, Stream s);

// Vertices whose colour the photo shows: visible, of the face, and nothing before them.
void shown_vertices(ImageView<const std::uint8_t> uncovered, View<const std::int32_t> pixel,
                    View<const std::uint8_t> visible, View<const std::uint8_t> face_region,
                    View<std::uint8_t> out, Stream s);

}  // namespace e3d::cuda
