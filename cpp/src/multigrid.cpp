// multigrid.cpp — V-cycles on 2 × 2 aggregates with damped Jacobi.
#include "extreme3d/multigrid.h"

namespace e3d {
namespace {

constexpr int kSmoothingSweeps = 2;  // before and after each coarse correction
constexpr int kCoarsestSweeps = 16;  // on at most kCoarsestSide² cells this is a solve
constexpr int kCoarsestSide = 4;
constexpr float kJacobiDamping = 0.8f;  // smooths the 5-point stencil best

// out = A x. Cells that are not unknown give 0. Differences keep small masses beside large weights.
void apply(const GridLevel& g, const float* __restrict x, float* __restrict out) {
  const float* __restrict right = g.right.data();
  const float* __restrict below = g.below.data();
  const float* __restrict anchor = g.anchor.data();
  const int s = g.stride;
  for (int cy = 0; cy < g.height; ++cy) {
    const int begin = g.at(0, cy), end = begin + g.width;
    for (int i = begin; i < end; ++i)
      out[i] = anchor[i] * x[i] + right[i] * (x[i] - x[i + 1]) + right[i - 1] * (x[i] - x[i - 1]) +
               below[i] * (x[i] - x[i + s]) + below[i - s] * (x[i] - x[i - s]);
  }
}

// x += damping D⁻¹ (b - A x)
void sweep(GridLevel& g) {
  apply(g, g.x.data(), g.scratch.data());
  const std::size_t n = g.x.size();
  float* __restrict x = g.x.data();
  const float* __restrict b = g.b.data();
  const float* __restrict ax = g.scratch.data();
  const float* __restrict inverse = g.inverse_diagonal.data();
  for (std::size_t i = 0; i < n; ++i) x[i] += kJacobiDamping * inverse[i] * (b[i] - ax[i]);
}

// Edges of 2 × 2 blocks summed and halved: the two edges between neighbouring blocks stand for one
// of double length, which is the 5-point Laplacian again inside a region. Mass adds up.
GridLevel coarsen(const GridLevel& fine) {
  GridLevel coarse(fine.width / 2, fine.height / 2);
  for (int cy = 0; cy < fine.height / 2; ++cy)
    for (int cx = 0; cx < fine.width / 2; ++cx) {
      const int c = coarse.at(cx, cy), f = fine.at(2 * cx, 2 * cy), s = fine.stride;
      const auto block = [f, s](const std::vector<float>& a) {
        return a[f] + a[f + 1] + a[f + s] + a[f + s + 1];
      };
      coarse.mass[c] = block(fine.mass);
      coarse.fixed[c] = 0.5f * block(fine.fixed);
      coarse.right[c] = 0.5f * (fine.right[f + 1] + fine.right[f + s + 1]);
      coarse.below[c] = 0.5f * (fine.below[f + s] + fine.below[f + s + 1]);
    }
  return coarse;
}

// b of the coarse grid = transpose of the interpolation, applied to the fine residual.
void restrict_residual(Transfer transfer, GridLevel& fine, GridLevel& coarse) {
  apply(fine, fine.x.data(), fine.scratch.data());
  float* r = fine.scratch.data();
  for (int cy = 0; cy < fine.height; ++cy)
    for (int i = fine.at(0, cy), end = i + fine.width; i < end; ++i) r[i] = fine.b[i] - r[i];
  constexpr float kWeight[4] = {0.25f, 0.75f, 0.75f, 0.25f};
  const int s = fine.stride;
  for (int cy = 0; cy < fine.height / 2; ++cy)
    for (int cx = 0; cx < fine.width / 2; ++cx) {
      const int c = coarse.at(cx, cy);
      if (coarse.inverse_diagonal[c] == 0.f) continue;
      if (transfer == Transfer::kConstant) {
        const float* p = r + fine.at(2 * cx, 2 * cy);
        coarse.b[c] = p[0] + p[1] + p[s] + p[s + 1];
        continue;
      }
      const float* p = r + fine.at(2 * cx - 1, 2 * cy - 1);
      float sum = 0.f;
      for (int k = 0; k < 4; ++k, p += s)
        sum += kWeight[k] * (0.25f * (p[0] + p[3]) + 0.75f * (p[1] + p[2]));
      coarse.b[c] = sum;
    }
}

void add_interpolated(Transfer transfer, const GridLevel& coarse, GridLevel& fine) {
  for (int y = 0; y < fine.height; ++y) {
    const int dy = y % 2 ? coarse.stride : -coarse.stride;
    for (int x = 0; x < fine.width; ++x) {
      const int i = fine.at(x, y);
      if (fine.inverse_diagonal[i] == 0.f) continue;
      const float* p = coarse.x.data() + coarse.at(x / 2, y / 2);
      if (transfer == Transfer::kConstant) {
        fine.x[i] += p[0];
        continue;
      }
      const int dx = x % 2 ? 1 : -1;
      fine.x[i] += 0.0625f * (9.f * p[0] + 3.f * (p[dx] + p[dy]) + p[dx + dy]);
    }
  }
}

// The first sweep, from x = 0.
void sweep_from_zero(GridLevel& g) {
  for (std::size_t i = 0; i < g.x.size(); ++i)
    g.x[i] = kJacobiDamping * g.inverse_diagonal[i] * g.b[i];
}

}  // namespace

double dot_product(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += static_cast<double>(a[i]) * b[i];
  return sum;
}

GridLevel::GridLevel(int w, int h)
    : width((w + 1) / 2 * 2), height((h + 1) / 2 * 2), stride(width + 2) {
  const std::size_t cells = static_cast<std::size_t>(stride) * (height + 2);
  for (auto* a : {&right, &below, &mass, &fixed, &anchor, &inverse_diagonal, &x, &b, &scratch})
    a->assign(cells, 0.f);
}

void Multigrid::prepare() {
  while (levels_.back().width > kCoarsestSide || levels_.back().height > kCoarsestSide)
    levels_.push_back(coarsen(levels_.back()));
  for (GridLevel& g : levels_)
    for (int cy = 0; cy < g.height; ++cy)
      for (int i = g.at(0, cy), end = i + g.width; i < end; ++i) {
        g.anchor[i] = g.mass[i] + g.fixed[i];
        const float diagonal =
            g.anchor[i] + g.right[i] + g.right[i - 1] + g.below[i] + g.below[i - g.stride];
        g.inverse_diagonal[i] = diagonal > 0.f ? 1.f / diagonal : 0.f;
      }
}

// One V-cycle from x = 0: a symmetric positive approximation of A⁻¹ b.
void Multigrid::v_cycle(std::size_t l) {
  GridLevel& g = levels_[l];
  sweep_from_zero(g);
  if (l + 1 == levels_.size()) {
    for (int k = 1; k < kCoarsestSweeps; ++k) sweep(g);
    return;
  }
  for (int k = 1; k < kSmoothingSweeps; ++k) sweep(g);
  restrict_residual(transfer_, g, levels_[l + 1]);
  v_cycle(l + 1);
  add_interpolated(transfer_, levels_[l + 1], g);
  for (int k = 0; k < kSmoothingSweeps; ++k) sweep(g);
}

SolveStats Multigrid::solve(std::vector<float>& b, float tolerance, int max_iterations,
                            std::vector<float>& x, double energy) {
  GridLevel& g = levels_.front();
  return conjugate_gradients(
      [&](const std::vector<float>& p, std::vector<float>& out) { apply(g, p.data(), out.data()); },
      [&](const std::vector<float>& r, std::vector<float>& z) {
        g.b = r;
        v_cycle(0);
        z = g.x;
      },
      b, tolerance, max_iterations, x, energy);
}

}  // namespace e3d
