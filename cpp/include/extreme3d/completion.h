// completion.h — dense vertices reflected into the hidden side of the face (Eq. 10).
#pragma once

#include <cstdint>
#include <vector>

#include "extreme3d/types.h"

namespace e3d {

struct DenseCompletion {
  std::vector<Vec3> vertices;         // (N,) head frame; mirror image P^Df of each dense vertex
  std::vector<std::uint8_t> defined;  // (N,) 1 where Eq. 10 defines it
};

// P^Df = u R_m1 + v R_m2 + (1 - u - v) R_m3 + reflect(dP): barycentric coordinates and residual of
// the dense vertex, carried by the mirror images m1, m2, m3 of the corners of its triangle.
E3D_HD inline Vec3 reflect_registered(Vec2 uv, Vec3 r1, Vec3 r2, Vec3 r3, Vec3 residual) {
  return uv.x * r1 + uv.y * r2 + (1.f - uv.x - uv.y) * r3 + reflect_x(residual);
}

// Eq. 10 on the completed R: its vertices and faces, and for each vertex its mirror image and
// whether soft symmetry recovered it.
struct CompletedView {
  View<const Vec3> vertices;
  View<const Tri> faces;
  View<const std::int32_t> mirror;
  View<const std::uint8_t> recovered;
};

// Returns false, and zero, where none of the mirrored corners was recovered.
E3D_HD inline bool reflect_dense(const CompletedView& r, int face, Vec2 uv, Vec3 residual,
                                 Vec3& out) {
  out = {0.f, 0.f, 0.f};
  if (face < 0) return false;
  const Tri f = r.faces[face];
  const int m1 = r.mirror[f.v0], m2 = r.mirror[f.v1], m3 = r.mirror[f.v2];
  if (!(r.recovered[m1] || r.recovered[m2] || r.recovered[m3])) return false;
  out = reflect_registered(uv, r.vertices[m1], r.vertices[m2], r.vertices[m3], residual);
  return true;
}

// triangle (N,) of R that each dense vertex is registered to, -1 for none; uv (N,); residual (N,)
// head frame; sparse (V,) completed R; recovered (V,) 1 where soft symmetry solved the vertex.
// Defined where any of the three mirrored corners was recovered, as in the paper.
DenseCompletion complete_dense(View<const int> triangle, View<const Vec2> uv,
                               View<const Vec3> residual, View<const Vec3> sparse,
                               View<const Tri> faces, View<const int> mirror,
                               View<const std::uint8_t> recovered, int threads);

}  // namespace e3d
