// smooth_depth.cpp — Python view of extreme3d/smooth_depth.h.
#include "extreme3d/smooth_depth.h"

#include "arrays.h"

namespace e3d::bind {

void bind_smooth_depth(py::module_& m) {
  m.def(
      "smooth_depth",
      [](const Array<float>& depth, const Array<std::int32_t>& triangle,
         const Array<float>& barycentric, const Array<float>& vertices, const Array<float>& normals,
         const Array<std::int32_t>& faces, int threads) {
        const auto z = image_view(depth, "depth");
        const auto t = image_view(triangle, "triangle", z.height, z.width);
        require_shape(barycentric, "barycentric", {z.height, z.width, 2});
        const ImageView<const Vec2> b{reinterpret_cast<const Vec2*>(barycentric.data()), z.width,
                                      z.height};
        const auto v = vec3_view(vertices, "vertices_in_camera");
        const auto n = vec3_view(normals, "normals_in_camera", v.n);
        const auto f = tri_view(faces, "faces", v.n);
        require_range(t.data, triangle.size(), "triangle", -1, f.n);
        py::array_t<float> smooth({z.height, z.width});
        const ImageView<float> out{smooth.mutable_data(), z.width, z.height};
        {
          const py::gil_scoped_release release;
          smooth_depth(z, t, b, v, n, f, threads, out);
        }
        return smooth;
      },
      py::arg("depth").noconvert(), py::arg("triangle").noconvert(),
      py::arg("barycentric").noconvert(), py::arg("vertices_in_camera").noconvert(),
      py::arg("normals_in_camera").noconvert(), py::arg("faces").noconvert(),
      py::arg("threads") = 1);
}

}  // namespace e3d::bind
