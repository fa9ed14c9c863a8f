// occlusion.cpp — Python view of extreme3d/cuda/occlusion.h.
#include "extreme3d/cuda/occlusion.h"

#include "arrays.h"

namespace e3d::cuda::bind {

using Mask = Array<const std::uint8_t>;

void bind_occlusion(nb::module_& m) {
  nb::class_<HoleFinder>(m, "HoleFinder")
      .def(nb::init<int, int>(), "width"_a, "height"_a)
      .def(
          "find",
          [](const HoleFinder& finder, const Mask& face_mask, const Array<const float>& weight,
             const Array<std::uint8_t>& hole, const Array<double>& stats, std::uintptr_t s) {
            const int h = finder.height(), w = finder.width();
            finder.find(image(face_mask, "face_mask", h, w), image(weight, "weight", h, w),
                        image(hole, "hole", h, w), view(stats, "stats", 3), stream(s));
          },
          "face_mask"_array, "weight"_array, "hole"_array, "stats"_array, "stream"_a = 0);
  m.def(
      "bounding_box",
      [](const Mask& mask, const Array<std::int32_t>& box, std::uintptr_t s) {
        bounding_box(image(mask, "mask"), view(box, "box", 4), stream(s));
      },
      "mask"_array, "box"_array, "stream"_a = 0);
  m.def(
      "cover_masks",
      [](const Mask& face_mask, const Mask& in_photo, const Array<const float>& weight,
         const Mask& hole, bool ignored, const Array<std::uint8_t>& filled,
         const Array<std::uint8_t>& uncovered, std::uintptr_t s) {
        const auto seen = image(face_mask, "face_mask");
        const int h = seen.height, w = seen.width;
        cover_masks(seen, image(in_photo, "in_photo", h, w), image(weight, "weight", h, w),
                    image(hole, "hole", h, w), ignored, image(filled, "filled", h, w),
                    image(uncovered, "uncovered", h, w), stream(s));
      },
      "face_mask"_array, "in_photo"_array, "weight"_array, "hole"_array, "ignored"_a,
      "filled"_array, "uncovered"_array, "stream"_a = 0);
  m.def(
      "shown_vertices",
      [](const Mask& uncovered, const Array<const std::int32_t>& pixel, const Mask& visible,
         const Mask& face_region, const Array<std::uint8_t>& out, std::uintptr_t s) {
        const auto at = view(pixel, "pixel");
        shown_vertices(image(uncovered, "uncovered"), at, view(visible, "visible", at.n),
                       view(face_region, "face_region", at.n), view(out, "out", at.n), stream(s));
      },
      "uncovered"_array, "pixel"_array, "visible"_array, "face_region"_array, "out"_array,
      "stream"_a = 0);
}

}  // namespace e3d::cuda::bind
