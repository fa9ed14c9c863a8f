// network_maps.h — what the bump network sees of a crop, and what becomes of its answer.
//
// For crops of the size that the network knows; see python/extreme3d_fast/bump_network.py.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "extreme3d/texture.h"

namespace e3d {

// The part of the map that the network is run on, in pixels of the crop, which it may leave.
struct MapWindow {
  int x, y, width, height;
};

// The part of the crop that a window has, as a box of the crop.
struct Cut {
  int x, y, width, height;
};

inline Cut cut_of(MapWindow w, int size) {
  const int x = std::max(w.x, 0), y = std::max(w.y, 0);
  return {x, y, std::max(std::min(w.x + w.width, size) - x, 0),
          std::max(std::min(w.y + w.height, size) - y, 0)};
}

// === What it sees: colours and the normals of smoothed depth ===

// Depth where there is any, and how much of it: a blur of both gives the mean of what is there.
struct Seen {
  float depth, share;
};

// A Gaussian, cut off at 3 sigma; nothing happens below a third of a pixel.
struct Blur {
  int radius;
  float falloff;  // weight at k px: exp(falloff k²)
};

inline Blur normals_blur(float mm_per_pixel) {
  constexpr float kNormalSmoothing = 1.5f;  // mm, as of _shading.py
  constexpr float kLeastSigma = 0.34f;      // px
  const float sigma = kNormalSmoothing / mm_per_pixel;
  if (sigma < kLeastSigma) return {0, 0.f};
  return {static_cast<int>(std::ceil(3.f * sigma)), -0.5f / (sigma * sigma)};
}

// Depth in pixels, as wide as they are.
E3D_HD inline float smoothed_depth(Seen mean, float mm_per_pixel) {
  constexpr float kLeastShare = 1e-3f;
  const float share = mean.share > kLeastShare ? mean.share : kLeastShare;
  return mean.depth / share * (1.f / mm_per_pixel);
}

// Beyond the border a map goes on as its mirror image about the outermost pixel's centre.
E3D_HD inline int mirrored(int i, int n) {
  if (n == 1) return 0;
  return i < 0 ? -i : i < n ? i : 2 * n - 2 - i;
}

// x and y of the unit normal towards the camera of the surface z(x, y), whose slopes are Sobel's.
E3D_HD inline Vec2 normal_at(ImageView<const float> z, int x, int y) {
  const int left = mirrored(x - 1, z.width), right = mirrored(x + 1, z.width);
  const int above = mirrored(y - 1, z.height), below = mirrored(y + 1, z.height);
  const float zx = (z(right, above) - z(left, above) + 2.f * (z(right, y) - z(left, y)) +
                    z(right, below) - z(left, below)) /
                   8.f;
  const float zy = (z(left, below) - z(left, above) + 2.f * (z(x, below) - z(x, above)) +
                    z(right, below) - z(right, above)) /
                   8.f;
  const float n = 1.f / std::sqrt(1.f + zx * zx + zy * zy);
  return {zx * n, zy * n};
}

// A colour as the network sees it.
E3D_HD inline float seen_color(std::uint8_t c) {
  return static_cast<float>(c) * (1.f / 127.5f) - 1.f;
}

// (channels, height, width) of the window: R, G, B in [-1, 1], and of five channels x and y of the
// foundation's normals; 0 beyond the crop and where there is no depth.
std::vector<float> bump_input(ImageView<const Rgb> crop, ImageView<const float> depth,
                              float mm_per_pixel, MapWindow window, int channels, int threads);

// === What it answers ===

E3D_HD inline float bump_answer(float bump, float weight) {
  constexpr float kMaxBump = 6.f;  // mm, as of bump_network.py
  return (bump < -kMaxBump ? -kMaxBump : bump > kMaxBump ? kMaxBump : bump) * weight;
}

E3D_HD inline float probability_answer(float mask) {
  return mask < 0.f ? 0.f : mask > 1.f ? 1.f : mask;
}

// The answers of a window in their place in the crop, 0 elsewhere. weight: how much of the bump
// applies; face: pixels whose probability counts. False where an answer is NaN or infinity.
bool bump_output(ImageView<const float> bump, ImageView<const float> mask, MapWindow window,
                 ImageView<const float> weight, ImageView<const std::uint8_t> face, int threads,
                 ImageView<float> bump_out, ImageView<float> probability_out);

}  // namespace e3d
