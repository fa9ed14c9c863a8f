// sparse.cpp — Python view of extreme3d/sparse.h.
#include "extreme3d/sparse.h"

#include "arrays.h"

namespace e3d::bind {
namespace {

py::tuple sparse_from_dense_arrays(const Array<float>& vertices_in_camera,
                                   const Array<std::uint8_t>& visible, const Array<float>& bump,
                                   const Array<std::uint8_t>& valid, float fx, float fy, float cx,
                                   float cy, int width, int height, int threads) {
  const auto vertices = vec3_view(vertices_in_camera, "vertices_in_camera");
  const auto seen = view(visible, "visible", vertices.n);
  const auto delta = image_view(bump, "bump", height, width);
  const auto known = image_view(valid, "valid", height, width);
  py::array_t<float> out({vertices.n, 3});
  py::array_t<std::uint8_t> moved(vertices.n);
  const View<Vec3> to{reinterpret_cast<Vec3*>(out.mutable_data()), vertices.n};
  const View<std::uint8_t> flags{moved.mutable_data(), vertices.n};
  {
    const py::gil_scoped_release release;
    sparse_from_dense(vertices, seen, delta, known, {fx, fy, cx, cy, width, height}, threads, to,
                      flags);
  }
  return py::make_tuple(out, moved);
}

}  // namespace

void bind_sparse(py::module_& m) {
  using namespace py::literals;
  m.def("sparse_from_dense", &sparse_from_dense_arrays, py::arg("vertices_in_camera").noconvert(),
        py::arg("visible").noconvert(), py::arg("bump").noconvert(), py::arg("valid").noconvert(),
        "fx"_a, "fy"_a, "cx"_a, "cy"_a, "width"_a, "height"_a, "threads"_a = 1);
}

}  // namespace e3d::bind
