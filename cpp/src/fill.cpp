// fill.cpp — multigrid conjugate gradients for Laplace's equation on any set of pixels.
#include "extreme3d/fill.h"

#include <algorithm>
#include <vector>

namespace e3d {
namespace {

constexpr int kMaxIterations = 100;
constexpr int kSmoothingSweeps = 2;  // before and after each coarse correction
constexpr int kCoarsestSweeps = 16;  // on at most kCoarsestSide² cells this is a solve
constexpr int kCoarsestSide = 4;
constexpr float kJacobiDamping = 0.8f;  // smooths the 5-point stencil best

// One grid of the hierarchy: cells of the holes' box, row-major with a border of one empty cell,
// even width and height so that each 2 × 2 block is a cell of the next grid. Cells that are not
// unknown have no edges and inverse_diagonal 0, which keeps them 0 through every sweep.
struct Level {
  int width, height, stride;
  std::vector<float> right, below;      // weight of the edge to the next cell in x, in y
  std::vector<float> inverse_diagonal;  // of the matrix, 0 where not unknown
  std::vector<float> diagonal;
  std::vector<float> x, b, scratch;

  Level(int w, int h) : width((w + 1) / 2 * 2), height((h + 1) / 2 * 2), stride(width + 2) {
    const std::size_t cells = static_cast<std::size_t>(stride) * (height + 2);
    for (auto* a : {&right, &below, &inverse_diagonal, &diagonal, &x, &b, &scratch})
      a->assign(cells, 0.f);
  }
  int at(int cx, int cy) const { return (cy + 1) * stride + cx + 1; }
  void invert_diagonal() {
    for (std::size_t i = 0; i < diagonal.size(); ++i)
      inverse_diagonal[i] = diagonal[i] > 0.f ? 1.f / diagonal[i] : 0.f;
  }
};

// out = A x. Cells that are not unknown give 0.
void apply(const Level& g, const float* __restrict x, float* __restrict out) {
  const float* __restrict right = g.right.data();
  const float* __restrict below = g.below.data();
  const float* __restrict diagonal = g.diagonal.data();
  const int s = g.stride;
  for (int cy = 0; cy < g.height; ++cy) {
    const int begin = g.at(0, cy), end = begin + g.width;
    for (int i = begin; i < end; ++i)
      out[i] = diagonal[i] * x[i] - right[i] * x[i + 1] - right[i - 1] * x[i - 1] -
               below[i] * x[i + s] - below[i - s] * x[i - s];
  }
}

// x += damping D⁻¹ (b - A x)
void sweep(Level& g) {
  apply(g, g.x.data(), g.scratch.data());
  const std::size_t n = g.x.size();
  float* __restrict x = g.x.data();
  const float* __restrict b = g.b.data();
  const float* __restrict ax = g.scratch.data();
  const float* __restrict inverse = g.inverse_diagonal.data();
  for (std::size_t i = 0; i < n; ++i) x[i] += kJacobiDamping * inverse[i] * (b[i] - ax[i]);
}

// Edges of 2 × 2 blocks summed and halved: the two edges between neighbouring blocks stand for one
// of double length, which is the 5-point Laplacian again inside the holes.
Level coarsen(const Level& fine) {
  Level coarse(fine.width / 2, fine.height / 2);
  for (int cy = 0; cy < fine.height / 2; ++cy)
    for (int cx = 0; cx < fine.width / 2; ++cx) {
      const int c = coarse.at(cx, cy), f = fine.at(2 * cx, 2 * cy), s = fine.stride;
      const float inner = fine.right[f] + fine.right[f + s] + fine.below[f] + fine.below[f + 1];
      const float sum =
          fine.diagonal[f] + fine.diagonal[f + 1] + fine.diagonal[f + s] + fine.diagonal[f + s + 1];
      coarse.diagonal[c] = 0.5f * (sum - 2.f * inner);
      coarse.right[c] = 0.5f * (fine.right[f + 1] + fine.right[f + s + 1]);
      coarse.below[c] = 0.5f * (fine.below[f + s] + fine.below[f + s + 1]);
    }
  coarse.invert_diagonal();
  return coarse;
}

// b of the coarse grid = transpose of the bilinear interpolation, applied to the fine residual.
void restrict_residual(Level& fine, Level& coarse) {
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
      const float* p = r + fine.at(2 * cx - 1, 2 * cy - 1);
      float sum = 0.f;
      for (int k = 0; k < 4; ++k, p += s)
        sum += kWeight[k] * (0.25f * (p[0] + p[3]) + 0.75f * (p[1] + p[2]));
      coarse.b[c] = sum;
    }
}

void add_interpolated(const Level& coarse, Level& fine) {
  for (int y = 0; y < fine.height; ++y) {
    const int dy = y % 2 ? coarse.stride : -coarse.stride;
    for (int x = 0; x < fine.width; ++x) {
      const int i = fine.at(x, y);
      if (fine.inverse_diagonal[i] == 0.f) continue;
      const float* p = coarse.x.data() + coarse.at(x / 2, y / 2);
      const int dx = x % 2 ? 1 : -1;
      fine.x[i] += 0.0625f * (9.f * p[0] + 3.f * (p[dx] + p[dy]) + p[dx + dy]);
    }
  }
}

// The first sweep, from x = 0.
void sweep_from_zero(Level& g) {
  for (std::size_t i = 0; i < g.x.size(); ++i)
    g.x[i] = kJacobiDamping * g.inverse_diagonal[i] * g.b[i];
}

// One V-cycle from x = 0: a symmetric positive approximation of A⁻¹ b.
void v_cycle(std::vector<Level>& levels, std::size_t l) {
  Level& g = levels[l];
  sweep_from_zero(g);
  if (l + 1 == levels.size()) {
    for (int k = 1; k < kCoarsestSweeps; ++k) sweep(g);
    return;
  }
  for (int k = 1; k < kSmoothingSweeps; ++k) sweep(g);
  restrict_residual(g, levels[l + 1]);
  v_cycle(levels, l + 1);
  add_interpolated(levels[l + 1], g);
  for (int k = 0; k < kSmoothingSweeps; ++k) sweep(g);
}

double dot_product(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += static_cast<double>(a[i]) * b[i];
  return sum;
}

struct Box {
  int x0, y0, x1, y1;  // half open
};

}  // namespace

FillStats fill_harmonic(ImageView<const float> values, ImageView<const std::uint8_t> known,
                        ImageView<const std::uint8_t> region, float tolerance,
                        ImageView<float> out) {
  const int width = values.width, height = values.height;
  const auto unknown = [&](int x, int y) { return region(x, y) && !known(x, y); };
  Box box{width, height, 0, 0};
  int unknowns = 0;
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) {
      out(x, y) = values(x, y);
      if (!unknown(x, y)) continue;
      ++unknowns;
      box = {std::min(box.x0, x), std::min(box.y0, y), std::max(box.x1, x + 1),
             std::max(box.y1, y + 1)};
    }
  if (unknowns == 0) return {0, 0, 0.f};

  std::vector<Level> levels;
  levels.emplace_back(box.x1 - box.x0, box.y1 - box.y0);
  std::vector<float> r(levels[0].x.size(), 0.f);
  for (int y = box.y0; y < box.y1; ++y)
    for (int x = box.x0; x < box.x1; ++x) {
      if (!unknown(x, y)) continue;
      Level& g = levels[0];
      const int i = g.at(x - box.x0, y - box.y0);
      // A pixel without any neighbour keeps a positive diagonal and becomes 0.
      float diagonal = 0.f;
      const auto edge = [&](int nx, int ny) {
        if (nx < 0 || ny < 0 || nx >= width || ny >= height) return false;
        diagonal += 1.f;
        if (unknown(nx, ny)) return true;
        if (region(nx, ny)) r[i] += values(nx, ny);
        return false;
      };
      edge(x - 1, y);
      edge(x, y - 1);
      g.right[i] = edge(x + 1, y) ? 1.f : 0.f;
      g.below[i] = edge(x, y + 1) ? 1.f : 0.f;
      g.diagonal[i] = std::max(diagonal, 1.f);
    }
  levels[0].invert_diagonal();
  while (levels.back().width > kCoarsestSide || levels.back().height > kCoarsestSide)
    levels.push_back(coarsen(levels.back()));

  const std::size_t n = r.size();
  std::vector<float> x(n, 0.f), p(n, 0.f), ap(n, 0.f);
  const double start = dot_product(r, r), target = start * tolerance * tolerance;
  double rz = 0.0, rr = start;
  int iterations = 0;
  while (rr > target && iterations < kMaxIterations) {
    ++iterations;
    Level& g = levels[0];
    g.b = r;
    v_cycle(levels, 0);
    const double rz_new = dot_product(r, g.x);
    const float beta = iterations > 1 ? static_cast<float>(rz_new / rz) : 0.f;
    rz = rz_new;
    for (std::size_t i = 0; i < n; ++i) p[i] = g.x[i] + beta * p[i];
    apply(g, p.data(), ap.data());
    const double curvature = dot_product(p, ap);
    if (!(curvature > 0.0)) break;
    const float step = static_cast<float>(rz / curvature);
    for (std::size_t i = 0; i < n; ++i) x[i] += step * p[i];
    for (std::size_t i = 0; i < n; ++i) r[i] -= step * ap[i];
    rr = dot_product(r, r);
  }
  for (int y = box.y0; y < box.y1; ++y)
    for (int cx = box.x0; cx < box.x1; ++cx)
      if (unknown(cx, y)) out(cx, y) = x[levels[0].at(cx - box.x0, y - box.y0)];
  return {unknowns, iterations, start > 0.0 ? static_cast<float>(std::sqrt(rr / start)) : 0.f};
}

}  // namespace e3d
