// registration.cpp — Python view of extreme3d/cuda/registration.h.
#include "extreme3d/cuda/registration.h"

#include "arrays.h"

namespace e3d::cuda::bind {

void bind_registration(nb::module_& m) {
  m.def(
      "register_dense",
      [](const Array<const std::int32_t>& triangle, const Array<const float>& barycentric,
         const Array<const std::int32_t>& pixel_of_vertex, const Array<const float>& dense_vertices,
         const Array<const float>& sparse_vertices, const Array<const std::int32_t>& faces,
         const Array<const std::int32_t>& count, const Array<std::int32_t>& out_triangle,
         const Array<float>& uv, const Array<float>& residual, std::uintptr_t s) {
        const auto face_at = image(triangle, "triangle");
        const auto dense = rows<const Vec3>(dense_vertices, "dense_vertices");
        register_dense(
            {face_at,
             image_of<const Vec2>(barycentric, "barycentric", face_at.height, face_at.width),
             view(pixel_of_vertex, "pixel_of_vertex", dense.n), view(count, "count", 1)},
            dense,
            {rows<const Vec3>(sparse_vertices, "sparse_vertices"), rows<const Tri>(faces, "faces")},
            {view(out_triangle, "out_triangle", dense.n), rows<Vec2>(uv, "uv", dense.n),
             rows<Vec3>(residual, "residual", dense.n)},
            stream(s));
      },
      "triangle"_array, "barycentric"_array, "pixel_of_vertex"_array, "dense_vertices"_array,
      "sparse_vertices"_array, "faces"_array, "count"_array, "out_triangle"_array, "uv"_array,
      "residual"_array, "stream"_a = 0);
}

}  // namespace e3d::cuda::bind
