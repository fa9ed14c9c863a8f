// network_maps.cpp — host loops of network_maps.h.
#include "extreme3d/network_maps.h"

#include <atomic>
#include <limits>

#include "extreme3d/parallel.h"

namespace e3d {
namespace {

constexpr int kRows = 32;  // a chunk of rows

// A row with `radius` more pixels at either end, which repeat the outermost ones.
void pad_row(float* row, int n, int radius) {
  std::fill(row - radius, row, row[0]);
  std::fill(row + n, row + n + radius, row[n - 1]);
}

// sum_k weight[k] in(k)[x] for all x of a row: k outermost, so that the compiler makes vectors.
template <class In>
void convolve(const std::vector<float>& weights, int n, const In& in, float* out) {
  const int radius = static_cast<int>(weights.size()) / 2;
  std::fill(out, out + n, 0.f);
  for (int k = -radius; k <= radius; ++k) {
    const float* row = in(k);
    const float weight = weights[k + radius];
    for (int x = 0; x < n; ++x) out[x] += weight * row[x];
  }
}

std::vector<float> weights_of(Blur blur) {
  std::vector<float> weights(2 * blur.radius + 1);
  float sum = 0.f;
  for (int k = -blur.radius; k <= blur.radius; ++k)
    sum += weights[k + blur.radius] = std::exp(blur.falloff * static_cast<float>(k * k));
  for (float& w : weights) w /= sum;
  return weights;
}

// Depth of the cut in pixels, smoothed over what is there.
std::vector<float> smooth_cut(ImageView<const float> depth, Cut cut, float mm_per_pixel,
                              int threads) {
  const Blur blur = normals_blur(mm_per_pixel);
  const std::vector<float> weights = weights_of(blur);
  const int w = cut.width, h = cut.height;
  const std::size_t pixels = static_cast<std::size_t>(w) * h;
  std::vector<float> z(pixels), share(pixels), smooth(pixels);
  parallel_for(h, threads, kRows, [&](int begin, int end) {
    std::vector<float> padded(2 * (w + 2 * static_cast<std::size_t>(blur.radius)));
    float* const own = padded.data() + blur.radius;
    float* const there = own + w + 2 * blur.radius;
    for (int y = begin; y < end; ++y) {
      const float* row = &depth(cut.x, cut.y + y);
      for (int x = 0; x < w; ++x) {
        const bool finite = std::isfinite(row[x]);
        own[x] = finite ? row[x] : 0.f;
        there[x] = finite ? 1.f : 0.f;
      }
      pad_row(own, w, blur.radius);
      pad_row(there, w, blur.radius);
      convolve(weights, w, [&](int k) { return own + k; }, &z[std::size_t(y) * w]);
      convolve(weights, w, [&](int k) { return there + k; }, &share[std::size_t(y) * w]);
    }
  });
  parallel_for(h, threads, kRows, [&](int begin, int end) {
    std::vector<float> sum(w);
    for (int y = begin; y < end; ++y) {
      const auto row = [&](const std::vector<float>& map) {
        return [&map, y, w, h](int k) {
          return &map[static_cast<std::size_t>(std::clamp(y + k, 0, h - 1)) * w];
        };
      };
      float* const out = &smooth[std::size_t(y) * w];
      convolve(weights, w, row(z), out);
      convolve(weights, w, row(share), sum.data());
      for (int x = 0; x < w; ++x) out[x] = smoothed_depth({out[x], sum[x]}, mm_per_pixel);
    }
  });
  return smooth;
}

}  // namespace

std::vector<float> bump_input(ImageView<const Rgb> crop, ImageView<const float> depth,
                              float mm_per_pixel, MapWindow window, int channels, int threads) {
  const int pixels = window.width * window.height;
  const Cut cut = cut_of(window, crop.width);
  std::vector<float> out(static_cast<std::size_t>(channels) * pixels);
  if (cut.width == 0 || cut.height == 0) return out;
  const bool normals = channels > 3;
  std::vector<float> smooth;
  if (normals) smooth = smooth_cut(depth, cut, mm_per_pixel, threads);
  const ImageView<const float> z{smooth.data(), cut.width, cut.height};
  parallel_for(cut.height, threads, kRows, [&](int begin, int end) {
    for (int row = begin; row < end; ++row) {
      const int y = cut.y + row;
      float* const to = out.data() + (y - window.y) * window.width + cut.x - window.x;
      for (int x = 0; x < cut.width; ++x) {
        const Rgb c = crop(cut.x + x, y);
        to[x] = seen_color(c.r);
        to[x + pixels] = seen_color(c.g);
        to[x + 2 * pixels] = seen_color(c.b);
      }
      if (!normals) continue;
      for (int x = 0; x < cut.width; ++x) {
        if (!std::isfinite(depth(cut.x + x, y))) continue;
        const Vec2 normal = normal_at(z, x, row);
        to[x + 3 * pixels] = normal.x;
        to[x + 4 * pixels] = normal.y;
      }
    }
  });
  return out;
}

bool bump_output(ImageView<const float> bump, ImageView<const float> mask, MapWindow window,
                 ImageView<const float> weight, ImageView<const std::uint8_t> face, int threads,
                 ImageView<float> bump_out, ImageView<float> probability_out) {
  std::atomic<bool> finite{true};
  parallel_for(window.height, threads, kRows, [&](int begin, int end) {
    constexpr float kMost = std::numeric_limits<float>::max();
    int others = 0;
    for (int p = begin * window.width; p < end * window.width; ++p)
      others |= !(std::abs(bump[p]) <= kMost) | !(std::abs(mask[p]) <= kMost);
    if (others) finite = false;
  });
  const Cut cut = cut_of(window, weight.width);
  parallel_for(weight.height, threads, kRows, [&](int begin, int end) {
    for (int y = begin; y < end; ++y) {
      float* const z = &bump_out(0, y);
      float* const p = &probability_out(0, y);
      std::fill(z, z + weight.width, 0.f);
      std::fill(p, p + weight.width, 0.f);
      if (y < cut.y || y >= cut.y + cut.height) continue;
      for (int x = cut.x; x < cut.x + cut.width; ++x) {
        z[x] = bump_answer(bump(x - window.x, y - window.y), weight(x, y));
        p[x] = face(x, y) ? probability_answer(mask(x - window.x, y - window.y)) : 0.f;
      }
    }
  });
  return finite;
}

}  // namespace e3d
