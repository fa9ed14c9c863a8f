// module.cpp — the extension module `_core`: a list of what each file binds.
#include <pybind11/pybind11.h>

namespace e3d::bind {

namespace py = pybind11;

void bind_blending(py::module_&);
void bind_completion(py::module_&);
void bind_dense(py::module_&);
void bind_face_chart(py::module_&);
void bind_head_model(py::module_&);
void bind_landmark_fit(py::module_&);
void bind_laplacian(py::module_&);
void bind_mesh(py::module_&);
void bind_network_maps(py::module_&);
void bind_occlusion(py::module_&);
void bind_paint(py::module_&);
void bind_rasterize(py::module_&);
void bind_references(py::module_&);
void bind_registration(py::module_&);
void bind_shading(py::module_&);
void bind_smooth_depth(py::module_&);
void bind_render(py::module_&);
void bind_soft_symmetry(py::module_&);
void bind_sparse(py::module_&);
void bind_texture(py::module_&);
void bind_zipper(py::module_&);

}  // namespace e3d::bind

PYBIND11_MODULE(_core, m) {
  using namespace e3d::bind;
  m.doc() = "C++ core of extreme3d_fast";
  bind_head_model(m);
  bind_landmark_fit(m);
  bind_laplacian(m);
  bind_mesh(m);
  bind_rasterize(m);
  bind_smooth_depth(m);
  bind_network_maps(m);
  bind_dense(m);
  bind_sparse(m);
  bind_registration(m);
  bind_soft_symmetry(m);
  bind_completion(m);
  bind_zipper(m);
  bind_texture(m);
  bind_paint(m);
  bind_render(m);
  bind_face_chart(m);
  bind_references(m);
  bind_blending(m);
  bind_occlusion(m);
  bind_shading(m);
}
