// aggregation.h — a coarse space for functions on a mesh, from its topology alone.
//
// Vaněk, Mandel, Brezina. Algebraic multigrid by smoothed aggregation for second and fourth order
// elliptic problems. 1996. Smoothed here by means over rings instead of the matrix, so that one
// space serves all weights and all boundaries.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "extreme3d/mesh.h"

namespace e3d::cuda {

// Row i holds (columns[k], weights[k]) for k in [offsets[i], offsets[i + 1]), columns ascending.
struct SparseRows {
  int n_columns = 0;
  std::vector<int> offsets, columns;
  std::vector<float> weights;
};

// Disjoint rings that cover a graph but for what lies between them, which joins the ring that most
// of its neighbours are of. graph: (n,) rows of neighbours. Returns each vertex's aggregate.
inline std::vector<int> aggregate_rings(const Csr& graph) {
  const int n = static_cast<int>(graph.offsets.size()) - 1;
  const auto ring = [&](int i) {
    return View<const int>{graph.indices.data() + graph.offsets[i],
                           graph.offsets[i + 1] - graph.offsets[i]};
  };
  std::vector<int> aggregate(n, -1);
  int count = 0;
  for (int i = 0; i < n; ++i) {
    const View<const int> around = ring(i);
    if (aggregate[i] >= 0 ||
        std::any_of(around.data, around.data + around.n, [&](int j) { return aggregate[j] >= 0; }))
      continue;
    aggregate[i] = count;
    for (int k = 0; k < around.n; ++k) aggregate[around[k]] = count;
    ++count;
  }
  for (int i = 0; i < n; ++i) {
    if (aggregate[i] >= 0) continue;
    const View<const int> around = ring(i);  // one of them at least is in an aggregate by now
    int most = 0;
    for (int k = 0; k < around.n; ++k) {
      const int a = aggregate[around[k]];
      int votes = 0;
      for (int l = 0; l < around.n; ++l) votes += aggregate[around[l]] == a;
      if (a >= 0 && votes > most) {
        most = votes;
        aggregate[i] = a;
      }
    }
  }
  return aggregate;
}

// Columns are hats: the aggregates' indicators after `steps` means over closed rings. degree: (n,)
// neighbours of each vertex on the whole mesh, of which the graph may be a part; hats are 0 beyond.
inline SparseRows smoothed_aggregates(const Csr& graph, const std::vector<int>& degree, int steps) {
  const std::vector<int> aggregate = aggregate_rings(graph);
  const int n = static_cast<int>(aggregate.size());
  using Entry = std::pair<int, double>;
  std::vector<std::vector<Entry>> rows(n);
  SparseRows out;
  for (int i = 0; i < n; ++i) {
    rows[i] = {{aggregate[i], 1.0}};
    out.n_columns = std::max(out.n_columns, aggregate[i] + 1);
  }
  for (int step = 0; step < steps; ++step) {
    std::vector<std::vector<Entry>> smooth(n);
    for (int i = 0; i < n; ++i) {
      std::vector<Entry> sum = rows[i];
      for (int e = graph.offsets[i]; e < graph.offsets[i + 1]; ++e)
        sum.insert(sum.end(), rows[graph.indices[e]].begin(), rows[graph.indices[e]].end());
      std::sort(sum.begin(), sum.end());
      for (const auto& [column, weight] : sum) {
        if (smooth[i].empty() || smooth[i].back().first != column)
          smooth[i].emplace_back(column, 0.0);
        smooth[i].back().second += weight / (degree[i] + 1);
      }
    }
    rows = std::move(smooth);
  }
  out.offsets = {0};
  for (const auto& row : rows) {
    for (const auto& [column, weight] : row) {
      out.columns.push_back(column);
      out.weights.push_back(static_cast<float>(weight));
    }
    out.offsets.push_back(static_cast<int>(out.columns.size()));
  }
  return out;
}

}  // namespace e3d::cuda
