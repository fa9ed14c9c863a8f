// module.cpp — the extension module `_cuda` and its twin on the host: what each file binds.
#include <nanobind/nanobind.h>

namespace e3d::cuda::bind {

namespace nb = nanobind;

void bind_device(nb::module_&);
void bind_mesh(nb::module_&);
void bind_completion(nb::module_&);
void bind_crop(nb::module_&);
void bind_dense(nb::module_&);
void bind_head_model(nb::module_&);
void bind_blending(nb::module_&);
void bind_occlusion(nb::module_&);
void bind_rasterize(nb::module_&);
void bind_registration(nb::module_&);
void bind_render(nb::module_&);
void bind_references(nb::module_&);
void bind_soft_symmetry(nb::module_&);
void bind_sparse(nb::module_&);
void bind_texture(nb::module_&);
void bind_zipper(nb::module_&);
void bind_network_maps(nb::module_&);

}  // namespace e3d::cuda::bind

#if defined(E3D_CUDA)
NB_MODULE(_cuda, m) {
#else
NB_MODULE(_cuda_host, m) {
#endif
  using namespace e3d::cuda::bind;
  m.doc() = "The operations of extreme3d_fast on device arrays";
  bind_device(m);
  bind_mesh(m);
  bind_completion(m);
  bind_crop(m);
  bind_dense(m);
  bind_head_model(m);
  bind_blending(m);
  bind_occlusion(m);
  bind_rasterize(m);
  bind_registration(m);
  bind_render(m);
  bind_references(m);
  bind_soft_symmetry(m);
  bind_sparse(m);
  bind_texture(m);
  bind_zipper(m);
  bind_network_maps(m);
}
