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

// Twice the signed area of (a, b, c); positive when counter-clockwise. Exact.
std::int64_t orient(PlanarPoint a, PlanarPoint b, PlanarPoint c) {
  return std::int64_t(b.x - a.x) * (c.y - a.y) - std::int64_t(b.y - a.y) * (c.x - a.x);
}

// d well inside the circle through the counter-clockwise (a, b, c). Cocircular points, of which a
// pixel grid is full, count as outside, so that flipping ends.
bool in_circle(PlanarPoint a, PlanarPoint b, PlanarPoint c, PlanarPoint d) {
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

class Triangulation {
 public:
  explicit Triangulation(View<const PlanarPoint> points) : n_points_(points.n) {
    points_.assign(points.data, points.data + points.n);
    // a triangle around everything; its corners are the last three points
    constexpr std::int32_t kFar = 4 * kMaxCoordinate;
    points_.push_back({-kFar, -kFar});
    points_.push_back({kFar, -kFar});
    points_.push_back({0, kFar});
    triangles_.reserve(2 * points_.size());
    triangles_.push_back({{n_points_, n_points_ + 1, n_points_ + 2}, {kNone, kNone, kNone}, {}});
    triangle_of_point_.assign(points_.size(), kNone);
    for (int k = 0; k < 3; ++k) triangle_of_point_[n_points_ + k] = 0;
  }

  // False if the point coincides with an earlier one.
  bool insert(int p) {
    int t = last_, on_edge = kNone;
    // walk towards p
    int step = 0;
    for (bool moved = true; moved; ++step) {
      moved = false;
      on_edge = kNone;
      for (int i = 0; i < 3; ++i) {
        const int k = (i + step) % 3;  // a changing first edge keeps the walk out of cycles
        const auto& v = triangles_[t].v;
        const std::int64_t side =
            orient(points_[v[(k + 1) % 3]], points_[v[(k + 2) % 3]], points_[p]);
        if (side < 0) {
          t = triangles_[t].n[k];
          moved = true;
          break;
        }
        if (side == 0) {
          if (on_edge != kNone) return false;  // on two edges: on their common corner
          on_edge = k;
        }
      }
    }
    if (on_edge == kNone)
      split_triangle(t, p);
    else
      split_edge(t, on_edge, p);
    last_ = triangle_of_point_[p];
    legalize();
    return true;
  }

  // Makes (a, b) an edge. False if that would cross another constraint or touch a point.
  bool constrain(int a, int b) {
    if (mark_edge(a, b)) return true;
    // edges crossed by the segment, in order from a to b
    std::vector<std::array<int, 2>> crossed;
    int t = triangle_of_point_[a], k = kNone;
    const int start = t;
    do {
      k = index_of(t, a);
      const auto& v = triangles_[t].v;
      const std::int64_t right = orient(points_[a], points_[b], points_[v[(k + 1) % 3]]);
      const std::int64_t left = orient(points_[a], points_[b], points_[v[(k + 2) % 3]]);
      if (right < 0 && left > 0) break;
      t = triangles_[t].n[(k + 2) % 3];  // next triangle around a, clockwise
      k = kNone;
    } while (t != start && t != kNone);
    if (k == kNone || t == kNone) return false;
    while (true) {
      if (triangles_[t].fixed[k]) return false;
      const auto& v = triangles_[t].v;
      crossed.push_back({v[(k + 1) % 3], v[(k + 2) % 3]});
      const int u = triangles_[t].n[k];
      if (u == kNone) return false;
      const int j = neighbor_index(u, t);
      const int apex = triangles_[u].v[j];
      if (apex == b) break;
      const std::int64_t side = orient(points_[a], points_[b], points_[apex]);
      if (side == 0) return false;
      // the segment leaves u between its apex and the corner on the other side
      k = side > 0 ? (j + 1) % 3 : (j + 2) % 3;
      t = u;
    }
    std::vector<std::array<int, 2>> created;
    std::size_t stalled = 0;
    for (std::size_t head = 0; head < crossed.size(); ++head) {
      const auto [p, q] = crossed[head];
      int e = kNone;
      const int s = find_edge(p, q, &e);
      if (!convex(s, e)) {
        if (++stalled > crossed.size() - head) return false;
        crossed.push_back({p, q});
        continue;
      }
      stalled = 0;
      const int c = triangles_[s].v[e];
      const int u = triangles_[s].n[e];
      const int d = triangles_[u].v[neighbor_index(u, s)];
      flip(s, e);
      const bool touches = c == a || c == b || d == a || d == b;
      if (!touches && opposite_sides(a, b, c, d))
        crossed.push_back({c, d});
      else
        created.push_back({c, d});
    }
    if (!mark_edge(a, b)) return false;
    for (const auto& [c, d] : created) {
      int e = kNone;
      const int s = find_edge(c, d, &e);
      if (s != kNone) stack_.push_back({s, c, d});
    }
    legalize();
    return true;
  }

  // Triangles reached from the left of the boundary edges without crossing one.
  // Edges that have the region on both sides, or on none, are reported as broken.
  PlanarTriangulation region(View<const BoundaryEdge> boundary) const {
    PlanarTriangulation result;
    std::vector<std::uint8_t> inside(triangles_.size(), 0);
    std::vector<int> queue, across(boundary.n);
    for (int i = 0; i < boundary.n; ++i) {
      int k = kNone;
      const int t = find_edge(boundary[i].from, boundary[i].to, &k);
      across[i] = triangles_[t].n[k];
      if (!inside[t]) {
        inside[t] = 1;
        queue.push_back(t);
      }
    }
    while (!queue.empty()) {
      const int t = queue.back();
      queue.pop_back();
      for (int k = 0; k < 3; ++k) {
        const int u = triangles_[t].n[k];
        if (triangles_[t].fixed[k] || u == kNone || inside[u]) continue;
        inside[u] = 1;
        queue.push_back(u);
      }
    }
    for (int i = 0; i < boundary.n; ++i)
      if (across[i] != kNone && inside[across[i]]) result.broken_edges.push_back(i);
    if (!result.broken_edges.empty()) return result;
    for (std::size_t t = 0; t < triangles_.size(); ++t) {
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
  // v counter-clockwise; n[k] and fixed[k] belong to the edge opposite to v[k].
  struct Triangle {
    std::array<int, 3> v, n;
    std::array<bool, 3> fixed;
  };
  // Edge (a, b) as it was when it was put off; stale ones are skipped.
  struct Pending {
    int t, a, b;
  };

  int index_of(int t, int p) const {
    const auto& v = triangles_[t].v;
    return v[0] == p ? 0 : v[1] == p ? 1 : 2;
  }
  int neighbor_index(int u, int t) const {
    const auto& n = triangles_[u].n;
    return n[0] == t ? 0 : n[1] == t ? 1 : 2;
  }
  bool opposite_sides(int a, int b, int c, int d) const {
    const std::int64_t sc = orient(points_[a], points_[b], points_[c]);
    const std::int64_t sd = orient(points_[a], points_[b], points_[d]);
    return (sc > 0 && sd < 0) || (sc < 0 && sd > 0);
  }

  // The triangle with (a, b) in its own, counter-clockwise, direction; *k is the corner opposite.
  int find_edge(int a, int b, int* k) const {
    const int start = triangle_of_point_[a];
    int t = start;
    for (const int step : {2, 1}) {  // clockwise around a, then the other way if a rim was met
      t = start;
      do {
        const int i = index_of(t, a);
        if (triangles_[t].v[(i + 1) % 3] == b) {
          *k = (i + 2) % 3;
          return t;
        }
        t = triangles_[t].n[(i + step) % 3];
      } while (t != kNone && t != start);
      if (t == start) break;
    }
    return kNone;
  }

  bool mark_edge(int a, int b) {
    int k = kNone;
    const int t = find_edge(a, b, &k);
    if (t == kNone) return false;
    triangles_[t].fixed[k] = true;
    if (const int u = triangles_[t].n[k]; u != kNone)
      triangles_[u].fixed[neighbor_index(u, t)] = true;
    return true;
  }

  bool convex(int t, int k) const {
    const auto& v = triangles_[t].v;
    const int u = triangles_[t].n[k];
    const PlanarPoint p = points_[v[k]], q = points_[triangles_[u].v[neighbor_index(u, t)]];
    return orient(p, points_[v[(k + 1) % 3]], q) > 0 && orient(p, q, points_[v[(k + 2) % 3]]) > 0;
  }

  void set_neighbor(int t, int old_neighbor, int new_neighbor) {
    if (t != kNone) triangles_[t].n[neighbor_index(t, old_neighbor)] = new_neighbor;
  }

  // Replaces the edge opposite to corner k of t by the other diagonal.
  void flip(int t, int k) {
    const int u = triangles_[t].n[k];
    const int j = neighbor_index(u, t);
    const Triangle a = triangles_[t], b = triangles_[u];
    const int p = a.v[k], r = a.v[(k + 1) % 3], s = a.v[(k + 2) % 3], q = b.v[j];
    triangles_[t] = {{p, r, q},
                     {b.n[(j + 1) % 3], u, a.n[(k + 2) % 3]},
                     {b.fixed[(j + 1) % 3], false, a.fixed[(k + 2) % 3]}};
    triangles_[u] = {{p, q, s},
                     {b.n[(j + 2) % 3], a.n[(k + 1) % 3], t},
                     {b.fixed[(j + 2) % 3], a.fixed[(k + 1) % 3], false}};
    set_neighbor(b.n[(j + 1) % 3], u, t);
    set_neighbor(a.n[(k + 1) % 3], t, u);
    for (const int v : {p, r, q}) triangle_of_point_[v] = t;
    triangle_of_point_[s] = u;
  }

  void split_triangle(int t, int p) {
    const Triangle old = triangles_[t];
    const auto [a, b, c] = old.v;
    const int t1 = static_cast<int>(triangles_.size()), t2 = t1 + 1;
    triangles_[t] = {{p, b, c}, {old.n[0], t1, t2}, {old.fixed[0], false, false}};
    triangles_.push_back({{p, c, a}, {old.n[1], t2, t}, {old.fixed[1], false, false}});
    triangles_.push_back({{p, a, b}, {old.n[2], t, t1}, {old.fixed[2], false, false}});
    set_neighbor(old.n[1], t, t1);
    set_neighbor(old.n[2], t, t2);
    triangle_of_point_[p] = triangle_of_point_[b] = triangle_of_point_[c] = t;
    triangle_of_point_[a] = t1;
    stack_.push_back({t, b, c});
    stack_.push_back({t1, c, a});
    stack_.push_back({t2, a, b});
  }

  void split_edge(int t, int k, int p) {
    const int u = triangles_[t].n[k];
    const Triangle a = triangles_[t], b = triangles_[u];
    const int j = neighbor_index(u, t);
    const int apex = a.v[k], r = a.v[(k + 1) % 3], s = a.v[(k + 2) % 3], far = b.v[j];
    const int t1 = static_cast<int>(triangles_.size()), u1 = t1 + 1;
    // t = (apex, r, p), t1 = (apex, p, s), u = (far, s, p), u1 = (far, p, r)
    triangles_[t] = {
        {apex, r, p}, {u1, t1, a.n[(k + 2) % 3]}, {a.fixed[k], false, a.fixed[(k + 2) % 3]}};
    triangles_.push_back(
        {{apex, p, s}, {u, a.n[(k + 1) % 3], t}, {a.fixed[k], a.fixed[(k + 1) % 3], false}});
    triangles_[u] = {
        {far, s, p}, {t1, u1, b.n[(j + 2) % 3]}, {a.fixed[k], false, b.fixed[(j + 2) % 3]}};
    triangles_.push_back(
        {{far, p, r}, {t, b.n[(j + 1) % 3], u}, {a.fixed[k], b.fixed[(j + 1) % 3], false}});
    set_neighbor(a.n[(k + 1) % 3], t, t1);
    set_neighbor(b.n[(j + 1) % 3], u, u1);
    triangle_of_point_[p] = triangle_of_point_[apex] = triangle_of_point_[r] = t;
    triangle_of_point_[far] = triangle_of_point_[s] = u;
    stack_.push_back({t, apex, r});
    stack_.push_back({t1, s, apex});
    stack_.push_back({u, far, s});
    stack_.push_back({u1, r, far});
  }

  // Flips pending edges until all are Delaunay (Lawson).
  void legalize() {
    while (!stack_.empty()) {
      const auto [hint, a, b] = stack_.back();
      stack_.pop_back();
      int t = hint, k = edge_index(t, a, b);
      if (k == kNone) {
        t = find_edge(a, b, &k);
        if (t == kNone) continue;
      }
      const int u = triangles_[t].n[k];
      if (u == kNone || triangles_[t].fixed[k]) continue;
      const auto& v = triangles_[t].v;
      const int j = neighbor_index(u, t);
      const int q = triangles_[u].v[j], p = v[k], r = v[(k + 1) % 3], s = v[(k + 2) % 3];
      if (!in_circle(points_[v[0]], points_[v[1]], points_[v[2]], points_[q]) || !convex(t, k))
        continue;
      flip(t, k);
      stack_.push_back({t, r, q});
      stack_.push_back({t, p, r});
      stack_.push_back({u, q, s});
      stack_.push_back({u, s, p});
    }
  }

  int edge_index(int t, int a, int b) const {
    const auto& v = triangles_[t].v;
    for (int k = 0; k < 3; ++k)
      if (v[(k + 1) % 3] == a && v[(k + 2) % 3] == b) return k;
    return kNone;
  }

  int n_points_;
  std::vector<PlanarPoint> points_;
  std::vector<Triangle> triangles_;
  std::vector<int> triangle_of_point_;
  std::vector<Pending> stack_;
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
  std::vector<std::pair<std::uint32_t, int>> order(points.n);
  for (int i = 0; i < points.n; ++i)
    order[i] = {hilbert_index(std::uint32_t((points[i].x - low.x) * scale),
                              std::uint32_t((points[i].y - low.y) * scale)),
                i};
  std::sort(order.begin(), order.end());

  Triangulation triangulation(points);
  std::vector<std::uint8_t> duplicate(points.n, 0);
  for (const auto& [key, i] : order) duplicate[i] = !triangulation.insert(i);
  for (int i = 0; i < boundary.n; ++i) {
    const auto [from, to] = boundary[i];
    if (duplicate[from] || duplicate[to] || !triangulation.constrain(from, to))
      result.broken_edges.push_back(i);
  }
  if (!result.broken_edges.empty()) return result;
  return triangulation.region(boundary);
}

}  // namespace e3d
