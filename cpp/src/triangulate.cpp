// triangulate.cpp — incremental constrained Delaunay triangulation.
#include "extreme3d/triangulate.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <stdexcept>

namespace e3d {

namespace {

constexpr std::int32_t kMaxCoordinate = 1 << 20;
constexpr int kNone = -1;

// A point in doubles: differences and products of coordinates below 2^23 are exact.
struct Point {
  double x, y;
};

// Twice the signed area of (a, b, c); positive when counter-clockwise. Exact.
double orient(Point a, Point b, Point c) {
  return (b.x - a.x) * (c.y - a.y) - (b.y - a.y) * (c.x - a.x);
}

// d well inside the circle through the counter-clockwise (a, b, c). Cocircular points, of which a
// pixel grid is full, count as outside, so that flipping ends.
bool in_circle(Point a, Point b, Point c, Point d) {
  const double ax = a.x - d.x, ay = a.y - d.y, bx = b.x - d.x, by = b.y - d.y;
  const double cx = c.x - d.x, cy = c.y - d.y;
  const double a2 = ax * ax + ay * ay, b2 = bx * bx + by * by, c2 = cx * cx + cy * cy;
  const double det = ax * (by * c2 - b2 * cy) - ay * (bx * c2 - b2 * cx) + a2 * (bx * cy - by * cx);
  const double scale = std::max({a2, b2, c2});
  return det > 1e-10 * scale * scale;
}

// Position along a Hilbert curve: neighbours on the curve are neighbours in the plane.
std::uint32_t hilbert_index(std::uint32_t x, std::uint32_t y) {
  constexpr std::uint32_t kSide = 1u << 10;
  std::uint32_t d = 0;
  for (std::uint32_t s = kSide / 2; s > 0; s /= 2) {
    const std::uint32_t rx = (x & s) > 0, ry = (y & s) > 0;
    d += s * s * ((3 * rx) ^ ry);
    if (ry == 0) {
      if (rx == 1) {
        x = kSide - 1 - x;
        y = kSide - 1 - y;
      }
      std::swap(x, y);
    }
  }
  return d;
}

// Edges have a direction and a number: edge k of triangle t, opposite to its corner k, is 4 t + k.
int triangle_of(int edge) { return edge >> 2; }
int corner_of(int edge) { return edge & 3; }
int next_corner(int k) { return k == 2 ? 0 : k + 1; }
int previous_corner(int k) { return k == 0 ? 2 : k - 1; }
int next_edge(int e) { return corner_of(e) == 2 ? e - 2 : e + 1; }
int previous_edge(int e) { return corner_of(e) == 0 ? e + 2 : e - 1; }

class Triangulation {
 public:
  explicit Triangulation(View<const PlanarPoint> points) : n_points_(points.n) {
    points_.reserve(points.n + 3);
    for (int i = 0; i < points.n; ++i)
      points_.push_back({double(points[i].x), double(points[i].y)});
    // a triangle around everything; its corners are the last three points
    constexpr double kFar = 4.0 * kMaxCoordinate;
    points_.push_back({-kFar, -kFar});
    points_.push_back({kFar, -kFar});
    points_.push_back({0, kFar});
    triangles_.reserve(2 * points_.size());
    triangles_.push_back({{n_points_, n_points_ + 1, n_points_ + 2}, {kNone, kNone, kNone}});
    edge_from_.assign(points_.size(), kNone);
    point_corners_to(0);
  }

  // False if the point coincides with an earlier one. All are inserted before edges are
  // constrained.
  bool insert(int p) {
    int t = last_, on_edge = kNone;
    // walk towards p
    int step = 0;
    for (bool moved = true; moved; ++step) {
      moved = false;
      on_edge = kNone;
      for (int i = 0; i < 3; ++i) {
        const int e = 4 * t + (i + step) % 3;  // a changing first edge keeps the walk out of cycles
        const double side = orient(points_[from(e)], points_[to(e)], points_[p]);
        if (side < 0) {
          t = triangle_of(twin(e));
          moved = true;
          break;
        }
        if (side == 0) {
          if (on_edge != kNone) return false;  // on two edges: on their common corner
          on_edge = e;
        }
      }
    }
    if (on_edge == kNone)
      split_triangle(t, p);
    else
      split_edge(on_edge, p);
    last_ = triangle_of(edge_from_[p]);
    // Lawson: of the triangles around p, edges opposite to it
    while (!around_.empty()) {
      const int e = around_.back();
      around_.pop_back();
      if (!is_to_flip(e)) continue;
      const int opposite = twin(e);
      flip(e);
      around_.push_back(4 * triangle_of(e));
      around_.push_back(4 * triangle_of(opposite));
    }
    return true;
  }

  // Makes (a, b) an edge, with the region on its left. False if that would cross another constraint
  // or touch a point.
  bool constrain(int a, int b) {
    if (mark_edge(a, b)) return true;
    // edges crossed by the segment, in order from a to b
    std::vector<std::array<int, 2>> crossed;
    int out = edge_from_[a], e = kNone;
    const int start = out;
    do {
      const double right = orient(points_[a], points_[b], points_[to(out)]);
      const double left = orient(points_[a], points_[b], points_[apex(out)]);
      if (right < 0 && left > 0) {
        e = next_edge(out);
        break;
      }
      out = clockwise(out);
    } while (out != start && out != kNone);
    if (e == kNone) return false;
    while (true) {
      if (is_fixed(e)) return false;
      crossed.push_back({from(e), to(e)});
      e = twin(e);
      if (e == kNone) return false;
      if (apex(e) == b) break;
      const double side = orient(points_[a], points_[b], points_[apex(e)]);
      if (side == 0) return false;
      // the segment leaves between the apex and the corner on the other side
      e = side > 0 ? next_edge(e) : previous_edge(e);
    }
    std::vector<std::array<int, 2>> created;
    std::size_t stalled = 0;
    for (std::size_t head = 0; head < crossed.size(); ++head) {
      const auto [p, q] = crossed[head];
      e = find_edge(p, q);
      if (!convex(e)) {
        if (++stalled > crossed.size() - head) return false;
        crossed.push_back({p, q});
        continue;
      }
      stalled = 0;
      const int c = apex(e), d = apex(twin(e));
      flip(e);
      const bool touches = c == a || c == b || d == a || d == b;
      if (!touches && opposite_sides(a, b, c, d))
        crossed.push_back({c, d});
      else
        created.push_back({c, d});
    }
    if (!mark_edge(a, b)) return false;
    for (const auto& [c, d] : created) put_off(find_edge(c, d));
    legalize();
    return true;
  }

  // Triangles reached from the left of the boundary edges without crossing one.
  // Edges that have the region on both sides, or on none, are reported as broken.
  PlanarTriangulation region(View<const BoundaryEdge> boundary) const {
    PlanarTriangulation result;
    const int n = static_cast<int>(triangles_.size());
    std::vector<std::uint8_t> inside(n, 0);
    std::vector<int> queue;
    for (int t = 0; t < n; ++t)
      if (triangles_[t].region) {
        inside[t] = 1;
        queue.push_back(t);
      }
    bool broken = false;
    for (std::size_t head = 0; head < queue.size(); ++head)
      for (int e = 4 * queue[head], end = e + 3; e < end; ++e) {
        const int other = twin(e);
        if (other == kNone) continue;
        if (is_fixed(e)) {
          broken |= triangles_[triangle_of(other)].region >> corner_of(other) & 1;
        } else if (const int u = triangle_of(other); !inside[u]) {
          inside[u] = 1;
          queue.push_back(u);
        }
      }
    for (int i = 0; broken && i < boundary.n; ++i) {
      const int other = twin(find_edge(boundary[i].from, boundary[i].to));
      if (other != kNone && inside[triangle_of(other)]) result.broken_edges.push_back(i);
    }
    if (broken) return result;
    result.triangles.reserve(queue.size());
    for (int t = 0; t < n; ++t) {
      const auto& v = triangles_[t].v;
      if (!inside[t]) continue;
      if (std::max({v[0], v[1], v[2]}) >= n_points_) {  // leaked to the far corners: open boundary
        result.triangles.clear();
        for (int i = 0; i < boundary.n; ++i) result.broken_edges.push_back(i);
        return result;
      }
      result.triangles.push_back({v[0], v[1], v[2]});
    }
    return result;
  }

 private:
  // Corners counter-clockwise; the same edge in the neighbour on its other side, kNone for none; a
  // bit for each edge: constrained, and constrained with the region on this side.
  struct Triangle {
    std::array<int, 3> v, twin;
    std::uint8_t fixed = 0, region = 0;
  };
  // Edge from a to b as it was when it was put off; stale ones are skipped.
  struct Pending {
    int edge, a, b;
  };

  int twin(int e) const { return triangles_[triangle_of(e)].twin[corner_of(e)]; }
  int from(int e) const { return triangles_[triangle_of(e)].v[next_corner(corner_of(e))]; }
  int to(int e) const { return triangles_[triangle_of(e)].v[previous_corner(corner_of(e))]; }
  int apex(int e) const { return triangles_[triangle_of(e)].v[corner_of(e)]; }
  bool is_fixed(int e) const { return triangles_[triangle_of(e)].fixed >> corner_of(e) & 1; }

  // The next edge around the point that one leaves, or kNone at a rim.
  int clockwise(int e) const {
    const int other = twin(e);
    return other == kNone ? kNone : next_edge(other);
  }
  int counter_clockwise(int e) const { return twin(previous_edge(e)); }

  bool opposite_sides(int a, int b, int c, int d) const {
    const double sc = orient(points_[a], points_[b], points_[c]);
    const double sd = orient(points_[a], points_[b], points_[d]);
    return (sc > 0 && sd < 0) || (sc < 0 && sd > 0);
  }

  // The edge from a to b, or kNone.
  int find_edge(int a, int b) const {
    const int start = edge_from_[a];
    int e = start;
    do {
      if (to(e) == b) return e;
      e = clockwise(e);
    } while (e != kNone && e != start);
    if (e == start) return kNone;
    for (e = counter_clockwise(start); e != kNone; e = counter_clockwise(e))  // from the rim
      if (to(e) == b) return e;
    return kNone;
  }

  bool mark_edge(int a, int b) {
    const int e = find_edge(a, b);
    if (e == kNone) return false;
    triangles_[triangle_of(e)].fixed |= 1 << corner_of(e);
    triangles_[triangle_of(e)].region |= 1 << corner_of(e);
    if (const int other = twin(e); other != kNone)
      triangles_[triangle_of(other)].fixed |= 1 << corner_of(other);
    return true;
  }

  bool convex(int e) const {
    const Point p = points_[apex(e)], q = points_[apex(twin(e))];
    return orient(p, points_[from(e)], q) > 0 && orient(p, q, points_[to(e)]) > 0;
  }

  // Not Delaunay; then its two triangles form a convex quadrilateral.
  bool is_to_flip(int e) const {
    const int other = twin(e);
    if (other == kNone || is_fixed(e)) return false;
    const auto& v = triangles_[triangle_of(e)].v;
    return in_circle(points_[v[0]], points_[v[1]], points_[v[2]], points_[apex(other)]);
  }

  void join(int e, int other) {
    triangles_[triangle_of(e)].twin[corner_of(e)] = other;
    if (other != kNone) triangles_[triangle_of(other)].twin[corner_of(other)] = e;
  }
  void point_corners_to(int t) {
    const auto& v = triangles_[t].v;
    for (int k = 0; k < 3; ++k) edge_from_[v[k]] = 4 * t + previous_corner(k);
  }

  // Replaces an edge by the other diagonal of its two triangles.
  void flip(int e) {
    const int t = triangle_of(e), u = triangle_of(twin(e));
    const int k = corner_of(e), j = corner_of(twin(e));
    const int k1 = next_corner(k), k2 = previous_corner(k);
    const int j1 = next_corner(j), j2 = previous_corner(j);
    const Triangle a = triangles_[t], b = triangles_[u];
    const int p = a.v[k], r = a.v[k1], s = a.v[k2], q = b.v[j];
    const auto bits = [](int bit0, int bit1, int bit2) {
      return static_cast<std::uint8_t>((bit0 & 1) | (bit1 & 1) << 1 | (bit2 & 1) << 2);
    };
    triangles_[t] = {{p, r, q},
                     {kNone, 4 * u + 2, kNone},
                     bits(b.fixed >> j1, 0, a.fixed >> k2),
                     bits(b.region >> j1, 0, a.region >> k2)};
    triangles_[u] = {{p, q, s},
                     {kNone, kNone, 4 * t + 1},
                     bits(b.fixed >> j2, a.fixed >> k1, 0),
                     bits(b.region >> j2, a.region >> k1, 0)};
    join(4 * t, b.twin[j1]);
    join(4 * t + 2, a.twin[k2]);
    join(4 * u, b.twin[j2]);
    join(4 * u + 1, a.twin[k1]);
    edge_from_[s] = 4 * u + 1;
    point_corners_to(t);
  }

  void split_triangle(int t, int p) {
    const auto [a, b, c] = triangles_[t].v;
    const auto [bc, ca, ab] = triangles_[t].twin;
    const int t1 = static_cast<int>(triangles_.size()), t2 = t1 + 1;
    triangles_[t] = {{p, b, c}, {bc, 4 * t1 + 2, 4 * t2 + 1}};
    triangles_.push_back({{p, c, a}, {ca, 4 * t2 + 2, 4 * t + 1}});
    triangles_.push_back({{p, a, b}, {ab, 4 * t + 2, 4 * t1 + 1}});
    join(4 * t1, ca);
    join(4 * t2, ab);
    point_corners_to(t);
    edge_from_[a] = 4 * t1 + 1;
    around_.insert(around_.end(), {4 * t, 4 * t1, 4 * t2});
  }

  void split_edge(int e, int p) {
    const int t = triangle_of(e), u = triangle_of(twin(e));
    const int k = corner_of(e), j = corner_of(twin(e));
    const Triangle a = triangles_[t], b = triangles_[u];
    const int at = a.v[k], r = a.v[next_corner(k)], s = a.v[previous_corner(k)], far = b.v[j];
    const int t1 = static_cast<int>(triangles_.size()), u1 = t1 + 1;
    triangles_[t] = {{at, r, p}, {4 * u1, 4 * t1 + 2, kNone}};
    triangles_.push_back({{at, p, s}, {4 * u, kNone, 4 * t + 1}});
    triangles_[u] = {{far, s, p}, {4 * t1, 4 * u1 + 2, kNone}};
    triangles_.push_back({{far, p, r}, {4 * t, kNone, 4 * u + 1}});
    join(4 * t + 2, a.twin[previous_corner(k)]);
    join(4 * t1 + 1, a.twin[next_corner(k)]);
    join(4 * u + 2, b.twin[previous_corner(j)]);
    join(4 * u1 + 1, b.twin[next_corner(j)]);
    point_corners_to(u);
    point_corners_to(t);
    around_.insert(around_.end(), {4 * t + 2, 4 * t1 + 1, 4 * u + 2, 4 * u1 + 1});
  }

  void put_off(int e) {
    if (e != kNone) pending_.push_back({e, from(e), to(e)});
  }

  // Flips pending edges until all are Delaunay (Lawson).
  void legalize() {
    while (!pending_.empty()) {
      const auto [hint, a, b] = pending_.back();
      pending_.pop_back();
      const int e = from(hint) == a && to(hint) == b ? hint : find_edge(a, b);
      if (e == kNone || !is_to_flip(e)) continue;
      const int t = triangle_of(e), u = triangle_of(twin(e));
      flip(e);
      for (const int around : {4 * t, 4 * t + 2, 4 * u, 4 * u + 1}) put_off(around);
    }
  }

  int n_points_;
  std::vector<Point> points_;
  std::vector<Triangle> triangles_;
  std::vector<int> edge_from_;  // of each point, one of the edges that leave it
  std::vector<int> around_;     // while a point is inserted: edges opposite to it, to be looked at
  std::vector<Pending> pending_;
  int last_ = 0;
};

}  // namespace

PlanarTriangulation triangulate_region(View<const PlanarPoint> points,
                                       View<const BoundaryEdge> boundary) {
  for (int i = 0; i < points.n; ++i)
    if (std::abs(points[i].x) > kMaxCoordinate || std::abs(points[i].y) > kMaxCoordinate)
      throw std::invalid_argument("triangulate_region: coordinate outside ±2^20");
  for (int i = 0; i < boundary.n; ++i)
    if (std::min(boundary[i].from, boundary[i].to) < 0 ||
        std::max(boundary[i].from, boundary[i].to) >= points.n ||
        boundary[i].from == boundary[i].to)
      throw std::invalid_argument("triangulate_region: boundary edge has an index out of range");
  PlanarTriangulation result;
  if (boundary.n == 0) return result;

  PlanarPoint low = points[0], high = points[0];
  for (int i = 0; i < points.n; ++i) {
    low = {std::min(low.x, points[i].x), std::min(low.y, points[i].y)};
    high = {std::max(high.x, points[i].x), std::max(high.y, points[i].y)};
  }
  const double scale = 1023.0 / std::max({1, high.x - low.x, high.y - low.y});
  std::vector<std::uint64_t> order(points.n);  // position on the curve, then the point
  for (int i = 0; i < points.n; ++i)
    order[i] = std::uint64_t(hilbert_index(std::uint32_t((points[i].x - low.x) * scale),
                                           std::uint32_t((points[i].y - low.y) * scale)))
                   << 32 |
               std::uint32_t(i);
  std::sort(order.begin(), order.end());

  Triangulation triangulation(points);
  std::vector<std::uint8_t> duplicate(points.n, 0);
  for (const std::uint64_t key : order) {
    const int i = static_cast<int>(key & 0xffffffffu);
    duplicate[i] = !triangulation.insert(i);
  }
  for (int i = 0; i < boundary.n; ++i) {
    const auto [from, to] = boundary[i];
    if (duplicate[from] || duplicate[to] || !triangulation.constrain(from, to))
      result.broken_edges.push_back(i);
  }
  if (!result.broken_edges.empty()) return result;
  return triangulation.region(boundary);
}

}  // namespace e3d
