// fill.cpp — Laplace's equation on any set of pixels.
#include "extreme3d/fill.h"

#include <algorithm>
#include <vector>

#include "extreme3d/multigrid.h"

namespace e3d {
namespace {

constexpr int kMaxIterations = 100;

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

  Multigrid solver(box.x1 - box.x0, box.y1 - box.y0, Transfer::kBilinear);
  GridLevel& g = solver.finest();
  std::vector<float> r(g.x.size(), 0.f), solved;
  for (int y = box.y0; y < box.y1; ++y)
    for (int x = box.x0; x < box.x1; ++x) {
      if (!unknown(x, y)) continue;
      const int i = g.at(x - box.x0, y - box.y0);
      float edges = 0.f;
      const auto edge = [&](int nx, int ny) {
        if (nx < 0 || ny < 0 || nx >= width || ny >= height) return false;
        edges += 1.f;
        if (unknown(nx, ny)) return true;
        g.fixed[i] += 1.f;
        if (region(nx, ny)) r[i] += values(nx, ny);
        return false;
      };
      edge(x - 1, y);
      edge(x, y - 1);
      g.right[i] = edge(x + 1, y) ? 1.f : 0.f;
      g.below[i] = edge(x, y + 1) ? 1.f : 0.f;
      if (edges == 0.f) g.fixed[i] = 1.f;  // a pixel without any neighbour becomes 0
    }
  solver.prepare();
  const SolveStats stats = solver.solve(r, tolerance, kMaxIterations, solved);
  for (int y = box.y0; y < box.y1; ++y)
    for (int cx = box.x0; cx < box.x1; ++cx)
      if (unknown(cx, y)) out(cx, y) = solved[g.at(cx - box.x0, y - box.y0)];
  return {unknowns, stats.iterations, stats.residual};
}

}  // namespace e3d
