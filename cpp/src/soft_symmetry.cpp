// soft_symmetry.cpp — Eq. 9 as a Dirichlet problem, solved by Eigen's sparse Cholesky.
#include "extreme3d/soft_symmetry.h"

#include <Eigen/OrderingMethods>
#include <Eigen/SparseCholesky>
#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>

#include "extreme3d/laplacian.h"
#include "extreme3d/mesh.h"
#include "extreme3d/parallel.h"

namespace e3d {

namespace {

constexpr int kGrain = 2048;

using SparseMatrix = Eigen::SparseMatrix<double, Eigen::ColMajor, int>;
// Of the upper triangle: the one that Eigen factorises without a copy.
using Cholesky = Eigen::SimplicialLLT<SparseMatrix, Eigen::Upper, Eigen::NaturalOrdering<int>>;

bool all_finite(View<const Vec3> x) {
  const float* values = &x.data->x;
  std::uint32_t most = 0;  // of the bits without the sign: compilers vectorise this
  for (int i = 0; i < 3 * x.n; ++i)
    most = std::max(most, std::bit_cast<std::uint32_t>(values[i]) & 0x7fffffffu);
  return most < std::bit_cast<std::uint32_t>(std::numeric_limits<float>::infinity());
}

// Right-hand sides, then solutions, of one unknown; the fourth fills a register.
struct alignas(32) Row {
  double x[4];
};

// y -= a x.
void subtract(double a, const Row& x, Row& y) {
  for (int d = 0; d < 4; ++d) y.x[d] -= a * x.x[d];
}
void divide(double a, Row& x) {
  for (double& value : x.x) value /= a;
}

// L Lᵀ x = b for all right-hand sides at once. The diagonal comes first in each column of L.
void solve_in_place(const SparseMatrix& lower, std::vector<Row>& b) {
  const int n = static_cast<int>(b.size());
  const int *start = lower.outerIndexPtr(), *row = lower.innerIndexPtr();
  const double* value = lower.valuePtr();
  for (int c = 0; c < n; ++c) {
    divide(value[start[c]], b[c]);
    for (int k = start[c] + 1; k < start[c + 1]; ++k) subtract(value[k], b[c], b[row[k]]);
  }
  for (int c = n; c-- > 0;) {
    for (int k = start[c] + 1; k < start[c + 1]; ++k) subtract(value[k], b[row[k]], b[c]);
    divide(value[start[c]], b[c]);
  }
}

// Approximate minimum degree order of the vertices of the region.
std::vector<int> elimination_order(const EdgeRows& edges, View<const std::uint8_t> region) {
  std::vector<int> vertices, local(region.n, -1);
  for (int i = 0; i < region.n; ++i)
    if (region[i]) {
      local[i] = static_cast<int>(vertices.size());
      vertices.push_back(i);
    }
  const int n = static_cast<int>(vertices.size());
  std::vector<Eigen::Triplet<double, int>> pattern;
  for (int r = 0; r < n; ++r) {
    const int i = vertices[r];
    pattern.emplace_back(r, r, 1.0);
    for (int e = edges.offsets[i]; e < edges.offsets[i + 1]; ++e)
      if (const int c = local[edges.neighbors[e]]; c >= 0) pattern.emplace_back(r, c, 1.0);
  }
  SparseMatrix graph(n, n);
  graph.setFromTriplets(pattern.begin(), pattern.end());
  Eigen::PermutationMatrix<Eigen::Dynamic, Eigen::Dynamic, int> permutation;
  Eigen::AMDOrdering<int>()(graph, permutation);
  std::vector<int> order(n);
  for (int k = 0; k < n; ++k) order[k] = vertices[permutation.indices()[k]];
  return order;
}

// Unknowns that are connected to the boundary; the others would leave the matrix singular.
std::vector<std::uint8_t> reachable_unknowns(const EdgeRows& edges,
                                             const std::vector<std::uint8_t>& unknown) {
  const int n = edges.n_vertices();
  std::vector<std::uint8_t> reached(n, 0);
  std::vector<int> queue;
  for (int i = 0; i < n; ++i)
    if (unknown[i])
      for (int e = edges.offsets[i]; e < edges.offsets[i + 1]; ++e)
        if (!unknown[edges.neighbors[e]]) {
          reached[i] = 1;
          queue.push_back(i);
          break;
        }
  while (!queue.empty()) {
    const int i = queue.back();
    queue.pop_back();
    for (int e = edges.offsets[i]; e < edges.offsets[i + 1]; ++e) {
      const int j = edges.neighbors[e];
      if (unknown[j] && !reached[j]) {
        reached[j] = 1;
        queue.push_back(j);
      }
    }
  }
  return reached;
}

}  // namespace

std::vector<std::uint8_t> paired_vertices(const EdgeRows& edges, View<const int> mirror) {
  std::vector<std::uint8_t> paired(mirror.n, 1);
  for (int i = 0; i < mirror.n; ++i) {
    if (mirror[i] != i) continue;
    const auto begin = edges.neighbors.begin() + edges.offsets[i];
    const auto end = edges.neighbors.begin() + edges.offsets[i + 1];
    paired[i] = std::any_of(begin, end, [&](int j) {
      return mirror[j] != j && std::binary_search(begin, end, mirror[j]);
    });
  }
  return paired;
}

struct SoftSymmetrySolver::Internals {
  EdgeRows edges;
  std::vector<int> mirror;           // (V,)
  std::vector<int> order;            // vertices of the region, in elimination order
  std::vector<std::uint8_t> paired;  // (V,)
};

SoftSymmetrySolver::SoftSymmetrySolver(View<const Tri> faces, View<const int> mirror,
                                       View<const std::uint8_t> region)
    : internals_(std::make_unique<Internals>()) {
  const int n = mirror.n;
  if (region.n != n) throw std::invalid_argument("mirror and region differ in length");
  require_involution(mirror);
  internals_->edges = build_edge_rows(faces, n);
  internals_->mirror.assign(mirror.data, mirror.data + n);
  internals_->order = elimination_order(internals_->edges, region);
  internals_->paired = paired_vertices(internals_->edges, mirror);
}

SoftSymmetrySolver::~SoftSymmetrySolver() = default;
SoftSymmetrySolver::SoftSymmetrySolver(SoftSymmetrySolver&&) noexcept = default;

int SoftSymmetrySolver::n_vertices() const { return internals_->edges.n_vertices(); }

SymmetrySolution SoftSymmetrySolver::solve(View<const Vec3> foundation, View<const Vec3> detailed,
                                           View<const std::uint8_t> visible, int threads) const {
  const auto& [edges, mirror, order, paired] = *internals_;
  const int n_vertices = edges.n_vertices();
  if (foundation.n != n_vertices || detailed.n != n_vertices || visible.n != n_vertices)
    throw std::invalid_argument("foundation, detailed and visible should have " +
                                std::to_string(n_vertices) + " rows");
  if (!all_finite(foundation) || !all_finite(detailed))
    throw std::invalid_argument("foundation and detailed vertices should be finite");

  SymmetrySolution solution;
  solution.vertices.assign(detailed.data, detailed.data + n_vertices);
  solution.recovery.assign(n_vertices, Recovery::kKept);

  std::vector<std::uint8_t> unknown(n_vertices, 0);
  for (const int i : order) unknown[i] = !visible[i];
  unknown = reachable_unknowns(edges, unknown);
  std::vector<int> rows, column(n_vertices, -1);
  for (const int i : order)
    if (unknown[i]) {
      column[i] = static_cast<int>(rows.size());
      rows.push_back(i);
    }
  const int n = static_cast<int>(rows.size());
  if (n == 0) return solution;

  const View<const int> mirror_view{mirror.data(), n_vertices};
  const View<const std::uint8_t> paired_view{paired.data(), n_vertices};
  parallel_for(n, threads, kGrain, [&](int begin, int end) {
    for (int c = begin; c < end; ++c) {
      const int i = rows[c];
      const View<const int> ring{edges.neighbors.data() + edges.offsets[i],
                                 edges.offsets[i + 1] - edges.offsets[i]};
      solution.recovery[i] = recovery_of(mirror_view, paired_view, visible, i, ring);
    }
  });

  // R's mirror image laid out on the vertices of this side: its Laplacian at i is the reflected
  // Laplacian at the mirror vertex of i, with the weights to go with it
  std::vector<Vec3> mirrored(n_vertices);
  parallel_for(n_vertices, threads, kGrain * 8, [&](int begin, int end) {
    for (int i = begin; i < end; ++i) mirrored[i] = reflect_x(detailed[mirror[i]]);
  });
  const View<const Vec3> mirrored_view{mirrored.data(), n_vertices};

  // upper triangle of the matrix, by columns, and the right-hand side
  SparseMatrix matrix(n, n);
  int* starts = matrix.outerIndexPtr();
  for (int c = 0; c < n; ++c) {
    const int i = rows[c];
    int entries = 1;
    for (int e = edges.offsets[i]; e < edges.offsets[i + 1]; ++e) {
      const int r = column[edges.neighbors[e]];
      entries += r >= 0 && r < c;
    }
    starts[c + 1] = starts[c] + entries;
  }
  matrix.resizeNonZeros(starts[n]);
  std::vector<Row> rhs(n);
  parallel_for(n, threads, kGrain, [&](int begin, int end) {
    std::vector<std::pair<int, double>> entries;
    for (int c = begin; c < end; ++c) {
      const int i = rows[c];
      const Recovery how = solution.recovery[i];
      const View<const Vec3> m = how == Recovery::kMirrored ? mirrored_view : foundation;
      double diagonal = 0.0;
      Row b{};
      entries.clear();
      for (int e = edges.offsets[i]; e < edges.offsets[i + 1]; ++e) {
        const int j = edges.neighbors[e];
        const double w =
            edge_weight(weight_is_mirrored(how, solution.recovery[j]) ? mirrored_view : foundation,
                        i, j, edges.opposite0[e], edges.opposite1[e]);
        diagonal += w;
        b.x[0] += w * (double(m[i].x) - m[j].x);
        b.x[1] += w * (double(m[i].y) - m[j].y);
        b.x[2] += w * (double(m[i].z) - m[j].z);
        if (column[j] < 0) {
          b.x[0] += w * detailed[j].x;
          b.x[1] += w * detailed[j].y;
          b.x[2] += w * detailed[j].z;
        } else if (column[j] < c) {
          entries.emplace_back(column[j], -w);
        }
      }
      std::sort(entries.begin(), entries.end());
      int k = starts[c];
      for (const auto& [r, value] : entries) {
        matrix.innerIndexPtr()[k] = r;
        matrix.valuePtr()[k++] = value;
      }
      matrix.innerIndexPtr()[k] = c;
      matrix.valuePtr()[k] = diagonal;
      rhs[c] = b;
    }
  });

  Cholesky cholesky;
  cholesky.analyzePattern(matrix);
  cholesky.factorize(matrix);
  if (cholesky.info() != Eigen::Success)
    throw std::runtime_error("soft symmetry: the Laplacian of the hidden region is not definite");
  solve_in_place(cholesky.matrixL().nestedExpression(), rhs);
  for (int c = 0; c < n; ++c) {
    const auto& [x, y, z, unused] = rhs[c].x;
    solution.vertices[rows[c]] = {float(x), float(y), float(z)};
  }
  return solution;
}

}  // namespace e3d
