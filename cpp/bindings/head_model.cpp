// head_model.cpp — Python view of extreme3d/head_model.h.
#include "extreme3d/head_model.h"

#include <pybind11/stl.h>

#include <tuple>

#include "arrays.h"

namespace e3d::bind {
namespace {

using CsrArrays = std::tuple<Array<std::int32_t>, Array<std::int32_t>, Array<float>>;

// Keeps the model's arrays alive and checks them once, so that an evaluation only computes.
class HeadEvaluator {
 public:
  HeadEvaluator(Array<float> mean, Array<float> identity, Array<float> expression,
                std::vector<CsrArrays> levels)
      : mean_(std::move(mean)),
        identity_(std::move(identity)),
        expression_(std::move(expression)),
        level_arrays_(std::move(levels)) {
    require_shape(mean_, "mean", {-1, 3});
    require_shape(identity_, "identity", {-1, mean_.shape(0), 3});
    require_shape(expression_, "expression", {-1, mean_.shape(0), 3});
    const auto flat = [](const Array<float>& a) {
      return View<const float>{a.data(), static_cast<int>(a.size())};
    };
    basis_ = {flat(mean_), flat(identity_), flat(expression_)};
    n_vertices_ = static_cast<int>(mean_.shape(0));
    for (const auto& [indptr, indices, weights] : level_arrays_)
      add_level(indptr, indices, weights);
  }

  py::array_t<float> evaluate(const Array<float>& alpha, const Array<float>& eta,
                              int threads) const {
    const auto a = view(alpha, "identity coefficients", identity_.shape(0));
    const auto e = view(eta, "expression coefficients", expression_.shape(0));
    py::array_t<float> out({static_cast<py::ssize_t>(n_vertices_), py::ssize_t{3}});
    const View<Vec3> out_view{reinterpret_cast<Vec3*>(out.mutable_data()), n_vertices_};
    {
      const py::gil_scoped_release release;
      evaluate_head(basis_, levels_, a, e, out_view, threads);
    }
    return out;
  }

 private:
  void add_level(const Array<std::int32_t>& indptr, const Array<std::int32_t>& indices,
                 const Array<float>& weights) {
    const RowOperator op{view(indptr, "subdivision indptr"), view(indices, "subdivision indices"),
                         view(weights, "subdivision weights", indices.shape(0))};
    if (op.indptr.n < 1 || op.indptr[0] != 0 || op.indptr[op.indptr.n - 1] != op.indices.n)
      throw std::invalid_argument("subdivision indptr should run from 0 to the number of indices");
    for (int r = 0; r < op.rows(); ++r)
      if (op.indptr[r] > op.indptr[r + 1])
        throw std::invalid_argument("subdivision indptr should not decrease");
    for (int k = 0; k < op.indices.n; ++k)
      if (op.indices[k] < 0 || op.indices[k] >= n_vertices_)
        throw std::invalid_argument("subdivision indices has index " +
                                    std::to_string(op.indices[k]) + " outside [0, " +
                                    std::to_string(n_vertices_) + ")");
    levels_.push_back(op);
    n_vertices_ = op.rows();
  }

  Array<float> mean_, identity_, expression_;
  std::vector<CsrArrays> level_arrays_;
  LinearBasis basis_{};
  std::vector<RowOperator> levels_;
  int n_vertices_ = 0;
};

}  // namespace

void bind_head_model(py::module_& m) {
  py::class_<HeadEvaluator>(m, "HeadEvaluator",
                            "Linear head model with fixed subdivision; arrays checked once.")
      .def(py::init<Array<float>, Array<float>, Array<float>, std::vector<CsrArrays>>(),
           py::arg("mean").noconvert(), py::arg("identity").noconvert(),
           py::arg("expression").noconvert(), py::arg("levels"))
      .def("evaluate", &HeadEvaluator::evaluate, py::arg("identity").noconvert(),
           py::arg("expression").noconvert(), py::arg("threads"),
           "(K,) and (E,) float32 coefficients -> (V, 3) float32 mm in the head frame.");
}

}  // namespace e3d::bind
