// dense.cpp — Python view of extreme3d/cuda/dense.h.
#include "extreme3d/cuda/dense.h"

#include <nanobind/stl/optional.h>

#include "arrays.h"

namespace e3d::cuda::bind {

void bind_dense(nb::module_& m) {
  m.def(
      "compose_depth",
      [](const Array<const float>& depth, const Array<const float>& weight,
         const Array<const float>& bump, const Array<float>& out, std::uintptr_t s) {
        const auto z = image(depth, "depth");
        const int n = z.width * z.height;
        compose_depth({z.data, n}, {image(weight, "weight", z.height, z.width).data, n},
                      {image(bump, "bump", z.height, z.width).data, n},
                      {image(out, "out", z.height, z.width).data, n}, stream(s));
      },
      "depth"_array, "weight"_array, "bump"_array, "out"_array, "stream"_a = 0);
  nb::class_<DenseMesher>(m, "DenseMesher")
      .def(
          "__init__",
          [](DenseMesher* self, int width, int height) {
            if (width < 1 || height < 1 || width > kMaxImageSide || height > kMaxImageSide)
              throw std::invalid_argument("width and height should be in [1, 32768]");
            new (self) DenseMesher(width, height);
          },
          "width"_a, "height"_a)
      .def(
          "mesh",
          [](const DenseMesher& self, const Array<const float>& depth,
             const Array<const float>& pinhole, float max_slope, const Array<float>& vertices,
             const Array<std::int32_t>& vertex_of_pixel, const Array<std::int32_t>& pixel_of_vertex,
             const Array<std::int32_t>& count,
             const std::optional<Array<const float>>& frame_from_camera, std::uintptr_t s) {
            const int w = self.width(), h = self.height();
            self.mesh(image(depth, "depth", h, w), view(pinhole, "pinhole", 4),
                      frame_from_camera ? matrix(*frame_from_camera, "frame_from_camera")
                                        : View<const float>{nullptr, 0},
                      max_slope,
                      {rows<Vec3>(vertices, "vertices", w * h),
                       image(vertex_of_pixel, "vertex_of_pixel", h, w),
                       view(pixel_of_vertex, "pixel_of_vertex", w * h), view(count, "count", 1)},
                      stream(s));
          },
          "depth"_array, "pinhole"_array, "max_slope"_a, "vertices"_array, "vertex_of_pixel"_array,
          "pixel_of_vertex"_array, "count"_array,
          nb::arg("frame_from_camera").noconvert() = nb::none(), "stream"_a = 0);
}

}  // namespace e3d::cuda::bind
