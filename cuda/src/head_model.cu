// head_model.cu — mean + basis products, a thread a coordinate, then sparse rows level by level.
#include <algorithm>

#include "extreme3d/cuda/head_model.h"

namespace e3d::cuda {
namespace {

// Components that a thread reads before it adds them: enough in flight to hide the memory.
constexpr int kBatch = 16;

// sum + Σ coefficients_k components_k[i]; the same order for every i, so that what is symmetric
// stays so.
E3D_HD inline float add_components(float sum, View<const float> coefficients,
                                   View<const float> components, int n, int i) {
  for (int begin = 0; begin < coefficients.n; begin += kBatch) {
    float coefficient[kBatch], component[kBatch];
    for (int j = 0; j < kBatch; ++j) {
      const int k = std::min(begin + j, coefficients.n - 1);  // no branch between the reads
      coefficient[j] = coefficients[k];
      component[j] = components[k * n + i];
      if (begin + j > k) coefficient[j] = 0.f;
    }
    for (int j = 0; j < kBatch; ++j) sum = std::fma(coefficient[j], component[j], sum);
  }
  return sum;
}

E3D_KERNEL basis_kernel(LinearBasis basis, View<const float> alpha, View<const float> eta,
                        View<float> out) {
  const int i = thread_index();
  if (i >= out.n) return;
  const float shape = add_components(basis.mean[i], alpha, basis.identity, out.n, i);
  out[i] = add_components(shape, eta, basis.expression, out.n, i);
}

E3D_KERNEL rows_kernel(RowOperator op, View<const Vec3> in, View<Vec3> out) {
  const int r = thread_index();
  if (r < out.n) out[r] = apply_row(op, in, r);
}

template <class T>
DeviceArray<T> copied(View<const T> a) {
  return {a.data, static_cast<std::size_t>(a.n)};
}

}  // namespace

HeadEvaluator::HeadEvaluator(const LinearBasis& basis, const std::vector<RowOperator>& levels)
    : mean_(copied(basis.mean)),
      identity_(copied(basis.identity)),
      expression_(copied(basis.expression)) {
  std::size_t vertices = mean_.size() / 3;
  for (const RowOperator& op : levels) {
    levels_.push_back(
        {copied(op.indptr), copied(op.indices), copied(op.weights), DeviceArray<Vec3>(vertices)});
    vertices = op.rows();
  }
}

int HeadEvaluator::vertex_count() const {
  return static_cast<int>(levels_.empty() ? mean_.size() / 3 : levels_.back().indptr.size() - 1);
}

void HeadEvaluator::evaluate(View<const float> identity, View<const float> expression,
                             View<Vec3> out, Stream s) const {
  const View<Vec3> coarse = levels_.empty() ? out : levels_[0].vertices.view();
  const LinearBasis basis{mean_.cview(), identity_.cview(), expression_.cview()};
  const View<float> floats{reinterpret_cast<float*>(coarse.data), 3 * coarse.n};
  launch(basis_kernel, floats.n, s, basis, identity, expression, floats);
  for (std::size_t k = 0; k < levels_.size(); ++k) {
    const Level& level = levels_[k];
    const RowOperator op{level.indptr.cview(), level.indices.cview(), level.weights.cview()};
    const View<Vec3> next = k + 1 < levels_.size() ? levels_[k + 1].vertices.view() : out;
    launch(rows_kernel, next.n, s, op, level.vertices.cview(), next);
  }
}

}  // namespace e3d::cuda
