// head_model.cpp — mean + basis products by column blocks that stay in L1, then sparse rows.
#include "extreme3d/head_model.h"

#include <algorithm>

#include "extreme3d/parallel.h"

namespace e3d {
namespace {

constexpr int kColumnBlock = 1024;  // floats of output kept hot while the components stream by
constexpr int kRowBlock = 4096;

struct Term {
  float coefficient;
  const float* component;
};

// Four components at a time: one load and store of the output for four products.
void accumulate(const std::vector<Term>& terms, int begin, int end, float* out) {
  std::size_t t = 0;
  for (; t + 4 <= terms.size(); t += 4) {
    const float a = terms[t].coefficient, b = terms[t + 1].coefficient;
    const float c = terms[t + 2].coefficient, d = terms[t + 3].coefficient;
    const float* p = terms[t].component;
    const float* q = terms[t + 1].component;
    const float* r = terms[t + 2].component;
    const float* s = terms[t + 3].component;
    for (int i = begin; i < end; ++i) out[i] += (a * p[i] + b * q[i]) + (c * r[i] + d * s[i]);
  }
  for (; t < terms.size(); ++t) {
    const float a = terms[t].coefficient;
    const float* p = terms[t].component;
    for (int i = begin; i < end; ++i) out[i] += a * p[i];
  }
}

}  // namespace

void evaluate_basis(const LinearBasis& basis, View<const float> alpha, View<const float> eta,
                    View<float> out, int threads) {
  const int n = basis.mean.n;
  std::vector<Term> terms;
  terms.reserve(static_cast<std::size_t>(alpha.n) + eta.n);
  for (int k = 0; k < alpha.n; ++k)
    if (alpha[k] != 0.f)
      terms.push_back({alpha[k], basis.identity.data + static_cast<std::size_t>(k) * n});
  for (int e = 0; e < eta.n; ++e)
    if (eta[e] != 0.f)
      terms.push_back({eta[e], basis.expression.data + static_cast<std::size_t>(e) * n});
  parallel_for(n, threads, kColumnBlock, [&](int begin, int end) {
    std::copy(basis.mean.data + begin, basis.mean.data + end, out.data + begin);
    accumulate(terms, begin, end, out.data);
  });
}

void apply_rows(const RowOperator& op, View<const Vec3> in, View<Vec3> out, int threads) {
  parallel_for(op.rows(), threads, kRowBlock, [&](int begin, int end) {
    for (int r = begin; r < end; ++r) out[r] = apply_row(op, in, r);
  });
}

void evaluate_head(const LinearBasis& basis, const std::vector<RowOperator>& levels,
                   View<const float> alpha, View<const float> eta, View<Vec3> out, int threads) {
  const auto floats = [](View<Vec3> v) {
    return View<float>{reinterpret_cast<float*>(v.data), 3 * v.n};
  };
  if (levels.empty()) {
    evaluate_basis(basis, alpha, eta, floats(out), threads);
    return;
  }
  std::vector<Vec3> current(basis.mean.n / 3), next;
  evaluate_basis(basis, alpha, eta, floats({current.data(), static_cast<int>(current.size())}),
                 threads);
  for (std::size_t level = 0; level < levels.size(); ++level) {
    const View<const Vec3> in{current.data(), static_cast<int>(current.size())};
    if (level + 1 == levels.size()) {
      apply_rows(levels[level], in, out, threads);
    } else {
      next.resize(levels[level].rows());
      apply_rows(levels[level], in, {next.data(), levels[level].rows()}, threads);
      current.swap(next);
    }
  }
}

}  // namespace e3d
