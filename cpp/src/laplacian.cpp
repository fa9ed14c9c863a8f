// laplacian.cpp — edge rows of a mesh and their cotangent weights.
#include "extreme3d/laplacian.h"

#include <algorithm>
#include <array>
#include <stdexcept>
#include <string>

#include "extreme3d/parallel.h"

namespace e3d {

EdgeRows build_edge_rows(View<const Tri> faces, int n_vertices) {
  for (int f = 0; f < faces.n; ++f)
    if (faces[f].v0 == faces[f].v1 || faces[f].v1 == faces[f].v2 || faces[f].v2 == faces[f].v0)
      throw std::invalid_argument("face " + std::to_string(f) + " names a vertex twice");
  // every triangle offers both directions of its three edges, with the vertex opposite to them
  struct HalfEdge {
    int to, opposite;
  };
  std::vector<int> counts(n_vertices + 1, 0);
  for (int f = 0; f < faces.n; ++f)
    for (const int v : {faces[f].v0, faces[f].v1, faces[f].v2}) counts[v + 1] += 2;
  for (int v = 0; v < n_vertices; ++v) counts[v + 1] += counts[v];
  std::vector<HalfEdge> half_edges(counts[n_vertices]);
  std::vector<int> fill(counts.begin(), counts.end() - 1);
  for (int f = 0; f < faces.n; ++f) {
    const std::array<int, 3> v{faces[f].v0, faces[f].v1, faces[f].v2};
    for (int k = 0; k < 3; ++k) {
      const int a = v[k], b = v[(k + 1) % 3], c = v[(k + 2) % 3];
      half_edges[fill[a]++] = {b, c};
      half_edges[fill[a]++] = {c, b};
    }
  }

  EdgeRows rows;
  rows.offsets.assign(n_vertices + 1, 0);
  rows.neighbors.reserve(half_edges.size() / 2 + n_vertices);
  rows.opposite0.reserve(rows.neighbors.capacity());
  rows.opposite1.reserve(rows.neighbors.capacity());
  for (int i = 0; i < n_vertices; ++i) {
    const auto begin = half_edges.begin() + counts[i], end = half_edges.begin() + counts[i + 1];
    std::sort(begin, end, [](const HalfEdge& x, const HalfEdge& y) {
      return x.to != y.to ? x.to < y.to : x.opposite < y.opposite;
    });
    for (auto e = begin; e != end;) {
      auto next = e;
      while (next != end && next->to == e->to) ++next;
      if (next - e > 2)
        throw std::invalid_argument("edge (" + std::to_string(i) + ", " + std::to_string(e->to) +
                                    ") has more than two triangles");
      rows.neighbors.push_back(e->to);
      rows.opposite0.push_back(e->opposite);
      rows.opposite1.push_back(next - e == 2 ? (e + 1)->opposite : -1);
      e = next;
    }
    rows.offsets[i + 1] = static_cast<int>(rows.neighbors.size());
  }
  return rows;
}

std::vector<float> cotangent_weights(const EdgeRows& edges, View<const Vec3> x, int threads) {
  constexpr int kGrain = 2048;
  std::vector<float> weights(edges.neighbors.size());
  parallel_for(x.n, threads, kGrain, [&](int begin, int end) {
    for (int i = begin; i < end; ++i)
      for (int e = edges.offsets[i]; e < edges.offsets[i + 1]; ++e)
        weights[e] = edge_weight(x, i, edges.neighbors[e], edges.opposite0[e], edges.opposite1[e]);
  });
  return weights;
}

}  // namespace e3d
