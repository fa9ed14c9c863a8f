// soft_symmetry.cu — Eq. 9 for one photo as one program of the grid.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <stdexcept>
#include <vector>

#include "extreme3d/cuda/aggregation.h"
#include "extreme3d/cuda/grid.h"
#include "extreme3d/cuda/memory.h"
#include "extreme3d/cuda/soft_symmetry.h"
#include "extreme3d/mesh.h"

namespace e3d::cuda {
namespace {

// A vector a vertex in double: three right-hand sides are solved together.
using Double3 = Sum3;
E3D_HD inline Double3 operator*(double s, Double3 a) { return {s * a.x, s * a.y, s * a.z}; }
E3D_HD inline Double3 difference(Vec3 a, Vec3 b) {
  return {double(a.x) - b.x, double(a.y) - b.y, double(a.z) - b.z};
}
E3D_HD inline double dot(Double3 a, Double3 b) { return a.x * b.x + a.y * b.y + a.z * b.z; }

// Of the coarse space; measured, as is the rest of the method, in docs/gpu.md.
constexpr int kMeans = 2;
// How much more Jacobi on the mesh counts than on the coarse space, whose hats overlap.
constexpr double kFineScale = 1.5;
// mm, of √(r · M r): the largest error of a vertex is a tenth of it in photos, on bad triangles
// less than it.
constexpr double kTolerance = 5e-5;
constexpr int kMaxIterations = 1000;

// What depends on the topology. Row: a vertex of the region; row n stands for all other vertices.
struct Tables {
  View<const std::int32_t> vertex;         // (N,) of each row
  View<const std::int32_t> row_of_vertex;  // (V,) N outside the region
  View<const std::int32_t> mirror;         // (V,)
  View<const std::uint8_t> paired;         // (V,)
  View<const std::int32_t> island;  // (V,) component of the mesh if it lies in the region, else -1
  CsrView rings;                    // (N + 1,), (E,) neighbours, vertices
  View<const std::int32_t> opposite0, opposite1;  // (E,) as in EdgeRows
  View<const std::int32_t> ring_rows;             // (E,) neighbours, rows
  // The coarse space P, K columns, with zeros where A P is not zero.
  CsrView hats;                   // (N + 1,), columns ascending
  View<const float> hat_weights;  // of each entry
  // Its transpose without the zeros.
  CsrView supports;  // (K + 1,), rows
  View<const float> support_weights;
  View<const std::int32_t> support_entries;  // of hats
};

// Solves for the displacement from the detailed mesh, 0 where vertices are known. Unknowns of both
// levels are displacements y whose sum y_fine + P y_coarse is the preconditioned residual u; with
// A P at hand, A u follows from y without a barrier between.
struct Program {
  Tables of;
  // input and output
  View<const Vec3> foundation, detailed;
  View<const std::uint8_t> visible;
  View<Vec3> out;
  View<std::uint8_t> recovery;
  View<double> status;  // iterations, residual
  // scratch
  View<std::int32_t> anchored;       // islands with a known vertex
  View<Vec3> mirrored;               // (V,)
  View<float> weights;               // (E,)
  View<double> diagonal;             // (N,) 0: known
  View<double> coupling;             // A P, as hats
  View<Double3> x, r, u, w, p, s;    // (N,) w = A u, s = A p
  View<Double3> y;                   // (N + 1,) fine unknowns of u, 0 where known
  View<double> inverse_diagonal;     // (K,) of Pᵀ A P, 0 where all is known
  View<Double3> coarse_r, coarse_s;  // (K,) Pᵀ r, Pᵀ s
  View<Double3> coarse_y;            // (K,)

  __device__ Recovery recovery_at(int vertex) const {
    return static_cast<Recovery>(recovery[vertex]);
  }

  __device__ void classify(int row) const {
    const int i = of.vertex[row], begin = of.rings.offsets[row];
    const int island = of.island[i];
    const bool unknown = !visible[i] && (island < 0 || anchored[island]);
    const View<const int> ring{&of.rings.indices[begin], of.rings.offsets[row + 1] - begin};
    const Recovery how =
        unknown ? recovery_of(of.mirror, of.paired, visible, i, ring) : Recovery::kKept;
    recovery[i] = static_cast<std::uint8_t>(how);
  }

  // A's row, the residual of the detailed mesh, and the row of A P.
  __device__ void set_up_row(int row) const {
    const Double3 zero{0.0, 0.0, 0.0};
    const int i = of.vertex[row];
    const Recovery how = recovery_at(i);
    x[row] = r[row] = u[row] = w[row] = p[row] = s[row] = y[row] = zero;
    diagonal[row] = 0.0;
    if (how == Recovery::kKept) return;
    const View<const Vec3> surface{how == Recovery::kMirrored ? mirrored.data : foundation.data,
                                   foundation.n};
    const int begin = of.rings.offsets[row], end = of.rings.offsets[row + 1];
    double sum = 0.0;
    Double3 residual = zero;
    for (int e = begin; e < end; ++e) {
      const int j = of.rings.indices[e];
      const View<const Vec3> shape{
          weight_is_mirrored(how, recovery_at(j)) ? mirrored.data : foundation.data, foundation.n};
      const float weight = edge_weight(shape, i, j, of.opposite0[e], of.opposite1[e]);
      weights[e] = weight;
      sum += weight;
      residual = residual + double(weight) * (difference(surface[i], surface[j]) +
                                              -1.0 * difference(detailed[i], detailed[j]));
    }
    diagonal[row] = sum;
    r[row] = residual;
    y[row] = (kFineScale / sum) * residual;
    for (int h = of.hats.offsets[row]; h < of.hats.offsets[row + 1]; ++h) {
      const int column = of.hats.indices[h];
      double value = sum * of.hat_weights[h];
      for (int e = begin; e < end; ++e) {
        if (recovery_at(of.rings.indices[e]) == Recovery::kKept) continue;
        const int neighbor = of.ring_rows[e];
        for (int k = of.hats.offsets[neighbor]; k < of.hats.offsets[neighbor + 1]; ++k)
          if (of.hats.indices[k] == column) value -= double(weights[e]) * of.hat_weights[k];
      }
      coupling[h] = value;
    }
  }

  // u = M r and w = A u, where r · u and w · u.
  __device__ Sum3 precondition_row(int row) const {
    const double d = diagonal[row];
    if (d == 0.0) return {0.0, 0.0, 0.0};
    Double3 ui = y[row], wi = d * ui;
    for (int e = of.rings.offsets[row]; e < of.rings.offsets[row + 1]; ++e)
      wi = wi + -double(weights[e]) * y[of.ring_rows[e]];
    for (int h = of.hats.offsets[row]; h < of.hats.offsets[row + 1]; ++h) {
      const Double3 c = coarse_y[of.hats.indices[h]];
      ui = ui + double(of.hat_weights[h]) * c;
      wi = wi + coupling[h] * c;
    }
    u[row] = ui;
    w[row] = wi;
    return {dot(r[row], ui), dot(wi, ui), 0.0};
  }

  __device__ void step_row(int row, double alpha, double beta) const {
    const double d = diagonal[row];
    if (d == 0.0) return;
    const Double3 pi = u[row] + beta * p[row], si = w[row] + beta * s[row];
    const Double3 ri = r[row] + -alpha * si;
    p[row] = pi;
    s[row] = si;
    x[row] = x[row] + alpha * pi;
    r[row] = ri;
    y[row] = (kFineScale / d) * ri;
  }

  __device__ void run(Grid& grid) const {
    const int n = of.vertex.n;
    if (anchored.n > 0) {
      grid.for_each(anchored.n, [&](int c) { anchored[c] = 0; });
      grid.sync();
      grid.for_each(visible.n, [&](int i) {
        if (visible[i] && of.island[i] >= 0) atomic_or(&anchored[of.island[i]], 1);
      });
      grid.sync();
    }
    grid.for_each(visible.n, [&](int i) {
      out[i] = detailed[i];
      mirrored[i] = reflect_x(detailed[of.mirror[i]]);
      if (of.row_of_vertex[i] == n) recovery[i] = static_cast<std::uint8_t>(Recovery::kKept);
    });
    grid.for_each(n, [&](int row) { classify(row); });
    grid.sync();
    grid.for_each(n, [&](int row) { set_up_row(row); });
    grid.sync();
    grid.for_each_row(
        of.supports.offsets,
        [&](int k) {
          const bool unknown = diagonal[of.supports.indices[k]] > 0.0;
          const double weight = of.support_weights[k];
          return Sum3{unknown ? weight * coupling[of.support_entries[k]] : 0.0, 0.0, 0.0};
        },
        [&](int c, Sum3 energy) { inverse_diagonal[c] = energy.x > 0.0 ? 1.0 / energy.x : 0.0; });
    grid.for_each_row(
        of.supports.offsets,
        [&](int k) { return double(of.support_weights[k]) * r[of.supports.indices[k]]; },
        [&](int c, Double3 sum) {
          coarse_r[c] = sum;
          coarse_s[c] = {0.0, 0.0, 0.0};
          coarse_y[c] = inverse_diagonal[c] * sum;
        });
    grid.sync();

    double alpha = 0.0, before = 0.0, squared = 0.0;
    int iterations = 0;
    for (;; ++iterations) {
      const Sum3 sums = grid.sum3(n, [&](int row) { return precondition_row(row); });
      squared = sums.x;
      if (!(squared > kTolerance * kTolerance) || iterations == kMaxIterations) break;
      const double beta = iterations ? squared / before : 0.0;
      const double curvature = iterations ? sums.y - beta * squared / alpha : sums.y;  // p · A p
      if (!(curvature > 0.0)) break;
      alpha = squared / curvature;
      before = squared;
      grid.for_each(n, [&](int row) { step_row(row, alpha, beta); });
      grid.for_each_row(
          of.supports.offsets,
          [&](int k) { return double(of.support_weights[k]) * w[of.supports.indices[k]]; },
          [&](int c, Double3 sum) {
            coarse_s[c] = sum + beta * coarse_s[c];
            coarse_r[c] = coarse_r[c] + -alpha * coarse_s[c];
            coarse_y[c] = inverse_diagonal[c] * coarse_r[c];
          });
      grid.sync();
    }

    grid.for_each(n, [&](int row) {
      if (diagonal[row] == 0.0) return;
      const int i = of.vertex[row];
      const Vec3 from = detailed[i];
      const Double3 by = x[row];
      out[i] = {float(from.x + by.x), float(from.y + by.y), float(from.z + by.z)};
    });
    grid.for_each(1, [&](int) {
      status[0] = iterations;
      status[1] = std::sqrt(squared);
    });
  }
};

// Components of the mesh that lie within the region, numbered; -1 for vertices of others.
std::vector<int> islands(const EdgeRows& edges, View<const std::uint8_t> region, int& count) {
  const int n = edges.n_vertices();
  std::vector<int> island(n, -1), members;
  std::vector<std::uint8_t> seen(n, 0);
  count = 0;
  for (int start = 0; start < n; ++start) {
    if (seen[start]) continue;
    seen[start] = 1;
    members = {start};
    bool inside = true;
    for (std::size_t k = 0; k < members.size(); ++k) {
      const int i = members[k];
      inside = inside && region[i];
      for (int e = edges.offsets[i]; e < edges.offsets[i + 1]; ++e)
        if (const int j = edges.neighbors[e]; !seen[j]) {
          seen[j] = 1;
          members.push_back(j);
        }
    }
    if (!inside) continue;
    for (const int i : members) island[i] = count;
    ++count;
  }
  return island;
}

// Rows of P with zeros added in columns that a neighbour has.
SparseRows with_columns_of_neighbours(const SparseRows& hats, const Csr& graph) {
  SparseRows out;
  out.n_columns = hats.n_columns;
  out.offsets = {0};
  std::vector<int> columns;
  for (std::size_t i = 0; i + 1 < hats.offsets.size(); ++i) {
    const auto add = [&](int row) {
      columns.insert(columns.end(), hats.columns.begin() + hats.offsets[row],
                     hats.columns.begin() + hats.offsets[row + 1]);
    };
    columns.clear();
    add(static_cast<int>(i));
    for (int e = graph.offsets[i]; e < graph.offsets[i + 1]; ++e) add(graph.indices[e]);
    std::sort(columns.begin(), columns.end());
    columns.erase(std::unique(columns.begin(), columns.end()), columns.end());
    for (const int c : columns) {
      float weight = 0.f;
      for (int k = hats.offsets[i]; k < hats.offsets[i + 1]; ++k)
        if (hats.columns[k] == c) weight = hats.weights[k];
      out.columns.push_back(c);
      out.weights.push_back(weight);
    }
    out.offsets.push_back(static_cast<int>(out.columns.size()));
  }
  return out;
}

using Ints = DeviceArray<std::int32_t>;

}  // namespace

struct SoftSymmetrySolver::Internals {
  Ints vertex, row_of_vertex, mirror, island, ring_offsets, ring, ring_rows, opposite0, opposite1;
  DeviceArray<std::uint8_t> paired;
  Ints hat_offsets, hats, support_offsets, supports, support_entries;
  DeviceArray<float> hat_weights, support_weights;
  Ints anchored;
  DeviceArray<Vec3> mirrored;
  DeviceArray<float> weights;
  DeviceArray<double> diagonal, coupling, inverse_diagonal, status{2};
  DeviceArray<Double3> x, r, u, w, p, s, y, coarse_r, coarse_s, coarse_y;
  GridScratch grid;
};

SoftSymmetrySolver::SoftSymmetrySolver(View<const Tri> faces, View<const int> mirror,
                                       View<const std::uint8_t> region)
    : internals_(std::make_unique<Internals>()) {
  if (region.n != mirror.n) throw std::invalid_argument("mirror and region differ in length");
  require_involution(mirror);
  const EdgeRows edges = build_edge_rows(faces, mirror.n);

  std::vector<int> vertex;
  for (int i = 0; i < region.n; ++i)
    if (region[i]) vertex.push_back(i);
  const int n = static_cast<int>(vertex.size());
  std::vector<int> row_of_vertex(region.n, n);
  for (int row = 0; row < n; ++row) row_of_vertex[vertex[row]] = row;

  Csr ring{{0}, {}}, graph{{0}, {}};  // neighbours of the region's vertices: all, in the region
  std::vector<int> ring_rows, opposite0, opposite1, degree;
  for (const int i : vertex) {
    for (int e = edges.offsets[i]; e < edges.offsets[i + 1]; ++e) {
      const int row = row_of_vertex[edges.neighbors[e]];
      ring.indices.push_back(edges.neighbors[e]);
      ring_rows.push_back(row);
      opposite0.push_back(edges.opposite0[e]);
      opposite1.push_back(edges.opposite1[e]);
      if (row < n) graph.indices.push_back(row);
    }
    ring.offsets.push_back(static_cast<int>(ring.indices.size()));
    graph.offsets.push_back(static_cast<int>(graph.indices.size()));
    degree.push_back(edges.offsets[i + 1] - edges.offsets[i]);
  }

  const SparseRows hats =
      with_columns_of_neighbours(smoothed_aggregates(graph, degree, kMeans), graph);
  std::vector<int> support_offsets(hats.n_columns + 1, 0);
  for (std::size_t k = 0; k < hats.columns.size(); ++k)
    if (hats.weights[k] > 0.f) ++support_offsets[hats.columns[k] + 1];
  for (int c = 0; c < hats.n_columns; ++c) support_offsets[c + 1] += support_offsets[c];
  std::vector<int> supports(support_offsets.back()), support_entries(supports.size());
  std::vector<float> support_weights(supports.size());
  std::vector<int> fill(support_offsets.begin(), support_offsets.end() - 1);
  for (int row = 0; row < n; ++row)
    for (int k = hats.offsets[row]; k < hats.offsets[row + 1]; ++k) {
      if (!(hats.weights[k] > 0.f)) continue;
      const int at = fill[hats.columns[k]]++;
      supports[at] = row;
      support_weights[at] = hats.weights[k];
      support_entries[at] = k;
    }

  int n_islands = 0;
  Internals& to = *internals_;
  to.island = Ints(islands(edges, region, n_islands));
  to.vertex = Ints(vertex);
  to.row_of_vertex = Ints(row_of_vertex);
  to.mirror = Ints(mirror.data, mirror.n);
  to.paired = DeviceArray<std::uint8_t>(paired_vertices(edges, mirror));
  to.ring_offsets = Ints(ring.offsets);
  to.ring = Ints(ring.indices);
  to.ring_rows = Ints(ring_rows);
  to.opposite0 = Ints(opposite0);
  to.opposite1 = Ints(opposite1);
  to.hat_offsets = Ints(hats.offsets);
  to.hats = Ints(hats.columns);
  to.hat_weights = DeviceArray<float>(hats.weights);
  to.support_offsets = Ints(support_offsets);
  to.supports = Ints(supports);
  to.support_weights = DeviceArray<float>(support_weights);
  to.support_entries = Ints(support_entries);
  to.anchored = Ints(n_islands);
  to.mirrored = DeviceArray<Vec3>(mirror.n);
  to.weights = DeviceArray<float>(ring.indices.size());
  to.diagonal = DeviceArray<double>(n);
  to.coupling = DeviceArray<double>(hats.columns.size());
  to.inverse_diagonal = DeviceArray<double>(hats.n_columns);
  for (DeviceArray<Double3>* a : {&to.x, &to.r, &to.u, &to.w, &to.p, &to.s})
    *a = DeviceArray<Double3>(n);
  to.y = DeviceArray<Double3>(n + 1);
  for (DeviceArray<Double3>* a : {&to.coarse_r, &to.coarse_s, &to.coarse_y})
    *a = DeviceArray<Double3>(hats.n_columns);
  fill_bytes(to.y.view(), 0, nullptr);
  fill_bytes(to.status.view(), 0, nullptr);
  wait(nullptr);
}

SoftSymmetrySolver::~SoftSymmetrySolver() = default;
SoftSymmetrySolver::SoftSymmetrySolver(SoftSymmetrySolver&&) noexcept = default;

int SoftSymmetrySolver::n_vertices() const { return static_cast<int>(internals_->mirror.size()); }

void SoftSymmetrySolver::solve(View<const Vec3> foundation, View<const Vec3> detailed,
                               View<const std::uint8_t> visible, View<Vec3> out,
                               View<std::uint8_t> recovery, Stream stream) const {
  const Internals& a = *internals_;
  const Tables tables{a.vertex.cview(),          a.row_of_vertex.cview(),
                      a.mirror.cview(),          a.paired.cview(),
                      a.island.cview(),          {a.ring_offsets.cview(), a.ring.cview()},
                      a.opposite0.cview(),       a.opposite1.cview(),
                      a.ring_rows.cview(),       {a.hat_offsets.cview(), a.hats.cview()},
                      a.hat_weights.cview(),     {a.support_offsets.cview(), a.supports.cview()},
                      a.support_weights.cview(), a.support_entries.cview()};
  const Program program{tables,
                        foundation,
                        detailed,
                        visible,
                        out,
                        recovery,
                        a.status.view(),
                        a.anchored.view(),
                        a.mirrored.view(),
                        a.weights.view(),
                        a.diagonal.view(),
                        a.coupling.view(),
                        a.x.view(),
                        a.r.view(),
                        a.u.view(),
                        a.w.view(),
                        a.p.view(),
                        a.s.view(),
                        a.y.view(),
                        a.inverse_diagonal.view(),
                        a.coarse_r.view(),
                        a.coarse_s.view(),
                        a.coarse_y.view()};
  const int coarse = static_cast<int>(a.inverse_diagonal.size());
  launch_grid(program, static_cast<int>(a.vertex.size()) + 32 * coarse, a.grid, stream);
}

SolveStatus SoftSymmetrySolver::status(Stream stream) const {
  double values[2];
  copy_to_host(values, internals_->status.data(), sizeof values, stream);
  wait(stream);
  return {static_cast<int>(values[0]), values[1], values[1] <= kTolerance};
}

}  // namespace e3d::cuda
