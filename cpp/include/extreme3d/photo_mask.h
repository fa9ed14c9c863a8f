// photo_mask.h — which pixels of a crop the photo has, from where the photo's corners lie in it.
//
// What OpenCV's fillConvexPoly makes of the outline, boundary lines included, eroded by 3 × 3,
// since the outermost ring blends with the padding. So the shape of the rounding is OpenCV's:
// corners in 1/16 px, lines in 1/65536 px, pixel centres at integers. One in a thousand crops
// differs, in some ten pixels: where a corner lies just above the crop, OpenCV leaves gaps in the
// first row.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "extreme3d/types.h"

namespace e3d {

// Columns [first, last] of a row; none where first > last.
struct Span {
  std::int32_t first, last;
};

inline constexpr int kPhotoShift = 16;
inline constexpr std::int64_t kPhotoOne = 1 << kPhotoShift;
inline constexpr std::int64_t kPhotoHalf = kPhotoOne / 2;

struct FixedPoint {
  std::int64_t x, y;  // 1/65536 px
};

// Corners in the order round the photo.
struct PhotoQuad {
  FixedPoint corner[4];
};

// corners: (8,) x and y of each, in px of the crop whose pixels' centres are at + 0.5.
E3D_HD inline PhotoQuad photo_quad(View<const double> corners) {
  const auto fixed = [](double at) {
    return static_cast<std::int64_t>(std::rint(16.0 * (at - 0.5))) * (kPhotoOne / 16);
  };
  PhotoQuad quad;
  for (int k = 0; k < 4; ++k) quad.corner[k] = {fixed(corners[2 * k]), fixed(corners[2 * k + 1])};
  return quad;
}

E3D_HD inline std::int64_t nearest_pixel(std::int64_t at) {
  return (at + kPhotoHalf) >> kPhotoShift;
}

E3D_HD inline std::int64_t floor_ratio(std::int64_t a, std::int64_t positive) {
  return a >= 0 ? a / positive : -((positive - 1 - a) / positive);
}

E3D_HD inline void cover(std::int64_t first, std::int64_t last, int size, Span& span) {
  first = std::max<std::int64_t>(first, 0);
  last = std::min<std::int64_t>(last, size - 1);
  if (first > last) return;
  span.first = std::min(span.first, static_cast<std::int32_t>(first));
  span.last = std::max(span.last, static_cast<std::int32_t>(last));
}

// -1 before [0, most], 1 behind it, 0 within.
E3D_HD inline int side_of(std::int64_t at, std::int64_t most) {
  return at < 0 ? -1 : at > most ? 1 : 0;
}

// Moves an end of a line to where it enters [0, most] along one axis.
E3D_HD inline void clip_end(std::int64_t& along, std::int64_t& across, std::int64_t other_along,
                            std::int64_t other_across, std::int64_t most) {
  const int side = side_of(along, most);
  if (side == 0) return;
  const std::int64_t bound = side < 0 ? 0 : most;
  across += (bound - along) * (other_across - across) / (other_along - along);
  along = bound;
}

// The part of a line within [0, most]²; false where there is none.
E3D_HD inline bool clip_line(FixedPoint& a, FixedPoint& b, std::int64_t most) {
  if (side_of(a.x, most) * side_of(b.x, most) > 0) return false;
  if (side_of(a.y, most) * side_of(b.y, most) > 0) return false;
  clip_end(a.y, a.x, b.y, b.x, most);
  clip_end(b.y, b.x, a.y, a.x, most);
  if (side_of(a.x, most) * side_of(b.x, most) > 0) return false;
  clip_end(a.x, a.y, b.x, b.y, most);
  clip_end(b.x, b.y, a.x, a.y, most);
  return true;
}

// Pixels of a row on the line ab, which has one in each column, or in each row if it is steep.
E3D_HD inline void cover_line(FixedPoint a, FixedPoint b, int size, int row, Span& span) {
  if (!clip_line(a, b, size * kPhotoOne - 1)) return;
  const bool flat = std::abs(b.x - a.x) > std::abs(b.y - a.y);
  if (flat ? b.x < a.x : b.y < a.y) {
    const FixedPoint first = b;
    b = a;
    a = first;
  }
  const std::int64_t dx = b.x - a.x, dy = b.y - a.y;
  if (nearest_pixel(b.y) == row) cover(nearest_pixel(b.x), nearest_pixel(b.x), size, span);
  if (flat) {
    // columns k >= 0 from a, at the height y + k step
    const std::int64_t step = dy * kPhotoOne / (dx | 1), count = dx >> kPhotoShift;
    const std::int64_t y = a.y + kPhotoHalf - row * kPhotoOne;
    std::int64_t first = 0, last = count;
    if (step == 0 && (y < 0 || y >= kPhotoOne)) return;
    if (step > 0) {
      first = std::max<std::int64_t>(-floor_ratio(y, step), 0);
      last = std::min(floor_ratio(kPhotoOne - 1 - y, step), count);
    } else if (step < 0) {
      first = std::max<std::int64_t>(-floor_ratio(kPhotoOne - 1 - y, -step), 0);
      last = std::min(floor_ratio(y, -step), count);
    }
    const std::int64_t column = nearest_pixel(a.x);
    if (first <= last) cover(column + first, column + last, size, span);
  } else {
    const std::int64_t step = dx * kPhotoOne / (dy | 1), k = row - nearest_pixel(a.y);
    if (k < 0 || k > dy >> kPhotoShift) return;
    const std::int64_t column = nearest_pixel(a.x + k * step);
    cover(column, column, size, span);
  }
}

// Where the side of the quad that runs from its top corner in steps of `turn` corners crosses a
// row, 1/65536 px; false below the quad. Sides run from and to the rows nearest to their ends.
E3D_HD inline bool side_at(const PhotoQuad& quad, int top, int turn, int row, std::int64_t& x) {
  int from = top;
  std::int64_t y = nearest_pixel(quad.corner[top].y);
  for (int k = 0; k < 4; ++k) {
    const int to = (from + turn) % 4;
    const std::int64_t end = nearest_pixel(quad.corner[to].y);
    if (end > y && end > row) {
      const std::int64_t start = quad.corner[from].x, rows = end - y;
      const std::int64_t slope = (2 * (quad.corner[to].x - start) + rows) / (2 * rows);
      x = start + (row - y) * slope;
      return true;
    }
    if (end > y) y = end;
    from = to;
  }
  return false;
}

// Columns of a row of the crop, `size` px wide and high, that the photo's outline holds.
E3D_HD inline Span photo_row(const PhotoQuad& quad, int size, int row) {
  Span span{size, -1};
  int top = 0;
  for (int k = 0; k < 4; ++k) {
    cover_line(quad.corner[(k + 3) % 4], quad.corner[k], size, row, span);
    if (quad.corner[k].y < quad.corner[top].y) top = k;
  }
  std::int64_t a, b;
  if (row >= nearest_pixel(quad.corner[top].y) && side_at(quad, top, 1, row, a) &&
      side_at(quad, top, 3, row, b))
    cover(nearest_pixel(std::min(a, b)), nearest_pixel(std::max(a, b)), size, span);
  return span;
}

// Whether the photo has a pixel and all its neighbours in the crop.
E3D_HD inline bool is_in_photo(View<const Span> rows, int x, int y) {
  const int size = rows.n;
  const int left = std::max(x - 1, 0), right = std::min(x + 1, size - 1);
  for (int row = std::max(y - 1, 0); row <= std::min(y + 1, size - 1); ++row)
    if (rows[row].first > left || rows[row].last < right) return false;
  return true;
}

}  // namespace e3d
