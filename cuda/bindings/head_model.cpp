// head_model.cpp — Python view of extreme3d/cuda/head_model.h.
#include "extreme3d/cuda/head_model.h"

#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <tuple>

#include "arrays.h"

namespace e3d::cuda::bind {
namespace {

using LevelArrays = std::tuple<HostArray<std::int32_t>, HostArray<std::int32_t>, HostArray<float>>;

// Checks a level that takes averages of n vertices.
RowOperator row_operator(const LevelArrays& arrays, int n) {
  const auto& [indptr, indices, weights] = arrays;
  const RowOperator op{view(indptr, "subdivision indptr"), view(indices, "subdivision indices"),
                       view(weights, "subdivision weights", indices.shape(0))};
  if (op.indptr.n < 1 || op.indptr[0] != 0 || op.indptr[op.rows()] != op.indices.n)
    throw std::invalid_argument("subdivision indptr should run from 0 to the number of indices");
  for (int r = 0; r < op.rows(); ++r)
    if (op.indptr[r] > op.indptr[r + 1])
      throw std::invalid_argument("subdivision indptr should not decrease");
  for (int k = 0; k < op.indices.n; ++k)
    if (op.indices[k] < 0 || op.indices[k] >= n)
      throw std::invalid_argument("subdivision indices has index " + std::to_string(op.indices[k]) +
                                  " outside [0, " + std::to_string(n) + ")");
  return op;
}

View<const float> flat(const HostArray<float>& a) { return {a.data(), static_cast<int>(a.size())}; }

}  // namespace

void bind_head_model(nb::module_& m) {
  nb::class_<HeadEvaluator>(m, "HeadEvaluator")
      .def(
          "__init__",
          [](HeadEvaluator* self, const HostArray<float>& mean, const HostArray<float>& identity,
             const HostArray<float>& expression, const std::vector<LevelArrays>& levels) {
            require_shape(mean, "mean", {-1, 3});
            const auto n = static_cast<std::int64_t>(mean.shape(0));
            require_shape(identity, "identity", {-1, n, 3});
            require_shape(expression, "expression", {-1, n, 3});
            if (n == 0) throw std::invalid_argument("mean should not be empty");
            std::vector<RowOperator> operators;
            int vertices = static_cast<int>(n);
            for (const LevelArrays& level : levels) {
              operators.push_back(row_operator(level, vertices));
              vertices = operators.back().rows();
            }
            new (self) HeadEvaluator({flat(mean), flat(identity), flat(expression)}, operators);
          },
          "mean"_array, "identity"_array, "expression"_array, "levels"_array)
      .def(
          "evaluate",
          [](const HeadEvaluator& head, const Array<const float>& identity,
             const Array<const float>& expression, const Array<float>& out, std::uintptr_t s) {
            head.evaluate(view(identity, "identity", head.identity_count()),
                          view(expression, "expression", head.expression_count()),
                          rows<Vec3>(out, "out", head.vertex_count()), stream(s));
          },
          "identity"_array, "expression"_array, "out"_array, "stream"_a = 0);
}

}  // namespace e3d::cuda::bind
