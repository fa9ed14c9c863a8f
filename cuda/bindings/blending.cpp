// blending.cpp — Python view of extreme3d/cuda/blending.h.
#include "extreme3d/cuda/blending.h"

#include "arrays.h"

namespace e3d::cuda::bind {

void bind_blending(nb::module_& m) {
  using Map = Array<const float>;
  using Mask = Array<const std::uint8_t>;
  m.def(
      "unfade",
      [](const Map& bump, const Map& weight, const Mask& hole, const Array<float>& out,
         const Array<std::uint8_t>& known, std::uintptr_t s) {
        const auto b = image(bump, "bump");
        unfade(b, image(weight, "weight", b.height, b.width),
               image(hole, "hole", b.height, b.width), image(out, "out", b.height, b.width),
               image(known, "known", b.height, b.width), stream(s));
      },
      "bump"_array, "weight"_array, "hole"_array, "out"_array, "known"_array, "stream"_a = 0);
  nb::class_<Blender>(m, "Blender")
      .def(
          "__init__",
          [](Blender* self, int width, int height) {
            if (width < 0 || height < 0)
              throw std::invalid_argument("`width` and `height` should not be negative");
            new (self) Blender(width, height);
          },
          "width"_a, "height"_a)
      .def(
          "fill_bump",
          [](Blender& self, const Map& bump, const Map& weight, const Mask& hole,
             const Map& borrowed, const Mask& valid, const Array<float>& out,
             const Array<float>& status, std::uintptr_t s) {
            const int h = self.height(), w = self.width();
            self.fill_bump({image(bump, "bump", h, w), image(weight, "weight", h, w),
                            image(hole, "hole", h, w), image(borrowed, "borrowed", h, w),
                            image(valid, "valid", h, w)},
                           image(out, "out", h, w), view(status, "status", 2), stream(s));
          },
          "bump"_array, "weight"_array, "hole"_array, "borrowed"_array, "valid"_array, "out"_array,
          "status"_array, "stream"_a = 0)
      .def(
          "blend_gradients",
          [](Blender& self, const Map& values, const Mask& known, const Mask& region,
             const Map& guidance, const Mask& guided, float tolerance, const Array<float>& out,
             const Array<float>& status, std::uintptr_t s) {
            const int h = self.height(), w = self.width();
            self.blend_gradients({image(values, "values", h, w), image(known, "known", h, w),
                                  image(region, "region", h, w), image(guidance, "guidance", h, w),
                                  image(guided, "guided", h, w)},
                                 tolerance, image(out, "out", h, w), view(status, "status", 2),
                                 stream(s));
          },
          "values"_array, "known"_array, "region"_array, "guidance"_array, "guided"_array,
          "tolerance"_a, "out"_array, "status"_array, "stream"_a = 0);
}

}  // namespace e3d::cuda::bind
