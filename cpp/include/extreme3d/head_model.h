// head_model.h — evaluates the linear head model: F = subdivide(mean + identity·α + expression·η).
#pragma once

#include <vector>

#include "extreme3d/types.h"

namespace e3d {

// Sparse rows: row r holds weights[k] at column indices[k] for k in [indptr[r],
// indptr[r + 1]). Here every row takes weighted averages of vertices of the level before.
struct RowOperator {
  View<const std::int32_t> indptr;   // (rows + 1,)
  View<const std::int32_t> indices;  // (nnz,)
  View<const float> weights;         // (nnz,)
  E3D_HD int rows() const { return indptr.n - 1; }
};

// Products of two floats are exact in double, and so is nearly every sum of so few of them: the
// order of a row's entries does not matter, and a symmetric head stays exactly symmetric.
E3D_HD inline Vec3 apply_row(const RowOperator& op, View<const Vec3> in, int r) {
  double x = 0, y = 0, z = 0;
  for (int k = op.indptr[r]; k < op.indptr[r + 1]; ++k) {
    const double w = op.weights[k];
    const Vec3& p = in[op.indices[k]];
    x += w * p.x;
    y += w * p.y;
    z += w * p.z;
  }
  return {static_cast<float>(x), static_cast<float>(y), static_cast<float>(z)};
}

// Eq. 1–2 of the paper on the coarse mesh, all in mm; a component is `mean.n` floats long.
struct LinearBasis {
  View<const float> mean;        // (3 Vc,)
  View<const float> identity;    // (K, 3 Vc)
  View<const float> expression;  // (E, 3 Vc)
};

// out (3 Vc,) = mean + Σ α_k identity_k + Σ η_e expression_e. Components with coefficient 0 are not
// read. Each output is summed in the order of the components whatever the number of threads.
void evaluate_basis(const LinearBasis& basis, View<const float> alpha, View<const float> eta,
                    View<float> out, int threads);

// out[r] = Σ_k weights[k] in[indices[k]]: one subdivision level.
void apply_rows(const RowOperator& op, View<const Vec3> in, View<Vec3> out, int threads);

// The whole model: coarse basis, then every level in turn, the last into out. Scratch is two small
// arrays for the coarser levels.
void evaluate_head(const LinearBasis& basis, const std::vector<RowOperator>& levels,
                   View<const float> alpha, View<const float> eta, View<Vec3> out, int threads);

}  // namespace e3d
