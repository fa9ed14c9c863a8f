// occlusion.cpp — holes from runs of pixels, and the window of a map in which they are filled.
#include "extreme3d/occlusion.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "extreme3d/parallel.h"
#include "extreme3d/runs.h"

namespace e3d {
namespace {

constexpr int kRowGrain = 64;

// Chamfer distance in 1/65536 px, as OpenCV's 5 × 5 mask has it.
std::int64_t chamfer(std::int64_t x, std::int64_t y) {
  constexpr std::int64_t kSide = 65536, kDiagonal = 91750, kKnight = 143976;
  const std::int64_t a = std::max(x, y), b = std::min(x, y);
  return 2 * b <= a ? b * kKnight + (a - 2 * b) * kSide
                    : (a - b) * kKnight + (2 * b - a) * kDiagonal;
}

// Sum of n numbers, in an order that is always the same.
double sum(const float* values, int n) {
  constexpr int kLanes = 16;
  float lanes[kLanes] = {};
  const int whole = n / kLanes * kLanes;
  for (int i = 0; i < whole; i += kLanes)
    for (int k = 0; k < kLanes; ++k) lanes[k] += values[i + k];
  double total = 0.0;
  for (int i = whole; i < n; ++i) total += values[i];
  for (const float lane : lanes) total += lane;
  return total;
}

// Number of pixels of each run's component.
std::vector<int> component_sizes(std::vector<Run>& runs) {
  std::vector<int> size(runs.size(), 0);
  for (int r = 0; r < static_cast<int>(runs.size()); ++r)
    size[find_root(runs, r)] += runs[r].x1 - runs[r].x0;
  for (int r = 0; r < static_cast<int>(runs.size()); ++r) size[r] = size[find_root(runs, r)];
  return size;
}

template <class T>
T* row_of(ImageView<T> image, int y) {
  return image.data + static_cast<std::size_t>(y) * image.width;
}

// Half open.
struct Box {
  int x0, y0, x1, y1;
};

// All finite, but for what is not used.
bool are_finite(const float* __restrict values, const std::uint8_t* __restrict used, int n) {
  int bad = 0;
  for (int i = 0; i < n; ++i)
    bad |= int(used[i] != 0) & int(!(std::fabs(values[i]) <= std::numeric_limits<float>::max()));
  return !bad;
}

// The following work on n pixels of a row; compilers make vectors of them.

// Of the face, but not seen; whether any is.
bool mark_hidden(const float* __restrict weight, const std::uint8_t* __restrict seen, int n,
                 std::uint8_t* __restrict hidden) {
  int any = 0;
  for (int x = 0; x < n; ++x) {
    hidden[x] = (weight[x] > 0.f) & !seen[x];
    any |= hidden[x];
  }
  return any != 0;
}

// Of the face, and in a hole; whether any is.
bool mark_unknown(const float* __restrict weight, const std::uint8_t* __restrict hole, int n,
                  std::uint8_t* __restrict unknown) {
  int any = 0;
  for (int x = 0; x < n; ++x) {
    unknown[x] = (hole[x] != 0) & (weight[x] > 0.f);
    any |= unknown[x];
  }
  return any != 0;
}

void mark_told(const float* __restrict weight, const std::uint8_t* __restrict hidden, int n,
               std::uint8_t* __restrict told) {
  for (int x = 0; x < n; ++x) told[x] = is_told(weight[x], hidden[x]);
}

// What is told or unknown, and valid; whether any is.
bool mark_used(const std::uint8_t* __restrict valid, const std::uint8_t* __restrict unknown, int n,
               std::uint8_t* __restrict told) {
  int any = 0;
  for (int x = 0; x < n; ++x) {
    told[x] = (valid[x] != 0) & (told[x] | unknown[x]);
    any |= told[x];
  }
  return any != 0;
}

// Divided by 1 where it is not told.
void divide(const float* __restrict mm, const float* __restrict weight,
            const std::uint8_t* __restrict told, int n, float* __restrict out) {
  for (int x = 0; x < n; ++x) out[x] = (told[x] ? mm[x] : 0.f) / (told[x] ? weight[x] : 1.f);
}

void require(bool finite, const char* message) {
  if (!finite) throw std::invalid_argument(message);
}

constexpr char kBumpNotFinite[] = "`bump` should be finite where it is known, has NaN or infinity";
constexpr char kBorrowedNotFinite[] =
    "`borrowed` should be finite where it is used, has NaN or infinity";

}  // namespace

std::vector<int> disc_half_widths(double radius) {
  const auto reach = [&](std::int64_t x, std::int64_t y) {
    return static_cast<float>(static_cast<double>(chamfer(x, y)) / 65536.0) <=
           static_cast<float>(radius);
  };
  std::vector<int> half_widths;
  for (int y = 0; reach(0, y); ++y) {
    int x = 0;
    while (reach(x + 1, y)) ++x;
    half_widths.push_back(x);
  }
  return half_widths;
}

double find_holes(ImageView<const std::uint8_t> face_mask, ImageView<const float> weight,
                  ImageView<std::uint8_t> hole) {
  const int width = weight.width, height = weight.height;
  const double scale = width / kHoleCropSize;
  std::fill_n(hole.data, static_cast<std::size_t>(width) * height, std::uint8_t{0});
  double face = 0.0, lost = 0.0;
  std::vector<float> lost_weight(width);
  std::vector<Run> hidden =
      find_runs(width, height, Connectivity::kEight, [&](int y, std::uint8_t* row) {
        const float* w = row_of(weight, y);
        const std::uint8_t* seen = row_of(face_mask, y);
        const bool any = mark_hidden(w, seen, width, row);
        face += sum(w, width);
        if (!any) return false;
        for (int x = 0; x < width; ++x) lost_weight[x] = row[x] ? w[x] : 0.f;
        lost += sum(lost_weight.data(), width);
        return true;
      });
  const double fraction = face > 0.0 ? lost / face : 0.0;

  const std::vector<int> half_widths = disc_half_widths(kTrustMargin * scale);
  const int reach = static_cast<int>(half_widths.size()) - 1;
  const std::vector<int> sizes = component_sizes(hidden);
  bool grown = false;
  for (std::size_t r = 0; r < hidden.size(); ++r) {
    if (sizes[r] < kMinHole * scale * scale) continue;
    grown = true;
    const Run& run = hidden[r];
    for (int y = std::max(run.y - reach, 0); y <= std::min(run.y + reach, height - 1); ++y) {
      const int half = half_widths[std::abs(y - run.y)];
      const int first = std::max(run.x0 - half, 0), end = std::min(run.x1 + half, width);
      std::fill_n(row_of(hole, y) + first, end - first, std::uint8_t{1});
    }
  }
  if (!grown) return fraction;

  std::vector<Run> islands =
      find_runs(width, height, Connectivity::kFour, [&](int y, std::uint8_t* row) {
        const float* w = row_of(weight, y);
        std::uint8_t* h = row_of(hole, y);
        const bool any = mark_hidden(w, h, width, row);
        for (int x = 0; x < width; ++x) h[x] = (h[x] != 0) & (w[x] > 0.f);
        return any;
      });
  const std::vector<int> island_sizes = component_sizes(islands);
  for (std::size_t r = 0; r < islands.size(); ++r) {
    if (!(island_sizes[r] < kMinSeen * scale * scale)) continue;
    const Run& run = islands[r];
    std::fill_n(row_of(hole, run.y) + run.x0, run.x1 - run.x0, std::uint8_t{1});
  }
  return fraction;
}

void unfade(ImageView<const float> bump, ImageView<const float> weight,
            ImageView<const std::uint8_t> hole, int threads, ImageView<float> out,
            ImageView<std::uint8_t> known) {
  std::atomic<bool> finite{true};
  parallel_for(bump.height, threads, kRowGrain, [&](int begin, int end) {
    for (int y = begin; y < end; ++y) {
      const float* mm = row_of(bump, y);
      const float* w = row_of(weight, y);
      const std::uint8_t* hidden = row_of(hole, y);
      float* to = row_of(out, y);
      std::uint8_t* told = row_of(known, y);
      mark_told(w, hidden, bump.width, told);
      divide(mm, w, told, bump.width, to);
      if (!are_finite(mm, told, bump.width)) finite = false;
    }
  });
  require(finite, kBumpNotFinite);
}

void fill_bump(const FillMaps& maps, int threads, ImageView<float> out) {
  const int width = out.width, height = out.height;
  // the columns of what is unknown, row by row
  std::vector<std::array<int, 2>> spans(height, {width, 0});
  std::atomic<bool> bump_finite{true}, borrowed_finite{true};
  parallel_for(height, threads, kRowGrain, [&](int begin, int end) {
    std::vector<std::uint8_t> unknown(width), used(width);
    for (int y = begin; y < end; ++y) {
      const float* w = row_of(maps.weight, y);
      const bool any = mark_unknown(w, row_of(maps.hole, y), width, unknown.data());
      mark_told(w, unknown.data(), width, used.data());
      if (!are_finite(row_of(maps.bump, y), used.data(), width)) bump_finite = false;
      std::copy_n(row_of(maps.bump, y), width, row_of(out, y));
      if (mark_used(row_of(maps.valid, y), unknown.data(), width, used.data()) &&
          !are_finite(row_of(maps.borrowed, y), used.data(), width))
        borrowed_finite = false;
      if (!any) continue;
      const auto first = std::find(unknown.begin(), unknown.end(), 1);
      const auto last = std::find(unknown.rbegin(), unknown.rend(), 1);
      spans[y] = {static_cast<int>(first - unknown.begin()),
                  static_cast<int>(unknown.rend() - last)};
    }
  });
  require(bump_finite, kBumpNotFinite);
  require(borrowed_finite, kBorrowedNotFinite);
  Box box{width, height, 0, 0};
  for (int y = 0; y < height; ++y) {
    if (spans[y][0] >= spans[y][1]) continue;
    box = {std::min(box.x0, spans[y][0]), std::min(box.y0, y), std::max(box.x1, spans[y][1]),
           y + 1};
  }
  if (box.x0 >= box.x1) return;
  // a window with one pixel round the unknown ones, which is all that they depend on
  const Box in{std::max(box.x0 - 1, 0), std::max(box.y0 - 1, 0), std::min(box.x1 + 1, width),
               std::min(box.y1 + 1, height)};
  const int w = in.x1 - in.x0, h = in.y1 - in.y0;
  const std::size_t n = static_cast<std::size_t>(w) * h;
  std::vector<float> values(n), guidance(n), blended(n);
  std::vector<std::uint8_t> known(n), region(n), guided(n);
  for (int y = 0; y < h; ++y) {
    const std::size_t from = static_cast<std::size_t>(y + in.y0) * width + in.x0;
    const std::size_t to = static_cast<std::size_t>(y) * w;
    const float* weight = maps.weight.data + from;
    mark_unknown(weight, maps.hole.data + from, w, region.data() + to);
    mark_told(weight, region.data() + to, w, known.data() + to);
    divide(maps.bump.data + from, weight, known.data() + to, w, values.data() + to);
    for (std::size_t i = to; i < to + w; ++i) region[i] |= known[i];
    std::copy_n(maps.borrowed.data + from, w, guidance.data() + to);
    std::copy_n(maps.valid.data + from, w, guided.data() + to);
  }
  blend_gradients({{values.data(), w, h},
                   {known.data(), w, h},
                   {region.data(), w, h},
                   {guidance.data(), w, h},
                   {guided.data(), w, h}},
                  kFillTolerance, {blended.data(), w, h});
  for (int y = 0; y < h; ++y) {
    const std::size_t at = static_cast<std::size_t>(y + in.y0) * width + in.x0;
    const std::size_t from = static_cast<std::size_t>(y) * w;
    for (int x = 0; x < w; ++x)
      if (region[from + x] && !known[from + x])
        out[at + x] = blended[from + x] * maps.weight[at + x];
  }
}

}  // namespace e3d
