// completion.cu — kernels over dense vertices.
#include "extreme3d/cuda/completion.h"

namespace e3d::cuda {
namespace {

E3D_KERNEL complete_dense_kernel(ConstRegistrationView from, CompletedView completed,
                                 View<const std::int32_t> count, CompletionView out) {
  const int v = thread_index();
  if (v >= out.vertices.n || v >= count[0]) return;
  out.defined[v] = e3d::reflect_dense(completed, from.triangle[v], from.uv[v], from.residual[v],
                                      out.vertices[v]);
}

E3D_KERNEL reflect_dense_kernel(PixelsView pixels, View<const Vec3> dense, CompletedView completed,
                                View<std::int32_t> triangle, View<Vec2> uv, CompletionView out) {
  const int v = thread_index();
  if (v >= dense.n || v >= pixels.count[0]) return;
  const int p = pixels.pixel_of_vertex[v], face = pixels.triangle[p];
  Vec2 weights{0.f, 0.f};
  Vec3 residual{0.f, 0.f, 0.f};
  if (face >= 0) {
    weights = pixels.barycentric[p];
    residual = dense[v] - interpolate({completed.vertices, completed.faces}, face, weights);
  }
  triangle[v] = face;
  uv[v] = weights;
  out.defined[v] = e3d::reflect_dense(completed, face, weights, residual, out.vertices[v]);
}

}  // namespace

void complete_dense(ConstRegistrationView registration, CompletedView completed,
                    View<const std::int32_t> count, CompletionView out, Stream s) {
  launch(complete_dense_kernel, out.vertices.n, s, registration, completed, count, out);
}

void reflect_dense(PixelsView pixels, View<const Vec3> dense, CompletedView completed,
                   View<std::int32_t> triangle, View<Vec2> uv, CompletionView out, Stream s) {
  launch(reflect_dense_kernel, dense.n, s, pixels, dense, completed, triangle, uv, out);
}

}  // namespace e3d::cuda
