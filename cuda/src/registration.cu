// registration.cu — kernels over dense vertices.
#include "extreme3d/cuda/registration.h"

namespace e3d::cuda {
namespace {

E3D_KERNEL register_dense_kernel(PixelsView pixels, View<const Vec3> dense, MeshView sparse_mesh,
                                 RegistrationView out) {
  const int v = thread_index();
  if (v >= dense.n || v >= pixels.count[0]) return;
  const int p = pixels.pixel_of_vertex[v], face = pixels.triangle[p];
  const bool shown = face >= 0;
  const Vec2 uv = shown ? pixels.barycentric[p] : Vec2{0.f, 0.f};
  out.triangle[v] = face;
  out.uv[v] = uv;
  out.residual[v] = shown ? dense[v] - interpolate(sparse_mesh, face, uv) : Vec3{0.f, 0.f, 0.f};
}

}  // namespace

void register_dense(PixelsView pixels, View<const Vec3> dense, MeshView sparse_mesh,
                    RegistrationView out, Stream s) {
  launch(register_dense_kernel, dense.n, s, pixels, dense, sparse_mesh, out);
}

}  // namespace e3d::cuda
