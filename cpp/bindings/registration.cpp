// registration.cpp — Python view of extreme3d/registration.h.
#include "extreme3d/registration.h"

#include "arrays.h"

namespace e3d::bind {
namespace {

py::tuple register_dense_arrays(const Array<std::int32_t>& triangle,
                                const Array<float>& barycentric,
                                const Array<std::int32_t>& vertex_of_pixel,
                                const Array<float>& dense_vertices,
                                const Array<float>& sparse_vertices,
                                const Array<std::int32_t>& faces, int threads) {
  const auto face_at = image_view(triangle, "triangle");
  const int w = face_at.width, h = face_at.height;
  require_shape(barycentric, "barycentric", {h, w, 2});
  const auto vertex_at = image_view(vertex_of_pixel, "vertex_of_pixel", h, w);
  const auto dense = vec3_view(dense_vertices, "dense_vertices");
  const auto sparse = vec3_view(sparse_vertices, "sparse_vertices");
  const MeshView mesh{sparse, tri_view(faces, "faces", sparse.n)};
  require_range(face_at.data, triangle.size(), "triangle", -1, mesh.faces.n);
  require_range(vertex_at.data, vertex_of_pixel.size(), "vertex_of_pixel", -1, dense.n);

  py::array_t<std::int32_t> face_of(dense.n);
  py::array_t<float> uv({dense.n, 2}), residual({dense.n, 3});
  const RegistrationView out{{face_of.mutable_data(), dense.n},
                             {reinterpret_cast<Vec2*>(uv.mutable_data()), dense.n},
                             {reinterpret_cast<Vec3*>(residual.mutable_data()), dense.n}};
  {
    const py::gil_scoped_release release;
    register_dense(face_at, {reinterpret_cast<const Vec2*>(barycentric.data()), w, h}, vertex_at,
                   dense, mesh, threads, out);
  }
  return py::make_tuple(face_of, uv, residual);
}

py::array_t<float> recover_dense_array(const Array<std::int32_t>& triangle, const Array<float>& uv,
                                       const Array<float>& residual,
                                       const Array<float>& sparse_vertices,
                                       const Array<std::int32_t>& faces, int threads) {
  const auto sparse = vec3_view(sparse_vertices, "sparse_vertices");
  const MeshView mesh{sparse, tri_view(faces, "faces", sparse.n)};
  const auto face_of = view(triangle, "triangle");
  require_shape(uv, "uv", {face_of.n, 2});
  require_range(face_of.data, face_of.n, "triangle", -1, mesh.faces.n);
  const ConstRegistrationView registration{face_of,
                                           {reinterpret_cast<const Vec2*>(uv.data()), face_of.n},
                                           vec3_view(residual, "residual", face_of.n)};
  py::array_t<float> dense({face_of.n, 3});
  const View<Vec3> out{reinterpret_cast<Vec3*>(dense.mutable_data()), face_of.n};
  {
    const py::gil_scoped_release release;
    recover_dense(registration, mesh, threads, out);
  }
  return dense;
}

}  // namespace

void bind_registration(py::module_& m) {
  using namespace py::literals;
  m.def("register_dense", &register_dense_arrays, py::arg("triangle").noconvert(),
        py::arg("barycentric").noconvert(), py::arg("vertex_of_pixel").noconvert(),
        py::arg("dense_vertices").noconvert(), py::arg("sparse_vertices").noconvert(),
        py::arg("faces").noconvert(), "threads"_a = 1);
  m.def("recover_dense", &recover_dense_array, py::arg("triangle").noconvert(),
        py::arg("uv").noconvert(), py::arg("residual").noconvert(),
        py::arg("sparse_vertices").noconvert(), py::arg("faces").noconvert(), "threads"_a = 1);
}

}  // namespace e3d::bind
