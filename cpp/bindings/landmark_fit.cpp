// landmark_fit.cpp — Python view of extreme3d/landmark_fit.h.
#include "extreme3d/landmark_fit.h"

#include <pybind11/stl.h>

#include <optional>

#include "arrays.h"

namespace e3d::bind {
namespace {

using F32 = Array<float>;

View<const Vec2> vec2_view(const F32& a, const char* name) {
  require_shape(a, name, {-1, 2});
  return {reinterpret_cast<const Vec2*>(a.data()), static_cast<int>(a.shape(0))};
}

LandmarkBasis basis_of(const F32& mean, const F32& identity, const F32& expression) {
  const auto L = mean.ndim() == 2 ? mean.shape(0) : -1;
  require_shape(mean, "mean", {-1, 3});
  require_shape(identity, "identity", {-1, L, 3});
  require_shape(expression, "expression", {-1, L, 3});
  const auto flat = [](const F32& a) {
    return View<const Vec3>{reinterpret_cast<const Vec3*>(a.data()),
                            static_cast<int>(a.size() / 3)};
  };
  return {flat(mean), flat(identity), flat(expression)};
}

LandmarkObservations observations(const F32& points, const F32& weights,
                                  const std::optional<F32>& directions,
                                  const std::optional<F32>& depth,
                                  const std::optional<F32>& depth_weights) {
  if (depth.has_value() != depth_weights.has_value())
    throw std::invalid_argument("depth and depth_weights should be given together");
  return {
      vec2_view(points, "points"), vec2_view(weights, "weights"),
      directions ? vec2_view(*directions, "directions") : View<const Vec2>{nullptr, 0},
      depth ? view<float>(*depth, "depth") : View<const float>{nullptr, 0},
      depth_weights ? view<float>(*depth_weights, "depth_weights") : View<const float>{nullptr, 0}};
}

F32 vector(std::vector<float>&& v) {
  const auto n = static_cast<py::ssize_t>(v.size());
  return take<float>(std::move(v), {n});
}

py::dict as_dict(LandmarkFit&& fit) {
  const Rigid& r = fit.camera_from_head;
  F32 camera_from_head(std::vector<py::ssize_t>{4, 4});
  const float rows[16] = {r.R[0], r.R[1], r.R[2], r.t.x, r.R[3], r.R[4], r.R[5], r.t.y,
                          r.R[6], r.R[7], r.R[8], r.t.z, 0.f,    0.f,    0.f,    1.f};
  std::copy(rows, rows + 16, camera_from_head.mutable_data());
  const auto n_points = static_cast<py::ssize_t>(fit.residuals.size() / 2);
  py::dict d;
  d["identity"] = vector(std::move(fit.identity));
  d["expression"] = vector(std::move(fit.expression));
  d["camera_from_head"] = camera_from_head;
  d["focal"] = fit.focal;
  d["rms"] = fit.rms;
  d["converged"] = fit.converged;
  d["costs"] = vector(std::move(fit.costs));
  d["robust_weights"] = vector(std::move(fit.robust_weights));
  d["residuals"] = take<float>(std::move(fit.residuals), {n_points, 2});
  d["identity_sigma"] = vector(std::move(fit.identity_sigma));
  d["expression_sigma"] = vector(std::move(fit.expression_sigma));
  d["pose_sigma"] = vector(std::move(fit.pose_sigma));
  return d;
}

py::dict fit(const LandmarkFitter& fitter, const F32& points, const F32& weights,
             const LandmarkFitOptions& options, const std::optional<F32>& directions,
             const std::optional<F32>& depth, const std::optional<F32>& depth_weights, int threads,
             const std::optional<F32>& identity, const std::optional<F32>& identity_sigma,
             const std::optional<F32>& expression, const std::optional<F32>& expression_sigma,
             const std::optional<F32>& camera_from_head, float rotation_sigma, bool deviations) {
  const auto optional = [](const std::optional<F32>& a, const char* name) {
    return a ? view<float>(*a, name) : View<const float>{nullptr, 0};
  };
  Rigid pose{};
  if (camera_from_head) pose = rigid(*camera_from_head, "camera_from_head");
  const LandmarkPrior prior{
      optional(identity, "identity"),     optional(identity_sigma, "identity_sigma"),
      optional(expression, "expression"), optional(expression_sigma, "expression_sigma"),
      camera_from_head ? &pose : nullptr, rotation_sigma};
  const auto seen = observations(points, weights, directions, depth, depth_weights);
  LandmarkFit result;
  {
    py::gil_scoped_release nogil;
    result = fitter.fit(seen, options, threads, prior, deviations);
  }
  return as_dict(std::move(result));
}

py::tuple linearise(const LandmarkFitter& fitter, const F32& points, const F32& weights,
                    const LandmarkFitOptions& options, const F32& identity, const F32& expression,
                    const F32& camera_from_head, float focal, const std::optional<F32>& directions,
                    const std::optional<F32>& depth, const std::optional<F32>& depth_weights) {
  const auto seen = observations(points, weights, directions, depth, depth_weights);
  LandmarkFit state;
  state.identity.assign(identity.data(), identity.data() + identity.size());
  state.expression.assign(expression.data(), expression.data() + expression.size());
  state.camera_from_head = rigid(camera_from_head, "camera_from_head");
  state.focal = focal;
  auto lin = fitter.linearise(seen, options, state);
  const auto n_rows = static_cast<py::ssize_t>(lin.residuals.size());
  const auto n_columns = static_cast<py::ssize_t>(lin.jacobian.size()) / n_rows;
  return py::make_tuple(take<float>(std::move(lin.residuals), {n_rows}),
                        take<float>(std::move(lin.jacobian), {n_rows, n_columns}));
}

}  // namespace

void bind_landmark_fit(py::module_& m) {
  py::class_<LandmarkFitOptions>(m, "LandmarkFitOptions",
                                 "Priors, bounds and stopping rule of a landmark fit.")
      .def(py::init([](float focal, float focal_log_sigma, float cx, float cy, float identity_sigma,
                       float expression_sigma, float expression_min, float expression_max,
                       float huber, int max_iterations, float tolerance) {
             return LandmarkFitOptions{focal,
                                       focal_log_sigma,
                                       cx,
                                       cy,
                                       identity_sigma,
                                       expression_sigma,
                                       expression_min,
                                       expression_max,
                                       huber,
                                       max_iterations,
                                       tolerance};
           }),
           py::kw_only(), py::arg("focal"), py::arg("focal_log_sigma"), py::arg("cx"),
           py::arg("cy"), py::arg("identity_sigma"), py::arg("expression_sigma"),
           py::arg("expression_min"), py::arg("expression_max"), py::arg("huber"),
           py::arg("max_iterations"), py::arg("tolerance"));

  py::class_<LandmarkFitter>(m, "LandmarkFitter", "Gauss-Newton fit of a landmark basis.")
      .def(py::init([](const F32& mean, const F32& identity, const F32& expression) {
             return LandmarkFitter(basis_of(mean, identity, expression));
           }),
           py::arg("mean").noconvert(), py::arg("identity").noconvert(),
           py::arg("expression").noconvert())
      .def("fit", &fit, py::arg("points").noconvert(), py::arg("weights").noconvert(),
           py::arg("options"), py::kw_only(), py::arg("directions").noconvert() = py::none(),
           py::arg("depth").noconvert() = py::none(),
           py::arg("depth_weights").noconvert() = py::none(), py::arg("threads") = 1,
           py::arg("identity").noconvert() = py::none(),
           py::arg("identity_sigma").noconvert() = py::none(),
           py::arg("expression").noconvert() = py::none(),
           py::arg("expression_sigma").noconvert() = py::none(),
           py::arg("camera_from_head").noconvert() = py::none(), py::arg("rotation_sigma") = 0.f,
           py::arg("deviations") = true,
           "identity to rotation_sigma: prior means, deviations (rotation in radians) and start.\n"
           "Without deviations the *_sigma of the result are empty.")
      .def("linearise", &linearise, py::arg("points").noconvert(), py::arg("weights").noconvert(),
           py::arg("options"), py::kw_only(), py::arg("identity").noconvert(),
           py::arg("expression").noconvert(), py::arg("camera_from_head").noconvert(),
           py::arg("focal"), py::arg("directions").noconvert() = py::none(),
           py::arg("depth").noconvert() = py::none(),
           py::arg("depth_weights").noconvert() = py::none());

  m.def(
      "fit_landmarks",
      [](const F32& mean, const F32& identity, const F32& expression, const F32& points,
         const F32& weights, const LandmarkFitOptions& options,
         const std::optional<F32>& directions, const std::optional<F32>& depth,
         const std::optional<F32>& depth_weights, int threads) {
        const LandmarkFitter fitter(basis_of(mean, identity, expression));
        return fit(fitter, points, weights, options, directions, depth, depth_weights, threads, {},
                   {}, {}, {}, {}, 0.f, true);
      },
      py::arg("mean").noconvert(), py::arg("identity").noconvert(),
      py::arg("expression").noconvert(), py::arg("points").noconvert(),
      py::arg("weights").noconvert(), py::arg("options"), py::kw_only(),
      py::arg("directions").noconvert() = py::none(), py::arg("depth").noconvert() = py::none(),
      py::arg("depth_weights").noconvert() = py::none(), py::arg("threads") = 1);
}

}  // namespace e3d::bind
