// laplacian.h — cotangent Laplacian of a triangle mesh, gathered row by row.
//
// Meyer, Desbrun, Schröder, Barr. Discrete Differential-Geometry Operators for Triangulated
// 2-Manifolds. 2003. Rows are integrated (not divided by area) and positive semi-definite:
// (L x)_i = sum_j w_ij (x_i - x_j), w_ij = (cot a_ij + cot b_ij) / 2.
#pragma once

#include <vector>

#include "extreme3d/types.h"

namespace e3d {

// Neighbours of each vertex in compressed rows, and for each directed edge i -> j the vertices
// opposite to it in its (at most two) triangles, -1 where there is none. Neighbours are sorted.
struct EdgeRows {
  std::vector<int> offsets;    // (V + 1,)
  std::vector<int> neighbors;  // (E,)
  std::vector<int> opposite0;  // (E,)
  std::vector<int> opposite1;  // (E,)

  int n_vertices() const { return static_cast<int>(offsets.size()) - 1; }
};

// Throws std::invalid_argument if an edge has more than two triangles or a triangle names a vertex
// twice.
EdgeRows build_edge_rows(View<const Tri> faces, int n_vertices);

// Cotangent of the angle at `apex` in the triangle (apex, a, b). Bounded: a sliver of a noisy mesh
// must not outweigh its neighbourhood (|cot| 20 is an angle of 2.9 degrees).
E3D_HD inline float cotangent(Vec3 apex, Vec3 a, Vec3 b) {
  constexpr float kMaxCotangent = 20.f;
  const Vec3 u = a - apex, v = b - apex;
  const float area2 = norm(cross(u, v)), d = dot(u, v);
  if (!(std::fabs(d) < kMaxCotangent * area2)) return d < 0.f ? -kMaxCotangent : kMaxCotangent;
  return d / area2;
}

// Weight of the edge (i, j) from its opposite vertices. Kept positive, so that the matrix is an
// M-matrix: definite, and its solutions obey the maximum principle even on badly shaped meshes.
E3D_HD inline float cotangent_weight(Vec3 xi, Vec3 xj, const Vec3* opposite0,
                                     const Vec3* opposite1) {
  constexpr float kMinWeight = 1e-3f;
  float w = 0.f;
  if (opposite0) w += 0.5f * cotangent(*opposite0, xi, xj);
  if (opposite1) w += 0.5f * cotangent(*opposite1, xi, xj);
  return w > kMinWeight ? w : kMinWeight;
}

// Weight of the edge (i, j), with the same floating-point operations in both directions: symmetric
// to the bit. opposite0 and opposite1 as in EdgeRows.
E3D_HD inline float edge_weight(View<const Vec3> x, int i, int j, int opposite0, int opposite1) {
  const int a = i < j ? i : j, b = i < j ? j : i;
  return cotangent_weight(x[a], x[b], &x[opposite0], opposite1 >= 0 ? &x[opposite1] : nullptr);
}

// Weights of all directed edges, in the order of EdgeRows. Soft symmetry computes those that it
// needs where it needs them.
std::vector<float> cotangent_weights(const EdgeRows& edges, View<const Vec3> vertices, int threads);

}  // namespace e3d
