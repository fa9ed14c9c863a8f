// crop.cu — squares cut from a photo: area averages, a Gaussian, and samples at the pixels' places.
#include <algorithm>
#include <cmath>

#include "extreme3d/cuda/crop.h"
#include "extreme3d/cuda/memory.h"

namespace e3d::cuda {
namespace {

// === Squares ===

// Gaussian weights are whole 1/256, as OpenCV's for 8-bit images. Those of a reduction by less than
// two reach 2 px; only slivers of a photo, narrower than an output pixel, are blurred more.
constexpr int kMaxRadius = 32;

// How a square is cut, from its transform and the sizes alone.
struct Plan {
  double part_from_out[6];      // pixel indices of the reduced part from those of the output
  int x0, y0;                   // of the part in the photo
  int factor;                   // whole-number reduction by area
  int width, height;            // of the part once reduced; 0 where the square shows no photo
  bool enlarges;                //
  int radius;                   // of the Gaussian
  int weights[kMaxRadius + 2];  // by distance from the middle, 0 beyond the radius
};

// Sets the Gaussian that takes out the reduction that is left, in [1, 2) but for slivers.
E3D_HD inline void plan_blur(Plan& plan, double reduction) {
  constexpr double kLeast = 1.1;  // below, aliasing does not show
  plan.radius = 0;
  plan.weights[0] = 256, plan.weights[1] = 0;
  if (!(reduction > kLeast)) return;
  const double sigma = 0.5 * std::sqrt(reduction * reduction - 1.0);
  const double taps = std::min(std::rint(6.0 * sigma + 1.0), 2.0 * kMaxRadius + 1.0);
  const int radius = static_cast<int>(taps) / 2;
  const auto gaussian = [&](int k) { return std::exp(-0.5 * k * k / (sigma * sigma)); };
  double sum = 1.0;
  for (int k = 1; k <= radius; ++k) sum += 2.0 * gaussian(k);
  // Inwards; what rounding takes off a weight goes to the next.
  double rest = 0.0;
  int given = 0;
  for (int k = radius; k > 0; --k) {
    const double exact = 256.0 * gaussian(k) / sum + rest;
    plan.weights[k] = static_cast<int>(std::rint(exact));
    rest = exact - plan.weights[k];
    given += 2 * plan.weights[k];
  }
  plan.weights[0] = 256 - given;
  plan.radius = radius;
  while (plan.radius > 0 && plan.weights[plan.radius] == 0) --plan.radius;
  plan.weights[plan.radius + 1] = 0;
}

E3D_HD inline Plan plan_square(View<const double> m, int width, int height, int size) {
  Plan plan;
  plan.width = plan.height = 0;
  const double determinant = m[0] * m[4] - m[1] * m[3];
  const double scale = std::sqrt(std::fabs(determinant));  // output px per photo px
  if (!(scale > 0.0 && std::isfinite(scale))) return plan;
  const double a = m[4] / determinant, b = -m[1] / determinant;
  const double c = -m[3] / determinant, d = m[0] / determinant;
  const double x = -a * m[2] - b * m[5], y = -c * m[2] - d * m[5];

  // Only the part of the photo under the output is touched; the margin feeds the filters.
  const double margin = 2.0 + 2.0 / scale;
  const auto low = [&](double at, double u, double v, int limit) {
    const double least = at + size * (std::min(u, 0.0) + std::min(v, 0.0));
    return static_cast<int>(std::min(std::max(std::floor(least - margin), 0.0), double(limit)));
  };
  const auto high = [&](double at, double u, double v, int limit) {
    const double most = at + size * (std::max(u, 0.0) + std::max(v, 0.0));
    return static_cast<int>(std::max(std::min(std::ceil(most + margin), double(limit)), 0.0));
  };
  plan.x0 = low(x, a, b, width);
  plan.y0 = low(y, c, d, height);
  const int part_width = high(x, a, b, width) - plan.x0;
  const int part_height = high(y, c, d, height) - plan.y0;
  if (part_width <= 0 || part_height <= 0) return plan;

  // Whole-number reduction by area first (exact), the rest by a Gaussian; the remainder at the far
  // border, less than one output pixel, is dropped.
  const int most = part_width < part_height ? part_width : part_height;
  plan.factor = static_cast<int>(std::max(std::min(1.0 / scale, double(most)), 1.0));
  plan.width = part_width / plan.factor;
  plan.height = part_height / plan.factor;
  plan_blur(plan, 1.0 / (scale * plan.factor));
  plan.enlarges = scale > 1.0;
  const double f = plan.factor;
  plan.part_from_out[0] = a / f, plan.part_from_out[1] = b / f;
  plan.part_from_out[2] = (x + 0.5 * (a + b) - plan.x0) / f - 0.5;
  plan.part_from_out[3] = c / f, plan.part_from_out[4] = d / f;
  plan.part_from_out[5] = (y + 0.5 * (c + d) - plan.y0) / f - 0.5;
  return plan;
}

// Of a reduced part. With a factor of f >= 2 the photo has less than f + 1 px to an output px, so
// the part spans, turned by 45 degrees, √2 size (f + 1) / f px and twice the margin (2 + 2 (f + 1))
// / f. A sliver is one px wide, and at most half a photo long.
int reduced_pixels(int size) {
  const int side = static_cast<int>(std::ceil(std::sqrt(2.0) * 1.5 * size)) + 10;
  return std::max(side * side, 16384);
}

struct Color {
  int r, g, b;
};
E3D_HD inline Color operator+(Color a, Color b) { return {a.r + b.r, a.g + b.g, a.b + b.b}; }
E3D_HD inline Color operator*(int s, Color a) { return {s * a.r, s * a.g, s * a.b}; }
E3D_HD inline Color color(Rgb c) { return {c.r, c.g, c.b}; }

E3D_HD inline std::uint8_t to_byte(float value) {
  return static_cast<std::uint8_t>(std::min(std::max(std::rint(value), 0.f), 255.f));
}

E3D_HD inline Rgb photo_at(ImageView<const Rgb> photo, int x, int y) {
  return photo.data[static_cast<std::int64_t>(y) * photo.width + x];
}

// Mean of the block of factor² photo pixels that reduced pixel (x, y) stands for.
E3D_HD inline Rgb block_mean(ImageView<const Rgb> photo, const Plan& plan, int x, int y) {
  const int f = plan.factor, left = plan.x0 + x * f, top = plan.y0 + y * f;
  Color sum{0, 0, 0};
  for (int j = 0; j < f; ++j)
    for (int i = 0; i < f; ++i) sum = sum + color(photo_at(photo, left + i, top + j));
  const float share = 1.f / static_cast<float>(f * f);
  // OpenCV rounds a half up in blocks of four, and to even in others.
  const auto mean = [&](int total) {
    return f == 2 ? static_cast<std::uint8_t>((total + 2) >> 2)
                  : to_byte(static_cast<float>(total) * share);
  };
  return {mean(sum.r), mean(sum.g), mean(sum.b)};
}

// The part of the photo that a square is sampled from, reduced where that is needed.
struct Part {
  ImageView<const Rgb> image;
  int x0, y0;
  E3D_HD Rgb at(int x, int y) const { return photo_at(image, x0 + x, y0 + y); }
};

E3D_HD inline int clamped(int i, int n) { return i < 0 ? 0 : i < n ? i : n - 1; }

// The blurred pixels (x, y), (x + 1, y), (x, y + 1), (x + 1, y + 1) of the part; black beyond it.
E3D_HD inline void blurred_block(const Part& part, const Plan& plan, int x, int y, Rgb* out) {
  const int r = plan.radius;
  Color sums[4] = {};
  for (int j = -r; j <= r + 1; ++j) {
    const int row = clamped(y + j, plan.height);
    Color left{0, 0, 0}, right{0, 0, 0};
    for (int i = -r; i <= r + 1; ++i) {
      const Color c = color(part.at(clamped(x + i, plan.width), row));
      left = left + plan.weights[i < 0 ? -i : i] * c;
      right = right + plan.weights[i < 1 ? 1 - i : i - 1] * c;
    }
    const int above = plan.weights[j < 0 ? -j : j], below = plan.weights[j < 1 ? 1 - j : j - 1];
    sums[0] = sums[0] + above * left;
    sums[1] = sums[1] + above * right;
    sums[2] = sums[2] + below * left;
    sums[3] = sums[3] + below * right;
  }
  const auto byte = [](int sum) { return static_cast<std::uint8_t>((sum + (1 << 15)) >> 16); };
  for (int k = 0; k < 4; ++k) {
    const int px = x + (k & 1), py = y + (k >> 1);
    const bool inside = px >= 0 && py >= 0 && px < plan.width && py < plan.height;
    out[k] = inside ? Rgb{byte(sums[k].r), byte(sums[k].g), byte(sums[k].b)} : Rgb{0, 0, 0};
  }
}

// Weights of four pixels round a place t in [0, 1] between the middle two (Keys, a = -0.75).
E3D_HD inline void cubic_weights(float t, float* w) {
  constexpr float kA = -0.75f;
  const float before = t + 1.f, after = 1.f - t;
  w[0] = ((kA * before - 5.f * kA) * before + 8.f * kA) * before - 4.f * kA;
  w[1] = ((kA + 2.f) * t - (kA + 3.f)) * t * t + 1.f;
  w[2] = ((kA + 2.f) * after - (kA + 3.f)) * after * after + 1.f;
  w[3] = 1.f - w[0] - w[1] - w[2];
}

E3D_HD inline Vec3 vector(Rgb c) { return {float(c.r), float(c.g), float(c.b)}; }

E3D_HD inline Rgb sample(const Part& part, const Plan& plan, int i, int j) {
  const double* m = plan.part_from_out;
  const double x = m[0] * i + m[1] * j + m[2], y = m[3] * i + m[4] * j + m[5];
  const double floor_x = std::floor(x), floor_y = std::floor(y);
  const int reach = plan.enlarges ? 2 : 1;  // px that count before and after the place
  if (!(floor_x >= -reach && floor_y >= -reach && floor_x < plan.width + reach &&
        floor_y < plan.height + reach))
    return {0, 0, 0};
  const int x0 = static_cast<int>(floor_x), y0 = static_cast<int>(floor_y);
  const float tx = static_cast<float>(x - floor_x), ty = static_cast<float>(y - floor_y);
  Vec3 sum{0.f, 0.f, 0.f};
  if (plan.enlarges) {
    float wx[4], wy[4];
    cubic_weights(tx, wx);
    cubic_weights(ty, wy);
    for (int k = 0; k < 16; ++k) {
      const int px = x0 - 1 + (k & 3), py = y0 - 1 + (k >> 2);
      if (px < 0 || py < 0 || px >= plan.width || py >= plan.height) continue;
      sum = sum + (wx[k & 3] * wy[k >> 2]) * vector(part.at(px, py));
    }
  } else {
    Rgb block[4];
    blurred_block(part, plan, x0, y0, block);
    const Vec3 above = vector(block[0]) + tx * (vector(block[1]) - vector(block[0]));
    const Vec3 below = vector(block[2]) + tx * (vector(block[3]) - vector(block[2]));
    sum = above + ty * (below - above);
  }
  return {to_byte(sum.x), to_byte(sum.y), to_byte(sum.z)};
}

E3D_HD inline Vec3 prepared(Rgb c, Preparation p) {
  return {(float(c.r) - p.mean) * p.inverse_std, (float(c.g) - p.mean) * p.inverse_std,
          (float(c.b) - p.mean) * p.inverse_std};
}

E3D_KERNEL plan_kernel(View<const double> out_from_image, int width, int height, int size,
                       View<Plan> plans) {
  const int k = thread_index();
  if (k < plans.n) plans[k] = plan_square({out_from_image.data + 9 * k, 9}, width, height, size);
}

// reduced: (n, each) pixels of the parts that are reduced.
E3D_KERNEL reduce_kernel(ImageView<const Rgb> photo, View<const Plan> plans, View<Rgb> reduced,
                         int each) {
  const int at = thread_index();
  if (at >= reduced.n) return;
  const Plan& plan = plans[at / each];
  const int p = at % each;
  if (plan.width == 0 || plan.factor == 1 || p >= plan.width * plan.height) return;
  reduced[at] = block_mean(photo, plan, p % plan.width, p / plan.width);
}

E3D_KERNEL sample_kernel(ImageView<const Rgb> photo, View<const Plan> plans,
                         View<const Rgb> reduced, int each, int size, View<Rgb> crops,
                         View<Vec3> inputs, Preparation preparation) {
  const int at = thread_index(), square = size * size;
  if (at >= plans.n * square) return;
  const Plan& plan = plans[at / square];
  const int p = at % square;
  Rgb c{0, 0, 0};
  if (plan.width > 0) {
    const Part part = plan.factor > 1
                          ? Part{{reduced.data + static_cast<std::int64_t>(at / square) * each,
                                  plan.width, plan.height},
                                 0,
                                 0}
                          : Part{photo, plan.x0, plan.y0};
    c = sample(part, plan, p % size, p / size);
  }
  if (crops.n) crops[at] = c;
  if (inputs.n) inputs[at] = prepared(c, preparation);
}

// === Letterbox ===

// The pixels of a line of n that one of its `out` resized pixels is made of: first, inner, last.
struct Span {
  int begin, end;
  float first, inner, last;  // weights; a single pixel has the first one
  E3D_HD float weight(int i) const { return i == begin ? first : i + 1 == end ? last : inner; }
};

// Shares of area where the line shrinks; where it grows OpenCV's "area" is linear between pixels
// but for a flat stretch in each.
E3D_HD inline Span span(int at, int n, int out, bool shrinks) {
  const double scale = static_cast<double>(n) / out;
  if (!shrinks) {
    const int begin = static_cast<int>(std::floor(at * scale));
    const double place = (at + 1) - (begin + 1) / scale;
    if (begin + 1 >= n || place <= 0.0) return {begin, begin + 1, 1.f, 0.f, 0.f};
    const float t = static_cast<float>(place - std::floor(place));
    return {begin, begin + 2, 1.f - t, 0.f, t};
  }
  constexpr double kLeast = 1e-3;  // px; OpenCV leaves less out
  const double from = at * scale, to = from + scale;
  const double cell = std::min(scale, n - from);
  int begin = static_cast<int>(std::ceil(from)), end = static_cast<int>(std::floor(to));
  end = end < n ? end : n - 1;
  begin = begin < end ? begin : end;
  Span s{begin, end, static_cast<float>(1.0 / cell), static_cast<float>(1.0 / cell),
         static_cast<float>(1.0 / cell)};
  if (begin - from > kLeast) {
    s.begin = begin - 1;
    s.first = static_cast<float>((begin - from) / cell);
  }
  if (to - end > kLeast) {
    s.end = end + 1;
    s.last = static_cast<float>(std::min(std::min(to - end, 1.0), cell) / cell);
    if (s.end - s.begin == 1) s.first = s.last;
  }
  return s;
}

// Where the photo lies in the square.
struct Frame {
  int left, top, width, height;
  bool shrinks;
};

Frame frame_of(int width, int height, int size) {
  const double scale = static_cast<double>(size) / std::max(width, height);
  const auto side = [&](int n) { return std::max(1, static_cast<int>(std::rint(n * scale))); };
  const int w = side(width), h = side(height);
  return {(size - w) / 2, (size - h) / 2, w, h, w <= width && h <= height};
}

// rows: (frame height, 3 photo width), averages of the photo's rows. A thread a byte of the row:
// neighbours read neighbours.
E3D_KERNEL average_rows_kernel(ImageView<const Rgb> photo, Frame frame, View<float> rows) {
  const int at = thread_index();
  if (at >= rows.n) return;
  const int line = 3 * photo.width, byte = at % line;
  const Span s = span(at / line, photo.height, frame.height, frame.shrinks);
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(photo.data);
  float sum = 0.f;
  for (int y = s.begin; y < s.end; ++y)
    sum += s.weight(y) * bytes[static_cast<std::int64_t>(y) * line + byte];
  rows[at] = sum;
}

E3D_KERNEL average_columns_kernel(View<const float> rows, int photo_width, Frame frame,
                                  ImageView<Vec3> out, Preparation preparation) {
  const int at = thread_index();  // a thread a channel
  if (at >= 3 * out.width * out.height) return;
  const int p = at / 3, channel = at % 3;
  const int x = p % out.width - frame.left, y = p / out.width - frame.top;
  float value = 0.f;
  if (x >= 0 && y >= 0 && x < frame.width && y < frame.height) {
    const Span s = span(x, photo_width, frame.width, frame.shrinks);
    float sum = 0.f;
    for (int i = s.begin; i < s.end; ++i)
      sum += s.weight(i) * rows[3 * (y * photo_width + i) + channel];
    value = to_byte(sum);
  }
  float* to = reinterpret_cast<float*>(out.data);
  to[at] = (value - preparation.mean) * preparation.inverse_std;
}

}  // namespace

struct Warper::Internals {
  int max_size, max_squares;
  DeviceArray<Plan> plans;
  DeviceArray<Rgb> reduced;
};

Warper::Warper(int max_size, int max_squares)
    : internals_(
          new Internals{max_size, max_squares, DeviceArray<Plan>(max_squares),
                        DeviceArray<Rgb>(std::size_t(max_squares) * reduced_pixels(max_size))}) {}
Warper::~Warper() = default;

int Warper::max_size() const { return internals_->max_size; }
int Warper::max_squares() const { return internals_->max_squares; }

void Warper::warp(ImageView<const Rgb> photo, View<const double> out_from_image, int size,
                  View<Rgb> crops, View<Vec3> inputs, Preparation preparation, Stream s) const {
  const int n = out_from_image.n / 9, each = reduced_pixels(size);
  const View<Plan> plans{internals_->plans.data(), n};
  const View<const Plan> planned{plans.data, n};
  const View<Rgb> reduced{internals_->reduced.data(), n * each};
  launch(plan_kernel, n, s, out_from_image, photo.width, photo.height, size, plans);
  launch(reduce_kernel, reduced.n, s, photo, planned, reduced, each);
  launch(sample_kernel, n * size * size, s, photo, planned,
         View<const Rgb>{reduced.data, reduced.n}, each, size, crops, inputs, preparation);
}

struct Letterbox::Internals {
  int size, max_side;
  DeviceArray<float> rows;
};

Letterbox::Letterbox(int size, int max_side)
    : internals_(
          new Internals{size, max_side, DeviceArray<float>(std::size_t(size) * max_side * 3)}) {}
Letterbox::~Letterbox() = default;

int Letterbox::size() const { return internals_->size; }
int Letterbox::max_side() const { return internals_->max_side; }

void Letterbox::fit(ImageView<const Rgb> photo, ImageView<Vec3> out, Preparation preparation,
                    Stream s) const {
  const Frame frame = frame_of(photo.width, photo.height, out.width);
  const View<float> rows{internals_->rows.data(), frame.height * photo.width * 3};
  launch(average_rows_kernel, rows.n, s, photo, frame, rows);
  launch(average_columns_kernel, 3 * out.width * out.height, s,
         View<const float>{rows.data, rows.n}, photo.width, frame, out, preparation);
}

}  // namespace e3d::cuda
