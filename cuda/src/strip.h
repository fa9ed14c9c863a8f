// strip.h — triangles of a strip whose points all lie on its border, each found by itself.
//
// Lee, Lin. Generalized Delaunay triangulation for planar graphs. 1986. The third corner of the
// triangle on an edge's left is, among the points that both ends see, the one whose circle with
// them holds no other. Ties between cocircular points, of which a pixel grid is full, are broken as
// if each point were raised off the paraboloid by its own amount, the most for the lowest number:
// then all threads agree on one triangulation. Orientation is exact.
#pragma once

#include <cmath>
#include <cstdint>

#include "extreme3d/rasterize.h"
#include "extreme3d/triangulate.h"

namespace e3d::cuda {

// A boundary edge with its ends, numbered over both sides. The strip lies on its left.
struct Segment {
  PlanarPoint a, b;
  std::int32_t from, to;
};

inline constexpr int kBucketBits = kSubPixelBits + 1;  // buckets of 2 x 2 px
inline constexpr int kBucketRoom = 32;
inline constexpr int kReach = 32;  // buckets that a search goes to each side

// Segments by the buckets that their boxes meet.
struct StripGrid {
  View<Segment> segments;
  View<std::int32_t> counts;   // of each bucket; may exceed the room
  View<std::int32_t> entries;  // kBucketRoom a bucket
  int columns, rows;           // of one side

  E3D_HD int column(std::int32_t x) const { return clamp_to(x >> kBucketBits, columns); }
  E3D_HD int row(std::int32_t y) const { return clamp_to(-y >> kBucketBits, rows); }
  E3D_HD static int clamp_to(int i, int n) { return i < 0 ? 0 : i < n ? i : n - 1; }

  // Visits segments of buckets [x0, x1] x [y0, y1], some of them more than once, until
  // visit(segment) is true; tells whether one was.
  template <class Visit>
  E3D_HD bool any(int side, int x0, int y0, int x1, int y1, const Visit& visit) const {
    for (int y = y0; y <= y1; ++y)
      for (int x = x0; x <= x1; ++x) {
        const int bucket = (side * rows + y) * columns + x;
        const int n = counts[bucket] < kBucketRoom ? counts[bucket] : kBucketRoom;
        for (int i = 0; i < n; ++i)
          if (visit(segments[entries[bucket * kBucketRoom + i]])) return true;
      }
    return false;
  }
  // Of the buckets that the segment (p, q) meets.
  template <class Visit>
  E3D_HD bool any_along(int side, PlanarPoint p, PlanarPoint q, const Visit& visit) const {
    const PlanarPoint low = p.y < q.y ? p : q, high = p.y < q.y ? q : p;
    const int y0 = row(high.y), y1 = row(low.y);
    const float slope = y0 == y1 ? 0.f : float(high.x - low.x) / float(high.y - low.y);
    for (int y = y0; y <= y1; ++y) {
      // where it enters and leaves the row, to a unit
      const float up = y == y0 ? high.y - low.y : float(-(y << kBucketBits) - low.y);
      const float down = y == y1 ? 0.f : float(-((y + 1) << kBucketBits) - low.y);
      const int from = low.x + static_cast<int>(slope * down);
      const int to = y0 == y1 ? high.x : low.x + static_cast<int>(slope * up);
      const int x0 = column((from < to ? from : to) - 2), x1 = column((from > to ? from : to) + 2);
      if (any(side, x0, y, x1, y, visit)) return true;
    }
    return false;
  }
};

// Twice the signed area of (a, b, c); positive when counter-clockwise.
E3D_HD inline std::int64_t orient(PlanarPoint a, PlanarPoint b, PlanarPoint c) {
  return std::int64_t(b.x - a.x) * (c.y - a.y) - std::int64_t(b.y - a.y) * (c.x - a.x);
}

// q, on the line through a and b, is strictly between them.
E3D_HD inline bool between(PlanarPoint a, PlanarPoint b, PlanarPoint q) {
  return std::int64_t(a.x - q.x) * (b.x - q.x) + std::int64_t(a.y - q.y) * (b.y - q.y) < 0;
}

// The segment crosses (p, q) or ends on it, other than in p or q.
E3D_HD inline bool blocks(const Segment& s, int p_id, PlanarPoint p, int q_id, PlanarPoint q) {
  const bool a_shared = s.from == p_id || s.from == q_id;
  const bool b_shared = s.to == p_id || s.to == q_id;
  if (a_shared && b_shared) return false;
  const std::int64_t a = orient(p, q, s.a), b = orient(p, q, s.b);
  if (a == 0 && !a_shared && between(p, q, s.a)) return true;
  if (b == 0 && !b_shared && between(p, q, s.b)) return true;
  if (a_shared || b_shared || !((a > 0 && b < 0) || (a < 0 && b > 0))) return false;
  const std::int64_t c = orient(s.a, s.b, p), d = orient(s.a, s.b, q);
  return (c > 0 && d < 0) || (c < 0 && d > 0);
}

struct StripPoint {
  std::int32_t id;  // -1 for none
  PlanarPoint at;
};

// `wall`: what blocked the view last, asked first since it often does again; none to begin with.
E3D_HD inline bool sees(const StripGrid& grid, int side, StripPoint p, StripPoint q,
                        Segment* wall) {
  if (wall->from >= 0 && blocks(*wall, p.id, p.at, q.id, q.at)) return false;
  return !grid.any_along(side, p.at, q.at, [&](const Segment& s) {
    if (!blocks(s, p.id, p.at, q.id, q.at)) return false;
    *wall = s;
    return true;
  });
}

// Sign of the in-circle determinant of the counter-clockwise (a, b, c): d inside is positive.
// Exact within 64 px; beyond, what is not certain counts as a tie.
E3D_HD inline int in_circle_sign(PlanarPoint a, PlanarPoint b, PlanarPoint c, PlanarPoint d) {
  const std::int64_t ax = a.x - d.x, ay = a.y - d.y, bx = b.x - d.x, by = b.y - d.y;
  const std::int64_t cx = c.x - d.x, cy = c.y - d.y;
  const auto small = [](std::int64_t v) { return v <= 1 << 14 && v >= -(1 << 14); };
  if (small(ax) && small(ay) && small(bx) && small(by) && small(cx) && small(cy)) {
    const std::int64_t a2 = ax * ax + ay * ay, b2 = bx * bx + by * by, c2 = cx * cx + cy * cy;
    const std::int64_t det =
        ax * (by * c2 - b2 * cy) - ay * (bx * c2 - b2 * cx) + a2 * (bx * cy - by * cx);
    return (det > 0) - (det < 0);
  }
  const double a2 = double(ax * ax + ay * ay), b2 = double(bx * bx + by * by);
  const double c2 = double(cx * cx + cy * cy);
  const double det = double(ax) * (double(by) * c2 - b2 * double(cy)) -
                     double(ay) * (double(bx) * c2 - b2 * double(cx)) +
                     a2 * double(bx * cy - by * cx);
  const double scale = a2 > b2 ? (a2 > c2 ? a2 : c2) : (b2 > c2 ? b2 : c2);
  const double doubt = 1e-13 * scale * scale;
  return (det > doubt) - (det < -doubt);
}

// Point d replaces c as third corner of the edge (a, b); both lie left of it.
E3D_HD inline bool replaces(int a_id, PlanarPoint a, int b_id, PlanarPoint b, int c_id,
                            PlanarPoint c, int d_id, PlanarPoint d) {
  const int sign = in_circle_sign(a, b, c, d);
  if (sign != 0) return sign > 0;
  if (d_id < a_id && d_id < b_id && d_id < c_id) return false;  // raised, hence outside
  if (c_id < a_id && c_id < b_id) return true;
  // a raised end tips the plane about the line through the two others
  if (a_id < b_id) return (orient(b, c, a) > 0) == (orient(b, c, d) > 0);
  return (orient(c, a, b) > 0) == (orient(c, a, d) > 0);
}

struct Box {
  double x0, y0, x1, y1;
};

// Box of the part of the circle through the counter-clockwise (a, b, c) that lies left of (a, b).
E3D_HD inline Box box_of_cap(PlanarPoint a, PlanarPoint b, PlanarPoint c) {
  const double bx = b.x - a.x, by = b.y - a.y, cx = c.x - a.x, cy = c.y - a.y;
  const double b2 = bx * bx + by * by, c2 = cx * cx + cy * cy, d = 2 * (bx * cy - by * cx);
  const double ux = (cy * b2 - by * c2) / d, uy = (bx * c2 - cx * b2) / d;  // centre from a
  const double r = std::sqrt(ux * ux + uy * uy) * (1 + 1e-9) + 1;
  if (bx * uy - by * ux >= 0) return {a.x + ux - r, a.y + uy - r, a.x + ux + r, a.y + uy + r};
  const double height = r + (bx * uy - by * ux) / std::sqrt(b2);
  return {(a.x < b.x ? a.x : b.x) - height - 1, (a.y < b.y ? a.y : b.y) - height - 1,
          (a.x > b.x ? a.x : b.x) + height + 1, (a.y > b.y ? a.y : b.y) + height + 1};
}

// Buckets, both ends included.
struct BucketBox {
  int x0, y0, x1, y1;
  E3D_HD int area() const { return (x1 - x0 + 1) * (y1 - y0 + 1); }
  E3D_HD bool holds(const BucketBox& o) const {
    return x0 <= o.x0 && y0 <= o.y0 && x1 >= o.x1 && y1 >= o.y1;
  }
};

E3D_HD inline BucketBox buckets_around(const StripGrid& grid, PlanarPoint p, int reach) {
  const int x = grid.column(p.x), y = grid.row(p.y);
  return {grid.clamp_to(x - reach, grid.columns), grid.clamp_to(y - reach, grid.rows),
          grid.clamp_to(x + reach, grid.columns), grid.clamp_to(y + reach, grid.rows)};
}

E3D_HD inline BucketBox buckets_of(const StripGrid& grid, const Box& box) {
  const auto bucket = [](double at, int n) {
    const double i = std::floor(at / (1 << kBucketBits));
    return i < 0 ? 0 : i < n ? static_cast<int>(i) : n - 1;
  };
  return {bucket(box.x0, grid.columns), bucket(-box.y1, grid.rows), bucket(box.x1, grid.columns),
          bucket(-box.y0, grid.rows)};
}

// What hides points from the two ends of an edge.
struct Walls {
  Segment of_a, of_b;
};
inline constexpr Segment kNoWall{{0, 0}, {0, 0}, -1, -1};

E3D_HD inline bool sees_both(const StripGrid& grid, int side, StripPoint a, StripPoint b,
                             StripPoint c, Walls* walls) {
  return sees(grid, side, a, c, &walls->of_a) && sees(grid, side, b, c, &walls->of_b);
}

// Of `best` and the points of some buckets left of (a, b), the one that no other replaces; with
// walls, of those that a and b see.
E3D_HD inline StripPoint best_corner(const StripGrid& grid, int side, StripPoint a, StripPoint b,
                                     const BucketBox& box, Walls* walls, StripPoint best) {
  grid.any(side, box.x0, box.y0, box.x1, box.y1, [&](const Segment& s) {
    const StripPoint c{s.from, s.a};
    if (c.id == a.id || c.id == b.id || c.id == best.id || orient(a.at, b.at, c.at) <= 0)
      return false;
    if (best.id >= 0 && !replaces(a.id, a.at, b.id, b.at, best.id, best.at, c.id, c.at))
      return false;
    if (!walls || sees_both(grid, side, a, b, c, walls)) best = c;
    return false;
  });
  return best;
}

// Third corner of the triangle left of (a, b). What replaces a corner lies in the cap of its
// circle, so that its buckets decide once there is one.
E3D_HD inline StripPoint apex(const StripGrid& grid, int side, StripPoint a, StripPoint b) {
  const StripPoint none{-1, {0, 0}};
  const PlanarPoint middle{(a.at.x + b.at.x) / 2, (a.at.y + b.at.y) / 2};
  StripPoint best = none;
  Walls walls{kNoWall, kNoWall};
  for (int reach = 1; reach <= kReach; reach *= 2) {
    const BucketBox box = buckets_around(grid, middle, reach);
    if (best.id < 0) {  // mostly the best one of all is seen; to ask whether each is takes longer
      best = best_corner(grid, side, a, b, box, nullptr, none);
      if (best.id >= 0 && !sees_both(grid, side, a, b, best, &walls))
        best = best_corner(grid, side, a, b, box, &walls, none);
    } else {
      best = best_corner(grid, side, a, b, box, &walls, best);
    }
    if (best.id < 0) continue;
    const BucketBox cap = buckets_of(grid, box_of_cap(a.at, b.at, best.at));
    if (box.holds(cap)) return best;
    if (reach == kReach || cap.area() <= buckets_around(grid, middle, 2 * reach).area())
      return best_corner(grid, side, a, b, cap, &walls, best);
  }
  return none;
}

E3D_HD inline bool has_edge(const StripGrid& grid, int side, StripPoint from, StripPoint to) {
  return grid.any_along(side, from.at, from.at,
                        [&](const Segment& s) { return s.from == from.id && s.to == to.id; });
}

// Another boundary edge touches or crosses this one.
E3D_HD inline bool is_broken(const StripGrid& grid, int side, const Segment& s) {
  return grid.any_along(side, s.a, s.b, [&](const Segment& o) {
    if (o.from != s.from && o.a.x == s.a.x && o.a.y == s.a.y) return true;
    if (o.from == s.to && o.to == s.from) return true;
    return blocks(o, s.from, s.a, s.to, s.b);
  });
}

// A number for a triangle, the same from each of its corners.
E3D_HD inline std::uint32_t fingerprint(int a, int b, int c) {
  const int least = min3(a, b, c);
  if (least == b) {
    const int first = a;
    a = b, b = c, c = first;
  } else if (least == c) {
    const int last = c;
    c = b, b = a, a = last;
  }
  const auto mix = [](std::uint32_t h) {
    h = (h ^ h >> 16) * 0x85ebca6bu;
    h = (h ^ h >> 13) * 0xc2b2ae35u;
    return h ^ h >> 16;
  };
  return mix(mix(mix(std::uint32_t(a) + 0x9e3779b9u) + std::uint32_t(b)) + std::uint32_t(c));
}

}  // namespace e3d::cuda
