// shading.cpp — multigrid for the albedo, conjugate gradients per octave for the relief.
#include "extreme3d/shading.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <vector>

namespace e3d {
namespace {

constexpr int kMaxAlbedoIterations = 200;
// Where nothing is known the albedo is held at 0 by this.
constexpr float kLeastMass = 1e-6f;

// Octaves are halved until a side has fewer pixels than this, or relief is left to the foundation.
constexpr int kSmallestSide = 16;
constexpr int kOctaves = 5;
// A band of the Laplacian pyramid has its middle at waves of 5 pixels: |ω| = 2π/5h = 0.8 h ω².
constexpr float kBandMiddle = 0.8f;

// An image with a border of one pixel that stays 0.
struct Grid {
  int width, height, stride;
  std::vector<float> v;
  Grid(int w, int h)
      : width(w), height(h), stride(w + 2), v(static_cast<std::size_t>(w + 2) * (h + 2), 0.f) {}
  int at(int x, int y) const { return (y + 1) * stride + x + 1; }
  float& operator()(int x, int y) { return v[at(x, y)]; }
  float operator()(int x, int y) const { return v[at(x, y)]; }
};

template <class T>
Grid grid(ImageView<const T> image) {
  Grid out(image.width, image.height);
  for (int y = 0; y < image.height; ++y)
    for (int x = 0; x < image.width; ++x) out(x, y) = static_cast<float>(image(x, y));
  return out;
}

// Half the size: every second pixel of the image filtered with (1 4 6 4 1) / 16, edges repeated.
Grid reduced(const Grid& a) {
  constexpr float kTap[5] = {0.0625f, 0.25f, 0.375f, 0.25f, 0.0625f};
  const int w = (a.width + 1) / 2, h = (a.height + 1) / 2;
  Grid rows(w, a.height), out(w, h);
  for (int y = 0; y < a.height; ++y)
    for (int x = 0; x < w; ++x) {
      float sum = 0.f;
      for (int k = -2; k <= 2; ++k)
        sum += kTap[k + 2] * a(std::clamp(2 * x + k, 0, a.width - 1), y);
      rows(x, y) = sum;
    }
  for (int y = 0; y < h; ++y)
    for (int x = 0; x < w; ++x) {
      float sum = 0.f;
      for (int k = -2; k <= 2; ++k)
        sum += kTap[k + 2] * rows(x, std::clamp(2 * y + k, 0, a.height - 1));
      out(x, y) = sum;
    }
  return out;
}

// Double size: the transpose of `reduced` but for the edges, (1 6 1) / 8 and (4 4) / 8 in turn.
Grid expanded(const Grid& a, int width, int height) {
  const auto value = [](int i, int last, const auto& read) {
    const int k = i / 2, next = std::min(k + 1, last);
    return i % 2 ? 0.5f * (read(k) + read(next))
                 : 0.125f * (read(std::max(k - 1, 0)) + 6.f * read(k) + read(next));
  };
  Grid rows(width, a.height), out(width, height);
  for (int y = 0; y < a.height; ++y)
    for (int x = 0; x < width; ++x)
      rows(x, y) = value(x, a.width - 1, [&](int k) { return a(k, y); });
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x)
      out(x, y) = value(y, a.height - 1, [&](int k) { return rows(x, k); });
  return out;
}

struct Octave {
  Grid detail, confidence, slope_x, slope_y, region;
  float mm;  // size of a pixel
};

Octave halved(const Octave& o) {
  Grid weighted = o.detail;
  for (std::size_t i = 0; i < weighted.v.size(); ++i) weighted.v[i] *= o.confidence.v[i];
  Octave out{reduced(weighted),  reduced(o.confidence), reduced(o.slope_x),
             reduced(o.slope_y), reduced(o.region),     2.f * o.mm};
  for (std::size_t i = 0; i < out.detail.v.size(); ++i) {
    const float c = out.confidence.v[i];
    out.detail.v[i] = c > 1e-3f ? out.detail.v[i] / c : 0.f;
    out.region.v[i] = out.region.v[i] > 0.5f ? 1.f : 0.f;
  }
  return out;
}

// The relief of one octave's band.
SolveStats solve_band(const Octave& o, const Grid& band, const ReliefSettings& settings,
                      Grid& solved) {
  const int width = o.detail.width, height = o.detail.height, stride = o.detail.stride;
  const float inverse = 1.f / o.mm, cavity = settings.ambient * kBandMiddle * inverse;
  const float stiff = settings.stiffness * inverse * inverse;
  Grid ex(width, height), ey(width, height), el(width, height);
  const float* __restrict c = o.confidence.v.data();
  const float* __restrict sx = o.slope_x.v.data();
  const float* __restrict sy = o.slope_y.v.data();
  const float* __restrict inside = o.region.v.data();

  // e = c · (target or K p), carried back through Kᵀ; with p the matrix adds the regularisers
  const auto transposed = [&](const std::vector<float>& from, std::vector<float>& out,
                              float ridge) {
    const float* __restrict x = ex.v.data();
    const float* __restrict y = ey.v.data();
    const float* __restrict l = el.v.data();
    for (int row = 0; row < height; ++row)
      for (int i = o.detail.at(0, row), end = i + width; i < end; ++i)
        out[i] =
            inside[i] * (0.5f * (x[i - 1] - x[i + 1] + y[i - stride] - y[i + stride]) + l[i - 1] +
                         l[i + 1] + l[i - stride] + l[i + stride] - 4.f * l[i] + ridge * from[i]);
  };
  const auto apply = [&](const std::vector<float>& p, std::vector<float>& out) {
    for (int row = 0; row < height; ++row)
      for (int i = o.detail.at(0, row), end = i + width; i < end; ++i) {
        const float dx = 0.5f * inverse * (p[i + 1] - p[i - 1]);
        const float dy = 0.5f * inverse * (p[i + stride] - p[i - stride]);
        const float lap = p[i - 1] + p[i + 1] + p[i - stride] + p[i + stride] - 4.f * p[i];
        const float e = c[i] * (sx[i] * dx + sy[i] * dy + cavity * lap);
        ex.v[i] = inverse * sx[i] * e;
        ey.v[i] = inverse * sy[i] * e;
        el.v[i] = cavity * e + stiff * lap;
      }
    transposed(p, out, settings.ridge);
  };
  Grid b(width, height);
  for (std::size_t i = 0; i < b.v.size(); ++i) {
    const float e = c[i] * band.v[i];
    ex.v[i] = inverse * sx[i] * e;
    ey.v[i] = inverse * sy[i] * e;
    el.v[i] = cavity * e;
  }
  transposed(b.v, b.v, 0.f);
  std::vector<float> jacobi(b.v.size());
  for (std::size_t i = 0; i < jacobi.size(); ++i)
    jacobi[i] = 1.f / (c[i] * (20.f * cavity * cavity +
                               0.5f * inverse * inverse * (sx[i] * sx[i] + sy[i] * sy[i])) +
                       settings.ridge + 20.f * stiff);
  return conjugate_gradients(
      {{0, b.v.size()}}, apply,
      [&](const std::vector<float>& r, std::vector<float>& z) {
        for (std::size_t i = 0; i < r.size(); ++i) z[i] = jacobi[i] * r[i];
      },
      b.v, settings.tolerance, settings.max_iterations, solved.v);
}

}  // namespace

SolveStats solve_albedo(ImageView<const float> ratio, ImageView<const float> confidence,
                        ImageView<const float> link_x, ImageView<const float> link_y,
                        float tolerance, ImageView<float> albedo) {
  const int width = ratio.width, height = ratio.height;
  for (int i = 0; i < width * height; ++i)
    if (!(std::isfinite(ratio[i]) && confidence[i] >= 0.f && link_x[i] >= 0.f && link_y[i] >= 0.f))
      throw std::invalid_argument("ratio should be finite, confidence and links not negative");
  Multigrid solver(width, height, Transfer::kConstant);
  GridLevel& g = solver.finest();
  std::vector<float> b(g.x.size(), 0.f), solved;
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) {
      const int i = g.at(x, y);
      g.mass[i] = confidence(x, y) + kLeastMass;
      b[i] = confidence(x, y) * ratio(x, y);
      if (x + 1 < width) g.right[i] = link_x(x, y);
      if (y + 1 < height) g.below[i] = link_y(x, y);
    }
  solver.prepare();
  const SolveStats stats = solver.solve(b, tolerance, kMaxAlbedoIterations, solved);
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) albedo(x, y) = solved[g.at(x, y)];
  return stats;
}

SolveStats relief_from_shading(ImageView<const float> detail, ImageView<const float> confidence,
                               ImageView<const float> slope_x, ImageView<const float> slope_y,
                               ImageView<const std::uint8_t> region, float mm_per_pixel,
                               const ReliefSettings& settings, ImageView<float> relief) {
  std::vector<Octave> octaves;
  octaves.push_back(
      {grid(detail), grid(confidence), grid(slope_x), grid(slope_y), grid(region), mm_per_pixel});
  for (float& inside : octaves[0].region.v) inside = inside > 0.f ? 1.f : 0.f;
  while (static_cast<int>(octaves.size()) < kOctaves &&
         std::min(octaves.back().detail.width, octaves.back().detail.height) >= 2 * kSmallestSide)
    octaves.push_back(halved(octaves.back()));

  Grid sum(0, 0);
  SolveStats worst{0, 0.f};
  for (std::size_t l = octaves.size(); l-- > 0;) {
    const Octave& o = octaves[l];
    const int width = o.detail.width, height = o.detail.height;
    Grid band = o.detail, total(width, height);
    if (l + 1 < octaves.size()) {
      const Grid coarser = expanded(octaves[l + 1].detail, width, height);
      for (std::size_t i = 0; i < band.v.size(); ++i) band.v[i] -= coarser.v[i];
      total = expanded(sum, width, height);
    }
    Grid part(width, height);
    const SolveStats stats = solve_band(o, band, settings, part);
    worst = {std::max(worst.iterations, stats.iterations),
             std::max(worst.residual, stats.residual)};
    for (std::size_t i = 0; i < total.v.size(); ++i)
      total.v[i] = (total.v[i] + part.v[i]) * o.region.v[i];
    sum = std::move(total);
  }
  for (int y = 0; y < relief.height; ++y)
    for (int x = 0; x < relief.width; ++x) relief(x, y) = sum(x, y);
  return worst;
}

}  // namespace e3d
