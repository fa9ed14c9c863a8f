// mesh.cu — kernels over vertices and faces.
#include "extreme3d/cuda/mesh.h"
#include "extreme3d/cuda/views.h"

namespace e3d::cuda {
namespace {

E3D_KERNEL transform_points_kernel(View<const float> b_from_a, View<const Vec3> in,
                                   View<Vec3> out) {
  const int i = thread_index();
  if (i < in.n) out[i] = transform(rigid(b_from_a), in[i]);
}

E3D_KERNEL rotate_vectors_kernel(View<const float> b_from_a, View<const Vec3> in, View<Vec3> out) {
  const int i = thread_index();
  if (i < in.n) out[i] = rotate(rigid(b_from_a), in[i]);
}

E3D_KERNEL area_kernel(MeshView mesh, View<Vec3> area) {
  const int f = thread_index();
  if (f < mesh.faces.n) area[f] = face_area_vector(mesh, f);
}

E3D_KERNEL vertex_normals_kernel(View<const Vec3> area, CsrView faces_of, View<Vec3> out) {
  const int v = thread_index();
  if (v < out.n) out[v] = vertex_normal(area, faces_of, v);
}

E3D_KERNEL erode_mask_kernel(View<const std::uint8_t> mask, View<const Tri> faces, CsrView faces_of,
                             View<std::uint8_t> out) {
  const int v = thread_index();
  if (v < out.n) out[v] = stays_in_mask(mask, faces, faces_of, v);
}

}  // namespace

void transform_points(View<const float> b_from_a, View<const Vec3> in, View<Vec3> out, Stream s) {
  launch(transform_points_kernel, in.n, s, b_from_a, in, out);
}

void rotate_vectors(View<const float> b_from_a, View<const Vec3> in, View<Vec3> out, Stream s) {
  launch(rotate_vectors_kernel, in.n, s, b_from_a, in, out);
}

void vertex_normals(MeshView mesh, CsrView faces_of, View<Vec3> area, View<Vec3> out, Stream s) {
  launch(area_kernel, mesh.faces.n, s, mesh, area);
  launch(vertex_normals_kernel, out.n, s, View<const Vec3>{area.data, area.n}, faces_of, out);
}

void erode_mask(View<const std::uint8_t> mask, View<const Tri> faces, CsrView faces_of,
                View<std::uint8_t> out, Stream s) {
  launch(erode_mask_kernel, out.n, s, mask, faces, faces_of, out);
}

}  // namespace e3d::cuda
