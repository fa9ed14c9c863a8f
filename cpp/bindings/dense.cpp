// dense.cpp — Python view of extreme3d/dense.h.
#include "extreme3d/dense.h"

#include "arrays.h"

namespace e3d::bind {
namespace {

py::array_t<float> compose_depth_array(const Array<float>& depth, const Array<float>& bump,
                                       int threads) {
  const auto z = image_view(depth, "depth");
  const auto delta = image_view(bump, "bump", z.height, z.width);
  py::array_t<float> out({z.height, z.width});
  const int n = z.width * z.height;
  const View<float> to{out.mutable_data(), n};
  {
    const py::gil_scoped_release release;
    compose_depth({z.data, n}, {delta.data, n}, threads, to);
  }
  return out;
}

py::tuple dense_mesh_arrays(const Array<float>& depth, float fx, float fy, float cx, float cy,
                            int width, int height, float max_slope, int threads) {
  const auto z = image_view(depth, "depth", height, width);
  py::array_t<std::int32_t> vertex_of_pixel({height, width});
  const ImageView<std::int32_t> out{vertex_of_pixel.mutable_data(), width, height};
  DenseMesh mesh;
  {
    const py::gil_scoped_release release;
    mesh = dense_mesh(z, {fx, fy, cx, cy, width, height}, max_slope, threads, out);
  }
  const auto n_vertices = static_cast<py::ssize_t>(mesh.vertices.size());
  const auto n_faces = static_cast<py::ssize_t>(mesh.faces.size());
  return py::make_tuple(take<float>(std::move(mesh.vertices), {n_vertices, 3}),
                        take<std::int32_t>(std::move(mesh.faces), {n_faces, 3}), vertex_of_pixel);
}

}  // namespace

void bind_dense(py::module_& m) {
  using namespace py::literals;
  m.def("compose_depth", &compose_depth_array, py::arg("depth").noconvert(),
        py::arg("bump").noconvert(), "threads"_a = 1);
  m.def("dense_mesh", &dense_mesh_arrays, py::arg("depth").noconvert(), "fx"_a, "fy"_a, "cx"_a,
        "cy"_a, "width"_a, "height"_a, "max_slope"_a, "threads"_a = 1);
}

}  // namespace e3d::bind
