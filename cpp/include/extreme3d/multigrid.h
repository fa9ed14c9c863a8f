// multigrid.h — conjugate gradients, and multigrid for weighted Laplacians on a pixel grid.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

#include "extreme3d/types.h"

namespace e3d {

// === Constants of the V-cycle ===

// Dampings of the two sweeps before and after each coarse correction: the eigenvalues of D⁻¹ A in
// [0.5, 2], those of waves that the coarse grid does not carry, are reduced to 0.22 by the
// Chebyshev polynomial of degree 2.
inline constexpr float kFirstDamping = 0.561f, kSecondDamping = 1.390f;
inline constexpr int kCoarsestSweeps = 16;  // on at most kCoarsestSide² cells this is a solve
inline constexpr int kCoarsestSide = 4;
inline constexpr float kJacobiDamping = 0.8f;        // smooths the 5-point stencil best
inline constexpr float kNear = 0.75f, kFar = 0.25f;  // bilinear weights in one direction

// === Conjugate gradients ===

// Cells [begin, end) of a vector; a list of them holds all that are not 0.
struct CellSpan {
  std::size_t begin, end;
};

double dot_product(const std::vector<CellSpan>& spans, const std::vector<float>& a,
                   const std::vector<float>& b);

// x += step p and b -= step ap; returns b · b.
double take_step(const std::vector<CellSpan>& spans, float step, const std::vector<float>& p,
                 const std::vector<float>& ap, std::vector<float>& x, std::vector<float>& b);

struct SolveStats {
  int iterations;  // of conjugate gradients
  float residual;  // relative to the right-hand side; NaN where that is not finite
};

// The energy norm of the error is small enough after the next step; rz = r · z before it.
E3D_HD inline bool is_settled(double rz, double rz_first, int iterations, double energy) {
  const double rate = std::pow(rz / rz_first, 0.5 / (iterations - 1));
  return rate < 1.0 && std::sqrt(rz) <= energy * (1.0 - rate) * (1.0 - rate);
}

// Solves A x = b from x = 0 by conjugate gradients until |b - A x| <= tolerance |b|; `b` becomes
// the residual. apply(p, out) gives A p, precondition(r, z) a symmetric positive approximation of
// A⁻¹ r, both with the zeros of b outside of `spans`. Where `energy` is given the error's energy
// norm has to be small too: before the last step √(r · z) <= energy (1 - rate)², since r · z tells
// the less the slower the convergence.
template <class Apply, class Precondition>
SolveStats conjugate_gradients(const std::vector<CellSpan>& spans, const Apply& apply,
                               const Precondition& precondition, std::vector<float>& b,
                               float tolerance, int max_iterations, std::vector<float>& x,
                               double energy = 0.0) {
  const std::size_t n = b.size();
  x.assign(n, 0.f);
  std::vector<float> z(n, 0.f), p(n, 0.f), ap(n, 0.f);
  const double start = dot_product(spans, b, b), target = start * tolerance * tolerance;
  double rz = 0.0, rz_first = 0.0, rr = start;
  int iterations = 0;
  bool settled = energy <= 0.0;
  while ((rr > target || !settled) && rr > 0.0 && iterations < max_iterations) {
    ++iterations;
    precondition(b, z);
    const double rz_new = dot_product(spans, b, z);
    const float beta = iterations > 1 ? static_cast<float>(rz_new / rz) : 0.f;
    rz = rz_new;
    for (const CellSpan& span : spans)
      for (std::size_t i = span.begin; i < span.end; ++i) p[i] = z[i] + beta * p[i];
    apply(p, ap);
    const double curvature = dot_product(spans, p, ap);
    if (!(curvature > 0.0)) break;
    rr = take_step(spans, static_cast<float>(rz / curvature), p, ap, x, b);
    if (iterations == 1) {
      rz_first = rz;
    } else if (energy > 0.0) {
      settled = is_settled(rz, rz_first, iterations, energy);
    }
  }
  return {iterations, start == 0.0 ? 0.f : static_cast<float>(std::sqrt(rr / start))};
}

// A cell beyond a free border. Interpolation finds there the mean of the unknown cells next to it.
struct Ghost {
  int cx, cy;
  int n, sources[4];
};

// One grid of a hierarchy: cells row-major with a border of one empty cell, even width and height
// so that each 2 × 2 block is a cell of the next grid, rows filled up with empty cells to whole
// vectors. Row i of the matrix is
//   (mass + fixed) x_i + Σ edge (x_i - x_j)
// where `fixed` holds the weights of edges to neighbours that are not unknown. Cells without any
// are not unknown themselves and stay 0 through every sweep.
struct GridLevel {
  int width, height, stride;
  int blocks_x, blocks_y;           // of the finer grid: width and height before rounding
  std::vector<float> right, below;  // weight of the edge to the next cell in x, in y
  std::vector<float> mass, fixed;
  std::vector<float> anchor, inverse_diagonal;  // mass + fixed; set by Multigrid::prepare
  std::vector<float> x, b, scratch;
  std::vector<std::uint8_t> held;         // cells that are known, border included; others are free
  std::vector<Ghost> ghosts;              // of coarse grids
  std::vector<int> row_begin, row_end;    // cells of each row between which all unknown ones lie
  std::vector<int> span_begin, span_end;  // the same in whole vectors

  GridLevel(int w, int h);
  int at(int cx, int cy) const { return (cy + 1) * stride + cx + 1; }
};

// How corrections pass between grids: bilinear suits solutions that are smooth over the region,
// constant over 2 × 2 blocks those that jump where links are cut.
enum class Transfer { kBilinear, kConstant };

// A weighted graph Laplacian plus mass on any set of pixels: fill `finest()`, then `prepare()`.
class Multigrid {
 public:
  Multigrid(int width, int height, Transfer transfer) : transfer_(transfer) {
    levels_.emplace_back(width, height);
  }
  GridLevel& finest() { return levels_.front(); }
  void prepare();

  // Solves for the right-hand side b (as large as the finest level, 0 where nothing is unknown;
  // lost) to `tolerance` and `energy`, see conjugate_gradients.
  SolveStats solve(std::vector<float>& b, float tolerance, int max_iterations,
                   std::vector<float>& x, double energy = 0.0);

 private:
  void v_cycle(std::size_t level);

  Transfer transfer_;
  std::deque<GridLevel> levels_;  // references to levels stay valid as it grows
};

}  // namespace e3d
