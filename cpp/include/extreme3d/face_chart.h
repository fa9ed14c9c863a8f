// face_chart.h — maps carried between a crop and the face unrolled; see
// python/extreme3d_fast/face_chart.py and transfer.py.
#pragma once

#include <cmath>
#include <cstdint>

#include "extreme3d/rasterize.h"
#include "extreme3d/types.h"

namespace e3d {

inline constexpr int kChartWidth = 304, kChartHeight = 168;  // px
inline constexpr int kChartPixels = kChartWidth * kChartHeight;
inline constexpr float kShown = 0.99f;  // all corners of a triangle, or neighbours of a pixel

// === Sampling as OpenCV does it: positions count from pixel centres ===

// Index of a border that mirrors the image at its outermost pixels.
E3D_HD inline int reflected(int i, int n) {
  if (n == 1) return 0;
  while (i < 0 || i >= n) i = i < 0 ? -i : 2 * n - 2 - i;
  return i;
}

struct Bilinear {
  int x, y;    // of the first of 2 × 2 pixels
  float a, b;  // share of the second column and row
};

E3D_HD inline Bilinear bilinear(Vec2 p) {
  const float x = std::floor(p.x), y = std::floor(p.y);
  return {static_cast<int>(x), static_cast<int>(y), p.x - x, p.y - y};
}

// value(x, y) at a position; 0 outside w × h.
template <class Value>
E3D_HD float sampled(Bilinear at, int w, int h, const Value& value) {
  const auto inside = [&](int x, int y) {
    return x >= 0 && y >= 0 && x < w && y < h ? value(x, y) : 0.f;
  };
  const float top = inside(at.x, at.y) + at.a * (inside(at.x + 1, at.y) - inside(at.x, at.y));
  const float below =
      inside(at.x, at.y + 1) + at.a * (inside(at.x + 1, at.y + 1) - inside(at.x, at.y + 1));
  return top + at.b * (below - top);
}

struct Cubic {
  float w[4];
};

// Weights of the four pixels round a position that is t behind the second.
E3D_HD inline Cubic cubic(float t) {
  constexpr float kA = -0.75f;
  const float s = 1.f - t;
  Cubic c;
  c.w[0] = ((kA * (t + 1.f) - 5.f * kA) * (t + 1.f) + 8.f * kA) * (t + 1.f) - 4.f * kA;
  c.w[1] = ((kA + 2.f) * t - (kA + 3.f)) * t * t + 1.f;
  c.w[2] = ((kA + 2.f) * s - (kA + 3.f)) * s * s + 1.f;
  c.w[3] = 1.f - c.w[0] - c.w[1] - c.w[2];
  return c;
}

E3D_HD inline float sampled_cubic(ImageView<const float> image, Vec2 p) {
  const Bilinear at = bilinear(p);
  const Cubic across = cubic(at.a), down = cubic(at.b);
  const auto within = [](int i, int n) { return i < 0 ? 0 : i < n ? i : n - 1; };
  int column[4];
  for (int i = 0; i < 4; ++i) column[i] = within(at.x - 1 + i, image.width);
  float sum = 0.f;
  for (int j = 0; j < 4; ++j) {
    const int first = within(at.y - 1 + j, image.height) * image.width;
    float row = 0.f;
    for (int i = 0; i < 4; ++i) row += across.w[i] * image[first + column[i]];
    sum += down.w[j] * row;
  }
  return sum;
}

E3D_HD inline Vec2 on_face(Vec2 uv, Vec2 first, Vec2 second, Vec2 last) {
  return {on_face(uv, first.x, second.x, last.x), on_face(uv, first.y, second.y, last.y)};
}

// === The prefilter of a crop's map: a px of the chart is about two of the crop ===

inline constexpr double kPrefilter = 0.8;  // px of the crop, standard deviation
inline constexpr int kBlurReach = 3;       // px, as OpenCV chooses it for this filter
inline constexpr int kBlurTaps = 2 * kBlurReach + 1;

struct Blur {
  float w[kBlurTaps];
};

Blur prefilter();

// === Host loops ===

// Where the skin of a head model lies in the chart.
struct ChartView {
  ImageView<const Tri> corners;  // of the face that each pixel of the chart sees, v0 = -1: none
  ImageView<const Vec2> barycentric;  // of that face
  View<const Vec2> place;             // (V,) px of the chart of each vertex of the skin
  View<const Tri> faces;              // (F,) the skin's
};

// A map of a crop brought into the chart; 0 where the crop does not show it. known: pixels of the
// map that count. vertices_in_camera, visible (V,): the skin's, and whether the crop shows them.
void unroll(const ChartView& chart, ImageView<const float> map, ImageView<const std::uint8_t> known,
            const Camera& camera, View<const Vec3> vertices_in_camera,
            View<const std::uint8_t> visible, int threads, ImageView<float> out,
            ImageView<std::uint8_t> seen);

// The chart's relief brought to the pixels `where` of a crop and to those right beside them, within
// the box of `where`, and whether it is shown there; 0 elsewhere. triangle, barycentric: what the
// crop sees of the skin.
void warp_by_surface(const ChartView& chart, ImageView<const float> relief,
                     ImageView<const std::uint8_t> seen, ImageView<const std::int32_t> triangle,
                     ImageView<const Vec2> barycentric, ImageView<const std::uint8_t> where,
                     int threads, ImageView<float> bump, ImageView<std::uint8_t> valid);

}  // namespace e3d
