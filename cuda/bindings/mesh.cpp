// mesh.cpp — Python view of extreme3d/cuda/mesh.h.
#include "extreme3d/cuda/mesh.h"

#include "arrays.h"

namespace e3d::cuda::bind {

void bind_mesh(nb::module_& m) {
  m.def(
      "transform_points",
      [](const Array<const float>& b_from_a, const Array<const float>& points,
         const Array<float>& out, std::uintptr_t s) {
        const auto in = rows<const Vec3>(points, "points");
        transform_points(matrix(b_from_a, "b_from_a"), in, rows<Vec3>(out, "out", in.n), stream(s));
      },
      "b_from_a"_array, "points"_array, "out"_array, "stream"_a = 0);
  m.def(
      "rotate_vectors",
      [](const Array<const float>& b_from_a, const Array<const float>& vectors,
         const Array<float>& out, std::uintptr_t s) {
        const auto in = rows<const Vec3>(vectors, "vectors");
        rotate_vectors(matrix(b_from_a, "b_from_a"), in, rows<Vec3>(out, "out", in.n), stream(s));
      },
      "b_from_a"_array, "vectors"_array, "out"_array, "stream"_a = 0);
  m.def(
      "vertex_normals",
      [](const Array<const float>& vertices, const Array<const std::int32_t>& faces,
         const Array<const std::int32_t>& offsets, const Array<const std::int32_t>& indices,
         const Array<float>& area, const Array<float>& out, std::uintptr_t s) {
        const MeshView mesh{rows<const Vec3>(vertices, "vertices"),
                            rows<const Tri>(faces, "faces")};
        vertex_normals(mesh, csr(offsets, indices, mesh.vertices.n),
                       rows<Vec3>(area, "area", mesh.faces.n),
                       rows<Vec3>(out, "out", mesh.vertices.n), stream(s));
      },
      "vertices"_array, "faces"_array, "offsets"_array, "indices"_array, "area"_array, "out"_array,
      "stream"_a = 0);
  m.def(
      "erode_mask",
      [](const Array<const std::uint8_t>& mask, const Array<const std::int32_t>& faces,
         const Array<const std::int32_t>& offsets, const Array<const std::int32_t>& indices,
         const Array<std::uint8_t>& out, std::uintptr_t s) {
        const auto in = view(mask, "mask");
        erode_mask(in, rows<const Tri>(faces, "faces"), csr(offsets, indices, in.n),
                   view(out, "out", in.n), stream(s));
      },
      "mask"_array, "faces"_array, "offsets"_array, "indices"_array, "out"_array, "stream"_a = 0);
}

}  // namespace e3d::cuda::bind
