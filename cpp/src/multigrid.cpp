// multigrid.cpp — V-cycles on 2 × 2 aggregates with damped Jacobi.
#include "extreme3d/multigrid.h"

#include <algorithm>

namespace e3d {
namespace {

constexpr int kSmoothingSweeps = 2;  // before and after each coarse correction
constexpr float kDamping[kSmoothingSweeps] = {kFirstDamping, kSecondDamping};

constexpr int kVector = 8;  // cells that a vector register holds

// Calls row(i, A x at i) for the cells of each row that are not 0; differences keep small masses
// beside large weights.
template <class Each>
void for_rows(const GridLevel& g, const float* __restrict x, const Each& each) {
  const float* __restrict right = g.right.data();
  const float* __restrict below = g.below.data();
  const float* __restrict anchor = g.anchor.data();
  const int s = g.stride;
  for (int cy = 0; cy < g.height; ++cy)
    for (int i = g.span_begin[cy]; i < g.span_end[cy]; ++i)
      each(i, anchor[i] * x[i] + right[i] * (x[i] - x[i + 1]) + right[i - 1] * (x[i] - x[i - 1]) +
                  below[i] * (x[i] - x[i + s]) + below[i - s] * (x[i] - x[i - s]));
}

// out = A x. Cells that are not unknown give 0.
void apply(const GridLevel& g, const float* x, float* __restrict out) {
  for_rows(g, x, [=](int i, float ax) { out[i] = ax; });
}

// out = b - A x, the same.
void subtract(const GridLevel& g, const float* x, float* __restrict out) {
  const float* __restrict b = g.b.data();
  for_rows(g, x, [=](int i, float ax) { out[i] = b[i] - ax; });
}

// x += damping D⁻¹ (b - A x)
void sweep(GridLevel& g, float damping) {
  const float* x = g.x.data();
  float* __restrict out = g.scratch.data();
  const float* __restrict b = g.b.data();
  const float* __restrict inverse = g.inverse_diagonal.data();
  for_rows(g, x, [=](int i, float ax) { out[i] = x[i] + damping * inverse[i] * (b[i] - ax); });
  g.x.swap(g.scratch);
}

// Edges of 2 × 2 blocks summed and halved: the two edges between neighbouring blocks stand for one
// of double length, which is the 5-point Laplacian again inside a region. Mass adds up.
GridLevel coarsen(const GridLevel& fine) {
  GridLevel coarse(fine.width / 2, fine.height / 2);
  coarse.blocks_x = fine.width / 2;
  coarse.blocks_y = fine.height / 2;
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

// What the bilinear interpolation takes from coarse cell (cx, cy), times r; slow.
float gathered(const GridLevel& fine, const float* r, int cx, int cy) {
  constexpr float kWeight[4] = {kFar, kNear, kNear, kFar};
  float sum = 0.f;
  for (int ky = 0; ky < 4; ++ky)
    for (int kx = 0; kx < 4; ++kx) {
      const int x = 2 * cx - 1 + kx, y = 2 * cy - 1 + ky;
      if (x < 0 || y < 0 || x >= fine.width || y >= fine.height) continue;
      sum += kWeight[kx] * kWeight[ky] * r[fine.at(x, y)];
    }
  return sum;
}

// b of the coarse grid = transpose of the interpolation, applied to the fine residual.
void restrict_residual(Transfer transfer, GridLevel& fine, GridLevel& coarse) {
  subtract(fine, fine.x.data(), fine.scratch.data());
  const float* __restrict r = fine.scratch.data();
  const int s = fine.stride, width = coarse.blocks_x, height = coarse.blocks_y;
  if (transfer == Transfer::kConstant) {
    for (int cy = 0; cy < height; ++cy)
      for (int cx = 0; cx < width; ++cx) {
        const float* p = r + fine.at(2 * cx, 2 * cy);
        coarse.b[coarse.at(cx, cy)] = p[0] + p[1] + p[s] + p[s + 1];
      }
    return;
  }
  std::vector<float> columns(s);
  float* __restrict t = columns.data();
  for (int cy = 0; cy < height; ++cy) {
    const float* __restrict p = r + fine.at(-1, 2 * cy - 1);
    const int first = coarse.row_begin[cy] - coarse.at(0, cy);
    const int last = coarse.row_end[cy] - coarse.at(0, cy);
    for (int x = 2 * first; x < 2 * last + 2; ++x)
      t[x] = kFar * (p[x] + p[x + 3 * s]) + kNear * (p[x + s] + p[x + 2 * s]);
    float* __restrict out = coarse.b.data() + coarse.at(0, cy);
    const float* __restrict inverse = coarse.inverse_diagonal.data() + coarse.at(0, cy);
    for (int cx = first; cx < last; ++cx) {
      const float is_unknown = inverse[cx] > 0.f ? 1.f : 0.f;
      out[cx] = is_unknown *
                (kFar * (t[2 * cx] + t[2 * cx + 3]) + kNear * (t[2 * cx + 1] + t[2 * cx + 2]));
    }
  }
  for (const Ghost& g : coarse.ghosts) {
    const float share = gathered(fine, r, g.cx, g.cy) / static_cast<float>(g.n);
    for (int k = 0; k < g.n; ++k) coarse.b[g.sources[k]] += share;
  }
}

void add_interpolated(Transfer transfer, GridLevel& coarse, GridLevel& fine) {
  for (const Ghost& g : coarse.ghosts) {
    float sum = 0.f;
    for (int k = 0; k < g.n; ++k) sum += coarse.x[g.sources[k]];
    coarse.x[coarse.at(g.cx, g.cy)] = sum / static_cast<float>(g.n);
  }
  std::vector<float> rows(coarse.stride), columns(fine.stride);
  float* __restrict t = rows.data();
  float* __restrict u = columns.data();
  const bool constant = transfer == Transfer::kConstant;
  const float near = constant ? 1.f : kNear, far = constant ? 0.f : kFar;
  for (int y = 0; y < fine.height; ++y) {
    const float* __restrict p = coarse.x.data() + coarse.at(-1, y / 2);
    const float* __restrict q = p + (y % 2 ? coarse.stride : -coarse.stride);
    const int first = (fine.row_begin[y] - fine.at(0, y)) / 2;
    const int last = (fine.row_end[y] - fine.at(0, y) + 1) / 2;
    for (int cx = first; cx < last + 2; ++cx) t[cx] = near * p[cx] + far * q[cx];
    for (int cx = first; cx < last; ++cx) {
      u[2 * cx] = near * t[cx + 1] + far * t[cx];
      u[2 * cx + 1] = near * t[cx + 1] + far * t[cx + 2];
    }
    float* __restrict x = fine.x.data() + fine.at(0, y);
    const float* __restrict inverse = fine.inverse_diagonal.data() + fine.at(0, y);
    for (int i = 2 * first; i < 2 * last; ++i) x[i] += inverse[i] > 0.f ? u[i] : 0.f;
  }
  for (const Ghost& g : coarse.ghosts) coarse.x[coarse.at(g.cx, g.cy)] = 0.f;
}

// A coarse cell is held where any of its block's cells is; beyond the finer grid's border the
// nearest decides.
void coarsen_held(const GridLevel& fine, GridLevel& coarse) {
  for (int cy = -1; cy <= coarse.height; ++cy)
    for (int cx = -1; cx <= coarse.width; ++cx) {
      const int x0 = 2 * std::min(cx, coarse.blocks_x), y0 = 2 * std::min(cy, coarse.blocks_y);
      const int x1 = std::min(x0 + 1, fine.width), y1 = std::min(y0 + 1, fine.height);
      std::uint8_t& held = coarse.held[coarse.at(cx, cy)];
      for (int y = std::max(y0, -1); y <= y1; ++y)
        for (int x = std::max(x0, -1); x <= x1; ++x) held |= fine.held[fine.at(x, y)];
    }
}

std::vector<Ghost> find_ghosts(const GridLevel& g) {
  const int s = g.stride, n = static_cast<int>(g.x.size());
  const int near[2][4] = {{-1, 1, -s, s}, {-s - 1, -s + 1, s - 1, s + 1}};
  std::vector<Ghost> ghosts;
  for (int cy = -1; cy <= g.height; ++cy)
    for (int cx = -1; cx <= g.width; ++cx) {
      const int i = g.at(cx, cy);
      if (g.held[i] || g.inverse_diagonal[i] > 0.f) continue;
      Ghost ghost{cx, cy, 0, {}};
      for (const auto& offsets : near) {
        for (const int d : offsets) {
          const int j = i + d;
          if (j >= 0 && j < n && g.inverse_diagonal[j] > 0.f) ghost.sources[ghost.n++] = j;
        }
        if (ghost.n) break;
      }
      if (ghost.n) ghosts.push_back(ghost);
    }
  return ghosts;
}

// The first sweep, from x = 0.
void sweep_from_zero(GridLevel& g, float damping) {
  float* __restrict x = g.x.data();
  const float* __restrict b = g.b.data();
  const float* __restrict inverse = g.inverse_diagonal.data();
  for (int cy = 0; cy < g.height; ++cy)
    for (int i = g.span_begin[cy]; i < g.span_end[cy]; ++i) x[i] = damping * inverse[i] * b[i];
}

// Sums side by side, in an order that is always the same.
class Lanes {
 public:
  // Adds values(i) over the cells of some spans.
  template <class Values>
  void add(const std::vector<CellSpan>& spans, const Values& values) {
    for (const CellSpan& span : spans) {
      std::size_t i = span.begin;
      for (; i + kLanes <= span.end; i += kLanes)
        for (std::size_t k = 0; k < kLanes; ++k) lanes_[k] += values(i + k);
      for (; i < span.end; ++i) lanes_[0] += values(i);
    }
  }
  double sum() const {
    double all = 0.0;
    for (const double lane : lanes_) all += lane;
    return all;
  }

 private:
  static constexpr std::size_t kLanes = 16;
  double lanes_[kLanes] = {};
};

// All that may not be 0 on a level: whole vectors, side by side where rows meet.
std::vector<CellSpan> spans_of(const GridLevel& g) {
  std::vector<CellSpan> spans;
  for (int cy = 0; cy < g.height; ++cy) {
    const auto begin = static_cast<std::size_t>(g.span_begin[cy]);
    const auto end = static_cast<std::size_t>(g.span_end[cy]);
    if (begin == end) continue;
    if (!spans.empty() && spans.back().end == begin)
      spans.back().end = end;
    else
      spans.push_back({begin, end});
  }
  return spans;
}

}  // namespace

double dot_product(const std::vector<CellSpan>& spans, const std::vector<float>& a,
                   const std::vector<float>& b) {
  Lanes lanes;
  lanes.add(spans, [&](std::size_t i) { return static_cast<double>(a[i]) * b[i]; });
  return lanes.sum();
}

double take_step(const std::vector<CellSpan>& spans, float step, const std::vector<float>& p,
                 const std::vector<float>& ap, std::vector<float>& x, std::vector<float>& b) {
  Lanes lanes;
  lanes.add(spans, [&](std::size_t i) {
    x[i] += step * p[i];
    b[i] -= step * ap[i];
    return static_cast<double>(b[i]) * b[i];
  });
  return lanes.sum();
}

GridLevel::GridLevel(int w, int h)
    : width((w + 1) / 2 * 2),
      height((h + 1) / 2 * 2),
      stride((width + 2 + kVector - 1) / kVector * kVector),
      blocks_x(0),
      blocks_y(0) {
  const std::size_t cells = static_cast<std::size_t>(stride) * (height + 2);
  for (auto* a : {&right, &below, &mass, &fixed, &anchor, &inverse_diagonal, &x, &b, &scratch})
    a->assign(cells, 0.f);
  held.assign(cells, 0);
  for (auto* a : {&row_begin, &row_end, &span_begin, &span_end}) a->assign(height, 0);
}

void Multigrid::prepare() {
  while (levels_.back().width > kCoarsestSide || levels_.back().height > kCoarsestSide)
    levels_.push_back(coarsen(levels_.back()));
  for (GridLevel& g : levels_)
    for (int cy = 0; cy < g.height; ++cy) {
      g.row_begin[cy] = g.row_end[cy] = g.at(0, cy);
      for (int i = g.at(0, cy), end = i + g.width; i < end; ++i) {
        g.anchor[i] = g.mass[i] + g.fixed[i];
        const float diagonal =
            g.anchor[i] + g.right[i] + g.right[i - 1] + g.below[i] + g.below[i - g.stride];
        if (!(diagonal > 0.f)) continue;
        g.inverse_diagonal[i] = 1.f / diagonal;
        if (g.row_end[cy] == g.at(0, cy)) g.row_begin[cy] = i;
        g.row_end[cy] = i + 1;
      }
      const int row = g.at(-1, cy);
      g.span_begin[cy] = row + (g.row_begin[cy] - row) / kVector * kVector;
      g.span_end[cy] = row + (g.row_end[cy] - row + kVector - 1) / kVector * kVector;
      if (g.row_begin[cy] == g.row_end[cy]) g.span_end[cy] = g.span_begin[cy];
    }
  if (transfer_ == Transfer::kConstant) return;
  for (std::size_t l = 1; l < levels_.size(); ++l) {
    coarsen_held(levels_[l - 1], levels_[l]);
    levels_[l].ghosts = find_ghosts(levels_[l]);
  }
}

// One V-cycle from x = 0: a symmetric positive approximation of A⁻¹ b.
void Multigrid::v_cycle(std::size_t l) {
  GridLevel& g = levels_[l];
  if (l + 1 == levels_.size()) {
    sweep_from_zero(g, kJacobiDamping);
    for (int k = 1; k < kCoarsestSweeps; ++k) sweep(g, kJacobiDamping);
    return;
  }
  sweep_from_zero(g, kDamping[0]);
  for (int k = 1; k < kSmoothingSweeps; ++k) sweep(g, kDamping[k]);
  restrict_residual(transfer_, g, levels_[l + 1]);
  v_cycle(l + 1);
  add_interpolated(transfer_, levels_[l + 1], g);
  for (int k = kSmoothingSweeps; k-- > 0;) sweep(g, kDamping[k]);
}

SolveStats Multigrid::solve(std::vector<float>& b, float tolerance, int max_iterations,
                            std::vector<float>& x, double energy) {
  GridLevel& g = levels_.front();
  return conjugate_gradients(
      spans_of(g),
      [&](const std::vector<float>& p, std::vector<float>& out) { apply(g, p.data(), out.data()); },
      [&](std::vector<float>& r, std::vector<float>& z) {
        g.b.swap(r);
        v_cycle(0);
        g.b.swap(r);
        g.x.swap(z);
      },
      b, tolerance, max_iterations, x, energy);
}

}  // namespace e3d
