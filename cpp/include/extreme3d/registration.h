// registration.h — dense vertices in terms of the sparse mesh's triangles (paper §4.3, Eq. 6–8).
#pragma once

#include <cstdint>

#include "extreme3d/types.h"

namespace e3d {

// u P1 + v P2 + (1 − u − v) P3.
E3D_HD inline Vec3 interpolate(Vec3 p1, Vec3 p2, Vec3 p3, Vec2 uv) {
  return p3 + uv.x * (p1 - p3) + uv.y * (p2 - p3);
}

E3D_HD inline Vec3 interpolate(const MeshView& m, int face, Vec2 uv) {
  const Tri t = m.faces[face];
  return interpolate(m.vertices[t.v0], m.vertices[t.v1], m.vertices[t.v2], uv);
}

// A dense vertex as (triangle, u, v, δP): rows of three arrays, (N,) each.
struct RegistrationView {
  View<std::int32_t> triangle;  // -1 where the pixel shows no triangle of the sparse mesh
  View<Vec2> uv;                // screen-space weights, 0 where none
  View<Vec3> residual;          // δP, mm, in the frame of the two meshes; 0 where none
};

// The triangle and weights of a dense vertex are those of its own pixel (Eq. 6, as rasterised);
// δP = P^D − (u P1 + v P2 + (1 − u − v) P3) is kept in full (Eq. 7). `dense` and `sparse_mesh` are
// in one frame. No two pixels may name one vertex.
void register_dense(ImageView<const std::int32_t> triangle, ImageView<const Vec2> barycentric,
                    ImageView<const std::int32_t> vertex_of_pixel, View<const Vec3> dense,
                    MeshView sparse_mesh, int threads, RegistrationView out);

struct ConstRegistrationView {
  View<const std::int32_t> triangle;
  View<const Vec2> uv;
  View<const Vec3> residual;
};

// Eq. 8: the dense vertices back from the sparse mesh; NaN where none was registered.
void recover_dense(ConstRegistrationView registration, MeshView sparse_mesh, int threads,
                   View<Vec3> out);

}  // namespace e3d
