// sparse.cu — kernels over the vertices of the foundation.
#include "extreme3d/cuda/sparse.h"
#include "extreme3d/cuda/views.h"

namespace e3d::cuda {
namespace {

E3D_KERNEL sparse_from_dense_kernel(View<const Vec3> vertices, View<const std::uint8_t> visible,
                                    ImageView<const float> bump, ImageView<const float> weight,
                                    View<const float> pinhole, View<Vec3> out,
                                    View<std::uint8_t> moved) {
  const int v = thread_index();
  if (v >= out.n) return;
  out[v] = vertices[v];
  moved[v] =
      visible[v] && follow_bump(bump, weight, camera(pinhole, bump.width, bump.height), out[v]);
}

E3D_KERNEL move_kernel(FoundationView f, ImageView<const float> bump, ImageView<const float> weight,
                       View<const float> pinhole, View<const float> head_from_camera,
                       View<Vec3> moved_in_head, View<std::uint8_t> moved) {
  const int v = thread_index();
  if (v >= moved.n) return;
  Vec3 at = f.in_camera[v];
  const bool moves = f.visible[v] && f.region[v] &&
                     follow_bump(bump, weight, camera(pinhole, bump.width, bump.height), at);
  moved[v] = moves;
  if (moves) moved_in_head[v] = transform(rigid(head_from_camera), at);
}

E3D_KERNEL select_kernel(FoundationView f, View<const Vec3> moved_in_head,
                         View<const std::uint8_t> moved, SparseView out) {
  const int v = thread_index();
  if (v >= moved.n) return;
  const bool observed = stays_in_mask(moved, f.faces, f.vertex_faces, v);
  out.observed[v] = observed;
  out.in_head[v] = observed ? moved_in_head[v] : f.in_head[v];
}

}  // namespace

void sparse_from_dense(View<const Vec3> vertices, View<const std::uint8_t> visible,
                       ImageView<const float> bump, ImageView<const float> weight,
                       View<const float> pinhole, View<Vec3> out, View<std::uint8_t> moved,
                       Stream s) {
  launch(sparse_from_dense_kernel, out.n, s, vertices, visible, bump, weight, pinhole, out, moved);
}

void observe(FoundationView f, ImageView<const float> bump, ImageView<const float> weight,
             View<const float> pinhole, View<const float> head_from_camera,
             View<Vec3> moved_in_head, View<std::uint8_t> moved, SparseView out, Stream s) {
  launch(move_kernel, moved.n, s, f, bump, weight, pinhole, head_from_camera, moved_in_head, moved);
  launch(select_kernel, moved.n, s, f, View<const Vec3>{moved_in_head.data, moved_in_head.n},
         View<const std::uint8_t>{moved.data, moved.n}, out);
}

}  // namespace e3d::cuda
