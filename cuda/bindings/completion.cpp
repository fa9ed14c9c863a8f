// completion.cpp — Python view of extreme3d/cuda/completion.h.
#include "extreme3d/cuda/completion.h"

#include "arrays.h"

namespace e3d::cuda::bind {
namespace {

CompletedView completed(const Array<const float>& sparse, const Array<const std::int32_t>& faces,
                        const Array<const std::int32_t>& mirror,
                        const Array<const std::uint8_t>& recovered) {
  const auto r = rows<const Vec3>(sparse, "sparse");
  return {r, rows<const Tri>(faces, "faces"), view(mirror, "mirror", r.n),
          view(recovered, "recovered", r.n)};
}

}  // namespace

void bind_completion(nb::module_& m) {
  m.def(
      "complete_dense",
      [](const Array<const std::int32_t>& triangle, const Array<const float>& uv,
         const Array<const float>& residual, const Array<const float>& sparse,
         const Array<const std::int32_t>& faces, const Array<const std::int32_t>& mirror,
         const Array<const std::uint8_t>& recovered, const Array<const std::int32_t>& count,
         const Array<float>& vertices, const Array<std::uint8_t>& defined, std::uintptr_t s) {
        const auto face_of = view(triangle, "triangle");
        complete_dense(
            {face_of, rows<const Vec2>(uv, "uv", face_of.n),
             rows<const Vec3>(residual, "residual", face_of.n)},
            completed(sparse, faces, mirror, recovered), view(count, "count", 1),
            {rows<Vec3>(vertices, "vertices", face_of.n), view(defined, "defined", face_of.n)},
            stream(s));
      },
      "triangle"_array, "uv"_array, "residual"_array, "sparse"_array, "faces"_array, "mirror"_array,
      "recovered"_array, "count"_array, "vertices"_array, "defined"_array, "stream"_a = 0);
  m.def(
      "reflect_dense",
      [](const Array<const std::int32_t>& triangle, const Array<const float>& barycentric,
         const Array<const std::int32_t>& pixel_of_vertex, const Array<const float>& dense_vertices,
         const Array<const float>& sparse, const Array<const std::int32_t>& faces,
         const Array<const std::int32_t>& mirror, const Array<const std::uint8_t>& recovered,
         const Array<const std::int32_t>& count, const Array<std::int32_t>& out_triangle,
         const Array<float>& uv, const Array<float>& vertices, const Array<std::uint8_t>& defined,
         std::uintptr_t s) {
        const auto face_at = image(triangle, "triangle");
        const auto dense = rows<const Vec3>(dense_vertices, "dense_vertices");
        reflect_dense(
            {face_at,
             image_of<const Vec2>(barycentric, "barycentric", face_at.height, face_at.width),
             view(pixel_of_vertex, "pixel_of_vertex", dense.n), view(count, "count", 1)},
            dense, completed(sparse, faces, mirror, recovered),
            view(out_triangle, "out_triangle", dense.n), rows<Vec2>(uv, "uv", dense.n),
            {rows<Vec3>(vertices, "vertices", dense.n), view(defined, "defined", dense.n)},
            stream(s));
      },
      "triangle"_array, "barycentric"_array, "pixel_of_vertex"_array, "dense_vertices"_array,
      "sparse"_array, "faces"_array, "mirror"_array, "recovered"_array, "count"_array,
      "out_triangle"_array, "uv"_array, "vertices"_array, "defined"_array, "stream"_a = 0);
}

}  // namespace e3d::cuda::bind
