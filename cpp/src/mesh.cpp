// mesh.cpp — sorted half-edge rows, from which edges, borders, fans and the report are read off.
#include "extreme3d/mesh.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "extreme3d/parallel.h"

namespace e3d {
namespace {

constexpr int kPointGrain = 16384;
constexpr int kVertexGrain = 8192;
constexpr int kFaceGrain = 8192;

// Half-edge from corner k of a face to its next corner; corner id = 3 face + k.
struct HalfEdge {
  std::int32_t far;     // the larger of the two vertices; the smaller is the row
  std::int32_t corner;  // where it starts
  bool ascending;       // runs from the smaller to the larger vertex
};

// Half-edges by their smaller vertex, each row sorted by the larger one.
struct HalfEdgeRows {
  std::vector<std::int32_t> offsets;
  std::vector<HalfEdge> edges;
};

bool is_degenerate(Tri t) { return t.v0 == t.v1 || t.v1 == t.v2 || t.v2 == t.v0; }

int next_corner(int corner) { return corner % 3 == 2 ? corner - 2 : corner + 1; }

const std::int32_t* corner_vertices(View<const Tri> faces) {
  return reinterpret_cast<const std::int32_t*>(faces.data);
}

HalfEdgeRows half_edge_rows(View<const Tri> faces, int n_vertices, int threads) {
  HalfEdgeRows rows;
  rows.offsets.assign(n_vertices + 1, 0);
  const auto for_each_half_edge = [&](const auto& visit) {
    for (int f = 0; f < faces.n; ++f) {
      const Tri t = faces[f];
      if (is_degenerate(t)) continue;
      visit(t.v0, t.v1, 3 * f);
      visit(t.v1, t.v2, 3 * f + 1);
      visit(t.v2, t.v0, 3 * f + 2);
    }
  };
  for_each_half_edge([&](int a, int b, int) { ++rows.offsets[std::min(a, b) + 1]; });
  std::partial_sum(rows.offsets.begin(), rows.offsets.end(), rows.offsets.begin());
  rows.edges.resize(rows.offsets.back());
  std::vector<std::int32_t> next(rows.offsets.begin(), rows.offsets.end() - 1);
  for_each_half_edge([&](int a, int b, int corner) {
    rows.edges[next[std::min(a, b)]++] = {std::max(a, b), corner, a < b};
  });
  parallel_for(n_vertices, threads, kVertexGrain, [&](int begin, int end) {
    for (int v = begin; v < end; ++v)
      std::sort(rows.edges.begin() + rows.offsets[v], rows.edges.begin() + rows.offsets[v + 1],
                [](const HalfEdge& p, const HalfEdge& q) {
                  return p.far != q.far ? p.far < q.far : p.corner < q.corner;
                });
  });
  return rows;
}

// Calls visit(near, far, first, last) for each undirected edge with its half-edges [first, last).
template <class Visit>
void for_each_edge(const HalfEdgeRows& rows, const Visit& visit) {
  const int n = static_cast<int>(rows.offsets.size()) - 1;
  for (int v = 0; v < n; ++v)
    for (int k = rows.offsets[v]; k < rows.offsets[v + 1];) {
      int last = k + 1;
      while (last < rows.offsets[v + 1] && rows.edges[last].far == rows.edges[k].far) ++last;
      visit(v, rows.edges[k].far, &rows.edges[k], &rows.edges[0] + last);
      k = last;
    }
}

// Disjoint sets with path halving; the smaller root wins, so the result has one form.
struct DisjointSets {
  std::vector<std::int32_t> parent;
  explicit DisjointSets(int n) : parent(n) { std::iota(parent.begin(), parent.end(), 0); }
  int find(int i) {
    while (parent[i] != i) i = parent[i] = parent[parent[i]];
    return i;
  }
  void join(int i, int j) {
    i = find(i);
    j = find(j);
    if (i != j) parent[std::max(i, j)] = std::min(i, j);
  }
};

// Corners of one vertex whose faces hang together by edges through it form one fan.
DisjointSets corner_fans(const HalfEdgeRows& rows, int n_faces) {
  DisjointSets fans(3 * n_faces);
  for_each_edge(rows, [&](int, int, const HalfEdge* first, const HalfEdge* last) {
    const auto ends = [](const HalfEdge& e) {  // corner at the smaller, at the larger vertex
      const int to = next_corner(e.corner);
      return e.ascending ? std::pair(e.corner, to) : std::pair(to, e.corner);
    };
    const auto [near, far] = ends(*first);
    for (const HalfEdge* e = first + 1; e < last; ++e) {
      const auto [other_near, other_far] = ends(*e);
      fans.join(near, other_near);
      fans.join(far, other_far);
    }
  });
  return fans;
}

// Borders as rows of start corners. Fans are the stations, boundary half-edges the rails: each fan
// of a manifold mesh has one arriving and one leaving.
Csr boundary_corner_loops(View<const Tri> faces, const HalfEdgeRows& rows, DisjointSets& fans) {
  const std::int32_t* vertex = corner_vertices(faces);
  std::vector<std::int32_t> border;  // start corners of boundary half-edges
  for_each_edge(rows, [&](int, int, const HalfEdge* first, const HalfEdge* last) {
    if (last - first == 1) border.push_back(first->corner);
  });
  std::sort(border.begin(), border.end(),
            [&](int p, int q) { return vertex[p] != vertex[q] ? vertex[p] < vertex[q] : p < q; });

  // Boundary half-edges that touch each fan, leaving ones first: a Möbius band has fans with two
  // arriving and none leaving, which are then walked against their direction.
  struct Rail {
    std::int32_t fan, border;
    bool arrives;
  };
  std::vector<Rail> rails;
  rails.reserve(2 * border.size());
  for (int i = 0; i < static_cast<int>(border.size()); ++i) {
    rails.push_back({fans.find(border[i]), i, false});
    rails.push_back({fans.find(next_corner(border[i])), i, true});
  }
  std::sort(rails.begin(), rails.end(), [](const Rail& p, const Rail& q) {
    if (p.fan != q.fan) return p.fan < q.fan;
    return p.arrives != q.arrives ? q.arrives : p.border < q.border;
  });

  Csr loops;
  loops.offsets.push_back(0);
  std::vector<bool> used(border.size(), false);
  for (int start = 0; start < static_cast<int>(border.size()); ++start) {
    if (used[start]) continue;
    bool against = false;
    for (int at = start; at >= 0;) {
      used[at] = true;
      const int from = border[at], to = next_corner(border[at]);
      loops.indices.push_back(against ? to : from);
      const int fan = fans.find(against ? from : to);
      auto rail = std::lower_bound(rails.begin(), rails.end(), fan,
                                   [](const Rail& r, int f) { return r.fan < f; });
      while (rail != rails.end() && rail->fan == fan && used[rail->border]) ++rail;
      const bool more = rail != rails.end() && rail->fan == fan;
      at = more ? rail->border : -1;
      against = more && rail->arrives;
    }
    loops.offsets.push_back(static_cast<std::int32_t>(loops.indices.size()));
  }
  return loops;
}

bool is_zero_area(const MeshView& mesh, Tri t) {
  const auto difference = [&](int to, int from, double* d) {
    const Vec3 p = mesh.vertices[to], q = mesh.vertices[from];
    d[0] = double(p.x) - q.x, d[1] = double(p.y) - q.y, d[2] = double(p.z) - q.z;
    return d[0] * d[0] + d[1] * d[1] + d[2] * d[2];
  };
  double u[3], v[3], w[3];
  const double longest =
      std::max({difference(t.v1, t.v0, u), difference(t.v2, t.v0, v), difference(t.v2, t.v1, w)});
  const double cx = u[1] * v[2] - u[2] * v[1], cy = u[2] * v[0] - u[0] * v[2],
               cz = u[0] * v[1] - u[1] * v[0];
  return std::sqrt(cx * cx + cy * cy + cz * cz) <= 1e-12 * longest;
}

bool is_finite(Vec3 p) { return std::isfinite(p.x) && std::isfinite(p.y) && std::isfinite(p.z); }

}  // namespace

void require_involution(View<const int> mirror) {
  for (int v = 0; v < mirror.n; ++v)
    if (mirror[v] < 0 || mirror[v] >= mirror.n || mirror[mirror[v]] != v)
      throw std::invalid_argument("mirror is not an involution at vertex " + std::to_string(v));
}

void transform_points(const Rigid& b_from_a, View<const Vec3> in, int threads, View<Vec3> out) {
  parallel_for(in.n, threads, kPointGrain, [&](int begin, int end) {
    for (int i = begin; i < end; ++i) out[i] = transform(b_from_a, in[i]);
  });
}

void rotate_vectors(const Rigid& b_from_a, View<const Vec3> in, int threads, View<Vec3> out) {
  parallel_for(in.n, threads, kPointGrain, [&](int begin, int end) {
    for (int i = begin; i < end; ++i) out[i] = rotate(b_from_a, in[i]);
  });
}

void erode_mask(View<const std::uint8_t> mask, View<const Tri> faces, View<std::uint8_t> out) {
  std::copy(mask.data, mask.data + mask.n, out.data);
  for (int f = 0; f < faces.n; ++f) {
    const auto [v0, v1, v2] = faces[f];
    if (mask[v0] && mask[v1] && mask[v2]) continue;
    out[v0] = out[v1] = out[v2] = 0;
  }
}

void face_normals(MeshView mesh, int threads, View<Vec3> out) {
  parallel_for(mesh.faces.n, threads, kFaceGrain, [&](int begin, int end) {
    for (int f = begin; f < end; ++f) out[f] = normalize_or_zero(face_area_vector(mesh, f));
  });
}

void vertex_normals(MeshView mesh, CsrView faces_of, int threads, View<Vec3> out) {
  std::vector<Vec3> area(mesh.faces.n);
  parallel_for(mesh.faces.n, threads, kFaceGrain, [&](int begin, int end) {
    for (int f = begin; f < end; ++f) area[f] = face_area_vector(mesh, f);
  });
  parallel_for(mesh.vertices.n, threads, kVertexGrain, [&](int begin, int end) {
    for (int v = begin; v < end; ++v)
      out[v] = vertex_normal({area.data(), mesh.faces.n}, faces_of, v);
  });
}

Csr vertex_faces(View<const Tri> faces, int n_vertices) {
  const std::int32_t* vertex = corner_vertices(faces);
  Csr table;
  table.offsets.assign(n_vertices + 1, 0);
  for (int c = 0; c < 3 * faces.n; ++c) ++table.offsets[vertex[c] + 1];
  std::partial_sum(table.offsets.begin(), table.offsets.end(), table.offsets.begin());
  table.indices.resize(table.offsets.back());
  std::vector<std::int32_t> next(table.offsets.begin(), table.offsets.end() - 1);
  for (int c = 0; c < 3 * faces.n; ++c) table.indices[next[vertex[c]]++] = c / 3;
  return table;
}

CornerRows corner_rows(View<const Tri> faces, int n_vertices) {
  CornerRows rows;
  rows.offsets.assign(n_vertices + 1, 0);
  for (int f = 0; f < faces.n; ++f)
    for (const std::int32_t v : {faces[f].v0, faces[f].v1, faces[f].v2}) ++rows.offsets[v + 1];
  std::partial_sum(rows.offsets.begin(), rows.offsets.end(), rows.offsets.begin());
  rows.next.resize(rows.offsets.back());
  rows.previous.resize(rows.offsets.back());
  std::vector<std::int32_t> at(rows.offsets.begin(), rows.offsets.end() - 1);
  const auto add = [&](std::int32_t v, std::int32_t after, std::int32_t before) {
    rows.next[at[v]] = after;
    rows.previous[at[v]++] = before;
  };
  for (int f = 0; f < faces.n; ++f) {
    const Tri t = faces[f];
    add(t.v0, t.v1, t.v2);
    add(t.v1, t.v2, t.v0);
    add(t.v2, t.v0, t.v1);
  }
  return rows;
}

std::vector<VertexPair> unique_edges(View<const Tri> faces, int n_vertices) {
  std::vector<VertexPair> edges;
  edges.reserve(faces.n * 3 / 2);
  for_each_edge(half_edge_rows(faces, n_vertices, 1),
                [&](int a, int b, const HalfEdge*, const HalfEdge*) { edges.push_back({a, b}); });
  return edges;
}

Csr vertex_neighbours(View<const Tri> faces, int n_vertices) {
  const std::vector<VertexPair> edges = unique_edges(faces, n_vertices);
  Csr table;
  table.offsets.assign(n_vertices + 1, 0);
  for (const VertexPair e : edges) ++table.offsets[e.a + 1], ++table.offsets[e.b + 1];
  std::partial_sum(table.offsets.begin(), table.offsets.end(), table.offsets.begin());
  table.indices.resize(table.offsets.back());
  std::vector<std::int32_t> next(table.offsets.begin(), table.offsets.end() - 1);
  // Lexicographic order of the edges leaves every row ascending.
  for (const VertexPair e : edges) {
    table.indices[next[e.a]++] = e.b;
    table.indices[next[e.b]++] = e.a;
  }
  return table;
}

Csr boundary_loops(View<const Tri> faces, int n_vertices) {
  const HalfEdgeRows rows = half_edge_rows(faces, n_vertices, 1);
  DisjointSets fans = corner_fans(rows, faces.n);
  Csr loops = boundary_corner_loops(faces, rows, fans);
  const std::int32_t* vertex = corner_vertices(faces);
  for (std::int32_t& corner : loops.indices) corner = vertex[corner];
  return loops;
}

MeshReport mesh_report(MeshView mesh, int threads) {
  const int n_vertices = mesh.vertices.n;
  MeshReport r{};
  r.vertices = n_vertices;
  r.faces = mesh.faces.n;

  const HalfEdgeRows rows = half_edge_rows(mesh.faces, n_vertices, threads);
  for_each_edge(rows, [&](int, int, const HalfEdge* first, const HalfEdge* last) {
    ++r.edges;
    r.boundary_edges += last - first == 1;
    r.non_manifold_edges += last - first > 2;
    r.inconsistent_edges += last - first == 2 && first[0].ascending == first[1].ascending;
  });

  DisjointSets fans = corner_fans(rows, mesh.faces.n);
  r.boundary_loops =
      static_cast<int>(boundary_corner_loops(mesh.faces, rows, fans).offsets.size()) - 1;

  DisjointSets parts(n_vertices);
  std::vector<std::uint8_t> referenced(n_vertices, 0), used(n_vertices, 0), fans_of(n_vertices, 0);
  const std::int32_t* vertex = corner_vertices(mesh.faces);
  for (int f = 0; f < mesh.faces.n; ++f) {
    const Tri t = mesh.faces[f];
    referenced[t.v0] = referenced[t.v1] = referenced[t.v2] = 1;
    if (is_degenerate(t)) {
      ++r.degenerate_faces;
      continue;
    }
    r.zero_area_faces += is_zero_area(mesh, t);
    used[t.v0] = used[t.v1] = used[t.v2] = 1;
    parts.join(t.v0, t.v1);
    parts.join(t.v1, t.v2);
    for (int c = 3 * f; c < 3 * f + 3; ++c)
      if (fans.parent[c] == c && fans_of[vertex[c]] < 2) ++fans_of[vertex[c]];
  }
  for (int v = 0; v < n_vertices; ++v) {
    r.components += used[v] && parts.parent[v] == v;
    r.non_manifold_vertices += fans_of[v] > 1;
    r.unreferenced_vertices += !referenced[v];
    r.non_finite_vertices += !is_finite(mesh.vertices[v]);
  }
  return r;
}

}  // namespace e3d
