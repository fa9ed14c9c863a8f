// face_chart.cpp — host loops between a crop and the face unrolled.
#include "extreme3d/face_chart.h"

#include <algorithm>
#include <vector>

#include "extreme3d/parallel.h"

namespace e3d {
namespace {

constexpr int kRowGrain = 16;  // rows of a crop or of the chart

// Half open.
struct Box {
  int x0, y0, x1, y1;
  int width() const { return x1 - x0; }
  int height() const { return y1 - y0; }
  bool empty() const { return x0 >= x1; }
};

Box box_of(ImageView<const std::uint8_t> mask) {
  Box box{mask.width, mask.height, 0, 0};
  for (int y = 0; y < mask.height; ++y) {
    const std::uint8_t* row = mask.data + static_cast<std::size_t>(y) * mask.width;
    const std::uint8_t* end = row + mask.width;
    const auto is_set = [](std::uint8_t m) { return m != 0; };
    const std::uint8_t* first = std::find_if(row, end, is_set);
    if (first == end) continue;
    const std::uint8_t* last = end;
    while (!last[-1]) --last;
    box.x0 = std::min(box.x0, static_cast<int>(first - row));
    box.x1 = std::max(box.x1, static_cast<int>(last - row));
    box.y0 = std::min(box.y0, y);
    box.y1 = y + 1;
  }
  return box;
}

// What is known of some rows of a box, filtered along them.
class FilteredRows {
 public:
  FilteredRows(ImageView<const float> map, ImageView<const std::uint8_t> known, const Box& box,
               const Blur& blur)
      : map_(map), known_(known), box_(box), blur_(blur), line_(2 * padded()) {}

  // sum and share (w,): of the values and of what is known, weighted.
  void filter(int row, float* sum, float* share) {
    const int w = box_.width();
    float* __restrict values = line_.data();
    float* __restrict counts = values + padded();
    const std::size_t start =
        static_cast<std::size_t>(box_.y0 + reflected(row, box_.height())) * map_.width + box_.x0;
    const float* __restrict from = map_.data + start;
    const std::uint8_t* __restrict holds = known_.data + start;
    for (int x = 0; x < w; ++x) {
      values[x + kBlurReach] = holds[x] ? from[x] : 0.f;
      counts[x + kBlurReach] = holds[x] ? 1.f : 0.f;
    }
    for (float* line : {values, counts})
      for (int d = 1; d <= kBlurReach; ++d) {
        line[kBlurReach - d] = line[kBlurReach + reflected(-d, w)];
        line[kBlurReach + w - 1 + d] = line[kBlurReach + reflected(w - 1 + d, w)];
      }
    along(values, sum);
    along(counts, share);
  }

 private:
  std::size_t padded() const { return static_cast<std::size_t>(box_.width()) + 2 * kBlurReach; }

  void along(const float* __restrict line, float* __restrict out) const {
    const float* b = blur_.w;
    for (int x = 0; x < box_.width(); ++x)
      out[x] = b[3] * line[x + 3] + b[2] * (line[x + 2] + line[x + 4]) +
               b[1] * (line[x + 1] + line[x + 5]) + b[0] * (line[x] + line[x + 6]);
  }

  ImageView<const float> map_;
  ImageView<const std::uint8_t> known_;
  Box box_;
  Blur blur_;
  std::vector<float> line_;
};

// The mean of what is known round each pixel of a box, weighted by the prefilter. The borders of
// the box mirror what is inside.
std::vector<float> blurred(ImageView<const float> map, ImageView<const std::uint8_t> known,
                           const Box& box, int threads) {
  const int w = box.width(), h = box.height();
  const Blur blur = prefilter();
  const float* b = blur.w;
  std::vector<float> mean(static_cast<std::size_t>(w) * h);
  parallel_for(h, threads, 2 * kRowGrain, [&](int begin, int end) {
    FilteredRows rows(map, known, box, blur);
    const std::size_t plane = static_cast<std::size_t>(end - begin + 2 * kBlurReach) * w;
    std::vector<float> filtered(2 * plane);
    for (int y = begin - kBlurReach; y < end + kBlurReach; ++y) {
      float* sum = filtered.data() + static_cast<std::size_t>(y - begin + kBlurReach) * w;
      rows.filter(y, sum, sum + plane);
    }
    for (int y = begin; y < end; ++y) {
      const float* __restrict s = filtered.data() + static_cast<std::size_t>(y - begin) * w;
      const float* __restrict n = s + plane;
      float* __restrict out = mean.data() + static_cast<std::size_t>(y) * w;
      const auto down = [&](const float* p, int x) {
        return b[3] * p[x + 3 * w] + b[2] * (p[x + 2 * w] + p[x + 4 * w]) +
               b[1] * (p[x + w] + p[x + 5 * w]) + b[0] * (p[x] + p[x + 6 * w]);
      };
      for (int x = 0; x < w; ++x) out[x] = down(s, x) / std::max(down(n, x), 1e-6f);
    }
  });
  return mean;
}

// Marks pixels of a row that are in a mask or right beside it.
void mark_near(ImageView<const std::uint8_t> mask, int y, std::uint8_t* __restrict marks) {
  const int w = mask.width;
  const std::uint8_t* __restrict row = mask.data + static_cast<std::size_t>(y) * w;
  const std::uint8_t* __restrict above = y > 0 ? row - w : row;
  const std::uint8_t* __restrict below = y + 1 < mask.height ? row + w : row;
  for (int x = 0; x < w; ++x) marks[x] = row[x] | above[x] | below[x];
  for (int x = 1; x < w; ++x) marks[x] |= row[x - 1];
  for (int x = 1; x < w; ++x) marks[x - 1] |= row[x];
}

}  // namespace

static_assert(kBlurReach == 3);  // of the unrolled filter loops

Blur prefilter() {
  Blur blur;
  double sum = 0.0;
  for (int k = 0; k < kBlurTaps; ++k) {
    const int d = k - kBlurReach;
    blur.w[k] = static_cast<float>(std::exp(-d * d / (2 * kPrefilter * kPrefilter)));
    sum += blur.w[k];
  }
  for (float& w : blur.w) w = static_cast<float>(w / sum);
  return blur;
}

void unroll(const ChartView& chart, ImageView<const float> map, ImageView<const std::uint8_t> known,
            const Camera& camera, View<const Vec3> vertices_in_camera,
            View<const std::uint8_t> visible, int threads, ImageView<float> out,
            ImageView<std::uint8_t> seen) {
  const Box box = box_of(known);
  if (box.empty()) {
    std::fill_n(out.data, kChartPixels, 0.f);
    std::fill_n(seen.data, kChartPixels, std::uint8_t{0});
    return;
  }
  const int w = box.width(), h = box.height();
  const std::vector<float> mean = blurred(map, known, box, threads);
  const auto place = [&](int v) {
    if (!visible[v]) return Vec2{-9.f, -9.f};  // outside
    return project(camera, vertices_in_camera[v]) - Vec2{float(box.x0), float(box.y0)};
  };
  const auto pixel = [&](int i) {
    const Tri t = chart.corners[i];
    if (t.v0 < 0) return false;
    const Vec2 uv = chart.barycentric[i];
    const auto share = [&](int v) { return visible[v] ? 1.f : 0.f; };
    if (!(on_face(uv, share(t.v0), share(t.v1), share(t.v2)) > kShown)) return false;
    const Vec2 p = on_face(uv, place(t.v0), place(t.v1), place(t.v2)) - Vec2{0.5f, 0.5f};
    const Bilinear at = bilinear(p);
    const float counted =
        sampled(at, w, h, [&](int x, int y) { return known(box.x0 + x, box.y0 + y) ? 1.f : 0.f; });
    if (!(counted > kShown)) return false;
    out[i] = sampled(at, w, h, [&](int x, int y) { return mean[y * w + x]; });
    return true;
  };
  parallel_for(kChartHeight, threads, kRowGrain / 2, [&](int begin, int end) {
    for (int i = begin * kChartWidth; i < end * kChartWidth; ++i) {
      out[i] = 0.f;
      seen[i] = pixel(i);
    }
  });
}

void warp_by_surface(const ChartView& chart, ImageView<const float> relief,
                     ImageView<const std::uint8_t> seen, ImageView<const std::int32_t> triangle,
                     ImageView<const Vec2> barycentric, ImageView<const std::uint8_t> where,
                     int threads, ImageView<float> bump, ImageView<std::uint8_t> valid) {
  const int w = where.width, h = where.height;
  const Box box = box_of(where);
  const auto pixel = [&](int i) {
    const Tri t = chart.faces[triangle[i]];
    const Vec2 p =
        on_face(barycentric[i], chart.place[t.v0], chart.place[t.v1], chart.place[t.v2]) -
        Vec2{0.5f, 0.5f};
    bump[i] = sampled_cubic(relief, p);
    const float shown = sampled(bilinear(p), kChartWidth, kChartHeight,
                                [&](int u, int v) { return seen(u, v) ? 1.f : 0.f; });
    valid[i] = shown > kShown;
  };
  parallel_for(h, threads, kRowGrain, [&](int begin, int end) {
    std::fill_n(bump.data + static_cast<std::size_t>(begin) * w, (end - begin) * w, 0.f);
    std::fill_n(valid.data + static_cast<std::size_t>(begin) * w, (end - begin) * w,
                std::uint8_t{0});
    std::vector<std::uint8_t> marks(w);
    for (int y = std::max(begin, box.y0); y < std::min(end, box.y1); ++y) {
      mark_near(where, y, marks.data());
      for (int x = box.x0; x < box.x1; ++x)
        if (marks[x] && triangle[y * w + x] >= 0) pixel(y * w + x);
    }
  });
}

}  // namespace e3d
