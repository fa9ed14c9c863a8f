// landmark_fit.cpp — Gauss-Newton with Levenberg damping on all model and camera parameters.
#include "extreme3d/landmark_fit.h"

#include <Eigen/Cholesky>
#include <Eigen/Dense>
#include <Eigen/Eigenvalues>
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>

#include "extreme3d/parallel.h"

namespace e3d {
namespace {

using Eigen::MatrixXd;
using Eigen::MatrixXf;
using Eigen::VectorXd;
using Eigen::VectorXf;

constexpr int kPose = 7;  // rotation 3, translation 3, log focal 1
// Landmarks whose rows are accumulated together: long enough for a fast product, short enough to
// share among a few threads. Fixed, so that sums do not depend on the number of threads.
constexpr int kGrain = 120;
constexpr int kBlock = 40;  // of them at a time: their rows stay in the cache
constexpr int kPoseIterations = 10;
constexpr double kPoseTolerance = 1e-3;  // relative cost; the joint stage continues from there
constexpr double kFirstDamping = 1e-4;   // of the diagonal of JᵀJ
constexpr double kMaxDamping = 1e6;
// A step with the JᵀJ of an earlier place costs a tenth of a new one. It is kept while every step
// lowers the cost by less than this share of what the one before did.
constexpr double kKeeps = 0.1;
constexpr int kActiveSetPasses = 12;
// Points closer to a line than this fraction of their spread do not determine a rotation.
constexpr double kDegenerate = 1e-3;
// A landmark may not come nearer than this fraction of the head's distance.
constexpr double kNearest = 0.05;

using Vec = Eigen::Vector3f;
using Pose = Eigen::Matrix<float, kPose, 1>;
using Mat = Eigen::Matrix3f;

Vec as_eigen(Vec3 v) { return {v.x, v.y, v.z}; }

Mat rotation_exp(const Vec& w) {
  const float angle = w.norm();
  if (angle == 0.f) return Mat::Identity();
  return Eigen::AngleAxisf(angle, w / angle).toRotationMatrix();
}

// Rotation vector, at most half a turn; the inverse of rotation_exp.
Eigen::Vector3d rotation_log(const Mat& R) {
  const Eigen::AngleAxisd turn(Eigen::Quaterniond(R.cast<double>()).normalized());
  return turn.angle() * turn.axis();
}

struct State {
  VectorXf coefficients;  // (K + E): α then η
  Mat R;                  // camera_from_head
  Vec t;                  // mm
  float focal;            // px
};

// How a residual changes with what the parameters move.
struct Row {
  Vec point;        // the landmark, camera frame, 1/mm
  float log_focal;  // log f
  float mean;       // the mean depth, 1/mm
};

[[noreturn]] void fail(const std::string& what) { throw std::invalid_argument(what); }

template <class T>
void require_finite(View<const T> values, const char* name) {
  const auto* p = reinterpret_cast<const float*>(values.data);
  const int n = values.n * static_cast<int>(sizeof(T) / sizeof(float));
  for (int i = 0; i < n; ++i)
    if (!std::isfinite(p[i])) fail(std::string(name) + " should be finite, has NaN or inf");
}

double huber_loss(double e, double k) { return e <= k ? 0.5 * e * e : k * (e - 0.5 * k); }
double huber_weight(double e, double k) { return e <= k ? 1.0 : k / e; }

// Solves min ½δᵀHδ + gᵀδ with lo <= δ <= hi for the last variables, by elimination of the others
// and an active-set search on the box.
class BoxSolver {
 public:
  // H with `damping` added to its diagonal and `e` variables in the box; false where that is not
  // positive definite.
  bool factor(const MatrixXd& H, double damping, int e) {
    const int a = static_cast<int>(H.rows()) - e;
    W_ = H.topLeftCorner(a, a);
    W_.diagonal().array() += damping;
    llt_a_.compute(W_);
    if (llt_a_.info() != Eigen::Success) return false;
    if (e == 0) return true;  // Eigen does not solve for no columns
    W_ = H.bottomLeftCorner(e, a).transpose();
    llt_a_.matrixL().solveInPlace(W_);
    S_ = H.bottomRightCorner(e, e);
    S_.diagonal().array() += damping;
    S_.selfadjointView<Eigen::Lower>().rankUpdate(W_.transpose(), -1.0);
    S_.triangularView<Eigen::StrictlyUpper>() = S_.transpose();
    return true;
  }

  // False where there is no step.
  bool solve(const VectorXd& g, const VectorXd& lo, const VectorXd& hi, VectorXd& step) {
    const int e = static_cast<int>(lo.size()), a = static_cast<int>(g.size()) - e;
    step = -g;
    llt_a_.matrixL().solveInPlace(step.head(a));
    VectorXd x = VectorXd::Zero(e);
    if (e > 0) {
      const VectorXd s = g.tail(e) + W_.transpose() * step.head(a);
      if (!box(s, lo, hi, x)) return false;
      step.head(a) -= W_ * x;
    }
    step.tail(e) = x;
    llt_a_.matrixU().solveInPlace(step.head(a));
    return step.allFinite();
  }

 private:
  bool box(const VectorXd& s, const VectorXd& lo, const VectorXd& hi, VectorXd& x) {
    const int e = static_cast<int>(s.size());
    std::vector<char> fixed(e, 0);
    for (int i = 0; i < e; ++i) {
      const bool at_lo = lo[i] >= 0.0 && s[i] > 0.0, at_hi = hi[i] <= 0.0 && s[i] < 0.0;
      fixed[i] = at_lo || at_hi;
      x[i] = at_lo ? lo[i] : at_hi ? hi[i] : 0.0;
    }
    for (int pass = 0; pass < kActiveSetPasses; ++pass) {
      free_.clear();
      for (int i = 0; i < e; ++i)
        if (!fixed[i]) free_.push_back(i);
      for (const int i : free_) x[i] = 0.0;
      VectorXd rhs = -(s + S_ * x)(free_);
      llt_e_.compute(S_(free_, free_));
      if (llt_e_.info() != Eigen::Success) return false;
      llt_e_.solveInPlace(rhs);
      bool feasible = true;
      for (std::size_t j = 0; j < free_.size(); ++j) {
        const int i = free_[j];
        x[i] = std::clamp(rhs[j], lo[i], hi[i]);
        if (x[i] != rhs[j]) {
          fixed[i] = 1;
          feasible = false;
        }
      }
      if (!feasible) continue;
      const VectorXd slope = s + S_ * x;  // of the objective: must point out of the box where fixed
      bool optimal = true;
      for (int i = 0; i < e; ++i)
        if (fixed[i] && lo[i] < hi[i] && (x[i] == lo[i] ? slope[i] < 0.0 : slope[i] > 0.0)) {
          fixed[i] = 0;
          optimal = false;
        }
      if (optimal) break;
    }
    return true;
  }

  Eigen::LLT<MatrixXd> llt_a_, llt_e_;
  MatrixXd W_, S_;
  std::vector<int> free_;
};

}  // namespace

struct LandmarkFitter::Impl {
  int L, K, E;
  std::vector<Vec> mean;
  // (K + E, 3L): column 3l + c holds coordinate c of landmark l of every component.
  MatrixXf basis;

  int size() const { return K + kPose + E; }

  std::vector<Vec> shape(const VectorXf& coefficients) const {
    const VectorXf offset = basis.transpose() * coefficients;
    std::vector<Vec> x(L);
    for (int l = 0; l < L; ++l) x[l] = mean[l] + offset.segment<3>(3 * l);
    return x;
  }

  // Everything that the residuals of one photo share.
  struct Problem {
    const LandmarkObservations& seen;
    const LandmarkFitOptions& options;
    bool has_depth;
    std::vector<float> share;  // (L,) part of each landmark in the mean depth, sums to 1
    float mean_depth;          // Σ share z, px
    MatrixXf mean_basis;       // (K + E, 3) Σ share basis
    VectorXf prior_mean;       // (K + E)
    VectorXd prior_weight;     // (K + E) 1/sigma²
    const Rigid* start;        // pose, or null
    Mat prior_rotation;
    double rotation_weight;  // 1/rad², 0: no prior
    double focal_weight;     // of log f, 0: it is fixed

    Vec2 direction(int l) const { return seen.directions.n ? seen.directions[l] : Vec2{1.f, 0.f}; }
  };

  Problem prepare(const LandmarkObservations& seen, const LandmarkFitOptions& options,
                  const LandmarkPrior& prior) const {
    Problem p{seen, options, false, {}, 0.f, {}, {}, {}, nullptr, Mat::Identity(), 0.0, 0.0};
    set_prior(prior, p);
    if (seen.depth.n == 0) return p;
    double total = 0.0;
    for (int l = 0; l < L; ++l) total += double(seen.depth_weights[l]) * seen.depth_weights[l];
    if (total == 0.0) return p;
    p.has_depth = true;
    p.share.resize(L);
    p.mean_basis = MatrixXf::Zero(K + E, 3);
    double mean_depth = 0.0;
    for (int l = 0; l < L; ++l) {
      p.share[l] =
          static_cast<float>(double(seen.depth_weights[l]) * seen.depth_weights[l] / total);
      mean_depth += double(p.share[l]) * seen.depth[l];
      if (p.share[l] > 0.f) p.mean_basis += p.share[l] * basis.middleCols<3>(3 * l);
    }
    p.mean_depth = static_cast<float>(mean_depth);
    return p;
  }

  void set_prior(const LandmarkPrior& prior, Problem& p) const {
    const auto& o = p.options;
    const auto weight = [](double sigma) { return 1.0 / (sigma * sigma); };
    if (o.focal_log_sigma > 0.f) p.focal_weight = weight(o.focal_log_sigma);
    p.prior_mean = VectorXf::Zero(K + E);
    p.prior_weight.resize(K + E);
    p.prior_weight.head(K).setConstant(weight(o.identity_sigma));
    p.prior_weight.tail(E).setConstant(weight(o.expression_sigma));
    for (int k = 0; k < prior.identity.n; ++k) p.prior_mean[k] = prior.identity[k];
    for (int e = 0; e < prior.expression.n; ++e) p.prior_mean[K + e] = prior.expression[e];
    for (int k = 0; k < prior.identity_sigma.n; ++k)
      p.prior_weight[k] = weight(prior.identity_sigma[k]);
    for (int e = 0; e < prior.expression_sigma.n; ++e)
      p.prior_weight[K + e] = weight(prior.expression_sigma[e]);
    if (!prior.camera_from_head) return;
    p.start = prior.camera_from_head;
    for (int i = 0; i < 9; ++i) p.prior_rotation(i / 3, i % 3) = p.start->R[i];
    if (prior.rotation_sigma > 0.f) p.rotation_weight = weight(prior.rotation_sigma);
  }

  // Camera-frame landmarks without and with translation, and their mean depth.
  struct Placed {
    std::vector<Vec> rotated;  // R x
    float mean_z;              // Σ share z, mm, with translation
    Vec mean_rotated;
  };

  Placed place(const Problem& p, const State& s, const std::vector<Vec>& x) const {
    Placed placed{std::vector<Vec>(L), 0.f, Vec::Zero()};
    for (int l = 0; l < L; ++l) placed.rotated[l] = s.R * x[l];
    if (p.has_depth) {
      for (int l = 0; l < L; ++l) placed.mean_rotated += p.share[l] * placed.rotated[l];
      placed.mean_z = placed.mean_rotated.z() + s.t.z();
    }
    return placed;
  }

  // Residuals of one landmark: [along, across, depth], whitened.
  Vec residual(const Problem& p, const State& s, const Placed& placed, int l, Vec2* error) const {
    const Vec q = placed.rotated[l] + s.t;
    const float du = s.focal * q.x() / q.z() + p.options.cx - p.seen.points[l].x;
    const float dv = s.focal * q.y() / q.z() + p.options.cy - p.seen.points[l].y;
    if (error) *error = {du, dv};
    const Vec2 d = p.direction(l), w = p.seen.weights[l];
    Vec r(w.x * (d.x * du + d.y * dv), w.y * (d.x * dv - d.y * du), 0.f);
    if (p.has_depth)
      r.z() = p.seen.depth_weights[l] *
              (s.focal * (q.z() / placed.mean_z - 1.f) - (p.seen.depth[l] - p.mean_depth));
    return r;
  }

  bool in_front(const State& s, const Placed& placed) const {
    if (!(s.t.z() > 0.f)) return false;
    for (int l = 0; l < L; ++l)
      if (!(placed.rotated[l].z() + s.t.z() > kNearest * s.t.z())) return false;
    return true;
  }

  double prior_cost(const Problem& p, const State& s) const {
    const VectorXd away = (s.coefficients - p.prior_mean).cast<double>();
    double cost = 0.5 * away.cwiseAbs2().dot(p.prior_weight);
    if (p.focal_weight > 0.0) {
      const double e = std::log(double(s.focal) / p.options.focal);
      cost += 0.5 * p.focal_weight * e * e;
    }
    if (p.rotation_weight > 0.0)
      cost += 0.5 * p.rotation_weight * rotation_away(p, s).squaredNorm();
    return cost;
  }

  // Turn from the prior's rotation, camera axes. Its own gradient in a further turn is itself.
  static Eigen::Vector3d rotation_away(const Problem& p, const State& s) {
    return rotation_log(s.R * p.prior_rotation.transpose());
  }

  // Infinite where a landmark is not in front of the camera.
  double cost(const Problem& p, const State& s, const Placed& placed) const {
    if (!in_front(s, placed)) return std::numeric_limits<double>::infinity();
    double total = prior_cost(p, s);
    for (int l = 0; l < L; ++l) {
      const Vec r = residual(p, s, placed, l, nullptr);
      total += huber_loss(r.head<2>().norm(), p.options.huber) +
               huber_loss(std::abs(r.z()), p.options.huber);
    }
    return total;
  }

  // The whitened residuals of landmark l: along, across and, where there is one, depth.
  std::array<Row, 3> rows(const Problem& p, const State& s, const Placed& placed, int l) const {
    const Vec q = placed.rotated[l] + s.t;
    const float inv_z = 1.f / q.z(), fx = s.focal * q.x() * inv_z, fy = s.focal * q.y() * inv_z;
    const Vec cu(s.focal * inv_z, 0.f, -fx * inv_z), cv(0.f, s.focal * inv_z, -fy * inv_z);
    const Vec2 d = p.direction(l), w = p.seen.weights[l];
    std::array<Row, 3> r{Row{w.x * (d.x * cu + d.y * cv), w.x * (d.x * fx + d.y * fy), 0.f},
                         Row{w.y * (d.x * cv - d.y * cu), w.y * (d.x * fy - d.y * fx), 0.f},
                         Row{Vec::Zero(), 0.f, 0.f}};
    if (!p.has_depth) return r;
    const float per_mm = p.seen.depth_weights[l] * s.focal / placed.mean_z;
    const float ratio = q.z() / placed.mean_z;
    r[2] = {Vec(0.f, 0.f, per_mm), per_mm * (q.z() - placed.mean_z), -per_mm * ratio};
    return r;
  }

  // What a row says of the pose. Its last parameter is a dolly zoom: f and the distance grow
  // together and the image of the head's origin stays, which keeps it nearly independent of the
  // distance.
  static Pose pose_row(const State& s, const Vec& rotated, const Row& row) {
    Pose r;
    r << rotated.cross(row.point), row.point, row.log_focal + s.t.z() * row.point.z();
    return r;
  }

  // Derivative of the mean depth, order [pose, α, η] or [pose].
  VectorXf mean_depth_row(const Problem& p, const State& s, const Placed& placed,
                          bool pose_only) const {
    VectorXf row = VectorXf::Zero(pose_only ? kPose : size());
    if (!p.has_depth) return row;
    row.head<3>() = placed.mean_rotated.cross(Vec::UnitZ());
    row[5] = 1.f;
    row[6] = s.t.z();
    if (!pose_only) row.tail(K + E) = p.mean_basis * s.R.row(2).transpose();
    return row;
  }

  // Rows of landmark l as 2 or 3 columns of Jᵀ, each times a weight; order as of `mean_row`.
  void columns(const State& s, const Placed& placed, const VectorXf& mean_row, int l,
               const std::array<Row, 3>& given, const Vec& weight, Eigen::Ref<MatrixXf> Jt) const {
    const int per = static_cast<int>(Jt.cols());
    Mat points;
    for (int c = 0; c < per; ++c) {
      points.col(c) = weight[c] * given[c].point;
      Jt.col(c).head<kPose>() = weight[c] * pose_row(s, placed.rotated[l], given[c]);
    }
    if (Jt.rows() > kPose) {
      const Mat in_head = s.R.transpose() * points;
      Jt.bottomRows(K + E).noalias() =
          basis.middleCols<3>(3 * l).lazyProduct(in_head.leftCols(per));
    }
    if (per == 3) Jt.col(2) += (weight.z() * given[2].mean) * mean_row;
  }

  // Square roots of the robust weights of a landmark's residuals.
  static Vec root_weights(const Problem& p, const Vec& r) {
    const double k = p.options.huber;
    const float flat = std::sqrt(static_cast<float>(huber_weight(r.head<2>().norm(), k)));
    return {flat, flat, std::sqrt(static_cast<float>(huber_weight(std::abs(r.z()), k)))};
  }

  // JᵀJ with the robust weights and the priors of this state, order [pose, α, η] or [pose]; the
  // lower triangle.
  MatrixXd curvature(const Problem& p, const State& s, const Placed& placed, bool pose_only,
                     int threads) const {
    const int n = pose_only ? kPose : size(), per = p.has_depth ? 3 : 2;
    const VectorXf mean_row = mean_depth_row(p, s, placed, pose_only);
    const int grain = pose_only ? L : kGrain, chunks = (L + grain - 1) / grain;
    std::vector<MatrixXf> parts(chunks);
    parallel_for(L, threads, grain, [&](int begin, int end) {
      MatrixXf& part = parts[begin / grain];
      part.setZero(n, n);
      MatrixXf Jt(n, per * std::min(kBlock, end - begin));
      for (int from = begin; from < end; from += kBlock) {
        const int to = std::min(end, from + kBlock);
        for (int l = from; l < to; ++l)
          columns(s, placed, mean_row, l, rows(p, s, placed, l),
                  root_weights(p, residual(p, s, placed, l, nullptr)),
                  Jt.middleCols(per * (l - from), per));
        part.selfadjointView<Eigen::Lower>().rankUpdate(Jt.leftCols(per * (to - from)));
      }
    });
    MatrixXd H = parts[0].cast<double>();
    for (int c = 1; c < chunks; ++c) H += parts[c].cast<double>();
    add_prior_curvature(p, pose_only, H);
    return H;
  }

  // Jᵀr with the robust weights and the priors of this state; order as of `curvature`.
  VectorXd gradient(const Problem& p, const State& s, const Placed& placed, bool pose_only) const {
    Eigen::Matrix<double, kPose, 1> pose = Eigen::Matrix<double, kPose, 1>::Zero();
    VectorXf points(pose_only ? 0 : 3 * L);  // head frame
    double mean_depth = 0.0;
    for (int l = 0; l < L; ++l) {
      const Vec r = residual(p, s, placed, l, nullptr);
      const Vec pull = root_weights(p, r).cwiseAbs2().cwiseProduct(r);
      const std::array<Row, 3> given = rows(p, s, placed, l);
      Row sum{Vec::Zero(), 0.f, 0.f};
      for (int c = 0; c < 3; ++c) {
        sum.point += pull[c] * given[c].point;
        sum.log_focal += pull[c] * given[c].log_focal;
        sum.mean += pull[c] * given[c].mean;
      }
      pose += pose_row(s, placed.rotated[l], sum).cast<double>();
      mean_depth += sum.mean;
      if (!pose_only) points.segment<3>(3 * l) = s.R.transpose() * sum.point;
    }
    VectorXd g = mean_depth * mean_depth_row(p, s, placed, pose_only).cast<double>();
    g.head<kPose>() += pose;
    if (!pose_only) g.tail(K + E) += (basis * points).cast<double>();
    add_prior_gradient(p, s, pose_only, g);
    return g;
  }

  void add_prior_curvature(const Problem& p, bool pose_only, MatrixXd& H) const {
    if (p.focal_weight > 0.0) H(6, 6) += p.focal_weight;
    H.diagonal().head<3>().array() += p.rotation_weight;
    if (!pose_only) H.diagonal().tail(K + E) += p.prior_weight;
  }

  void add_prior_gradient(const Problem& p, const State& s, bool pose_only, VectorXd& g) const {
    if (p.focal_weight > 0.0) g[6] += p.focal_weight * std::log(double(s.focal) / p.options.focal);
    if (p.rotation_weight > 0.0) g.head<3>() += p.rotation_weight * rotation_away(p, s);
    if (!pose_only)
      g.tail(K + E) += p.prior_weight.cwiseProduct((s.coefficients - p.prior_mean).cast<double>());
  }

  State moved(const LandmarkFitOptions& o, const State& s, const VectorXd& step,
              bool pose_only) const {
    State next = s;
    const VectorXf d = step.cast<float>();
    next.R = rotation_exp(d.head<3>()) * s.R;
    const float zoom = std::exp(d[6]);
    next.focal = s.focal * zoom;
    next.t += d.segment<3>(3);
    next.t.z() += s.t.z() * (zoom - 1.f);
    if (pose_only) return next;
    next.coefficients += d.tail(K + E);
    next.coefficients.tail(E) =
        next.coefficients.tail(E).cwiseMax(o.expression_min).cwiseMin(o.expression_max);
    return next;
  }

  // Fixes log f by giving it a unit row of its own.
  static void fix_focal(MatrixXd& H) {
    H.row(6).setZero();
    H.col(6).setZero();
    H(6, 6) = 1.0;
  }

  struct Descent {
    std::vector<double> costs;
    bool converged;
  };

  // Levenberg-Marquardt until the cost settles; at most `iterations` times JᵀJ.
  Descent descend(const Problem& p, State& s, bool pose_only, int iterations, double tolerance,
                  int threads) const {
    const auto& o = p.options;
    const bool focal_fixed = pose_only || o.focal_log_sigma <= 0.f;
    const int e = pose_only ? 0 : E;
    std::vector<Vec> x = shape(s.coefficients);
    Placed placed = place(p, s, x);
    Descent d{{cost(p, s, placed)}, false};
    if (!std::isfinite(d.costs[0])) fail("points do not fit in front of the camera");
    BoxSolver solver;
    MatrixXd H;
    VectorXd scale, step;
    double damping = kFirstDamping, last_fall = 0.0;  // of the cost
    bool fresh = false, factored = false;             // H is of this place; is in the solver
    int used = 0;
    while (!d.converged) {
      VectorXd g = gradient(p, s, placed, pose_only);
      if (focal_fixed) g[6] = 0.0;
      const double before = d.costs.back();
      for (;;) {
        if (!factored && !fresh) {
          if (used++ == iterations) return d;
          H = curvature(p, s, placed, pose_only, threads);
          if (focal_fixed) fix_focal(H);
          // Unit diagonal: rotation, millimetres and coefficients have very different scales.
          scale = H.diagonal().cwiseMax(1e-300).cwiseSqrt().cwiseInverse();
          H = scale.asDiagonal() * H * scale.asDiagonal();
          fresh = true;
        }
        const VectorXd eta = s.coefficients.tail(e).cast<double>();
        const VectorXd lo = (o.expression_min - eta.array()) / scale.tail(e).array();
        const VectorXd hi = (o.expression_max - eta.array()) / scale.tail(e).array();
        factored = factored || solver.factor(H, damping, e);
        if (factored && solver.solve(scale.cwiseProduct(g), lo, hi, step)) {
          const State next = moved(o, s, scale.cwiseProduct(step), pose_only);
          const std::vector<Vec> next_x = pose_only ? x : shape(next.coefficients);
          const Placed next_placed = place(p, next, next_x);
          const double after = cost(p, next, next_placed), settled = tolerance * before;
          // Where less than that is to be gained, rounding decides whether the cost falls.
          const bool last = -0.5 * scale.cwiseProduct(g).dot(step) <= settled;
          if (after <= before || (last && after - before <= settled)) {
            s = next;
            x = next_x;
            placed = next_placed;
            d.costs.push_back(std::min(after, before));
            const double fall = before - after;
            d.converged = last || fall <= settled;
            factored = fresh || fall < kKeeps * last_fall;
            if (fresh) damping = std::max(damping * 0.1, 1e-9);
            fresh = false;
            last_fall = fall;
            break;
          }
        }
        factored = false;
        if (!fresh) continue;  // JᵀJ of an earlier place does not serve any more
        damping *= 10.0;
        if (damping > kMaxDamping) {  // no step lowers the cost: this is the minimum in float
          d.converged = true;
          break;
        }
      }
    }
    return d;
  }

  // The prior's coefficients and pose; without a pose, that of `orthographic`.
  State initial(const Problem& p) const {
    State s{p.prior_mean, p.prior_rotation, Vec::Zero(), p.options.focal};
    s.coefficients.tail(E) = s.coefficients.tail(E)
                                 .cwiseMax(p.options.expression_min)
                                 .cwiseMin(p.options.expression_max);
    if (p.start)
      s.t = as_eigen(p.start->t);
    else
      orthographic(p, s);
    return s;
  }

  // Scaled orthographic pose (POS) of the head with the prior's identity: the affine map
  // head -> image in the least squares sense, its two rows made orthonormal.
  void orthographic(const Problem& p, State& s) const {
    const auto& seen = p.seen;
    VectorXf neutral = VectorXf::Zero(K + E);
    neutral.head(K) = s.coefficients.head(K);
    const std::vector<Vec> head = shape(neutral);
    Eigen::Vector2d point_mean = Eigen::Vector2d::Zero();
    Eigen::Vector3d shape_mean = Eigen::Vector3d::Zero();
    double total = 0.0;
    std::vector<double> w(L);
    for (int l = 0; l < L; ++l) {
      w[l] = double(seen.weights[l].x) * seen.weights[l].x +
             double(seen.weights[l].y) * seen.weights[l].y;
      total += w[l];
      point_mean += w[l] * Eigen::Vector2d(seen.points[l].x, seen.points[l].y);
      shape_mean += w[l] * head[l].cast<double>();
    }
    if (!(total > 0.0)) fail("weights should not all be zero");
    point_mean /= total;
    shape_mean /= total;
    Eigen::Matrix3d xx = Eigen::Matrix3d::Zero();
    Eigen::Matrix<double, 2, 3> ux = Eigen::Matrix<double, 2, 3>::Zero();
    Eigen::Matrix2d uu = Eigen::Matrix2d::Zero();
    for (int l = 0; l < L; ++l) {
      const Eigen::Vector2d u = Eigen::Vector2d(seen.points[l].x, seen.points[l].y) - point_mean;
      const Eigen::Vector3d x = head[l].cast<double>() - shape_mean;
      xx += w[l] / total * x * x.transpose();
      ux += w[l] / total * u * x.transpose();
      uu += w[l] / total * u * u.transpose();
    }
    const Eigen::Vector2d spread =
        Eigen::SelfAdjointEigenSolver<Eigen::Matrix2d>(uu).eigenvalues().cwiseMax(0.0).cwiseSqrt();
    if (!(spread[0] > kDegenerate * spread[1]) || !(spread[1] > kDegenerate))
      fail("points should spread over an area, they lie in one place or on one line");
    const Eigen::LDLT<Eigen::Matrix3d> solve(xx);
    const Eigen::Matrix<double, 2, 3> A = solve.solve(ux.transpose()).transpose();
    // Nearest orthonormal rows: (A Aᵀ)^-½ A.
    const Eigen::SelfAdjointEigenSolver<Eigen::Matrix2d> eigen(A * A.transpose());
    const Eigen::Vector2d singular = eigen.eigenvalues().cwiseMax(0.0).cwiseSqrt();
    if (!(singular[0] > kDegenerate * singular[1]))
      fail("points should look like the model's landmarks, no rotation maps one onto the other");
    const double scale = 0.5 * singular.sum();  // px per mm
    const Eigen::Matrix<double, 2, 3> rows2 = eigen.operatorInverseSqrt() * A;
    Eigen::Matrix3d R;
    R.row(0) = rows2.row(0);
    R.row(1) = rows2.row(1);
    R.row(2) = rows2.row(0).cross(rows2.row(1));
    s.R = R.cast<float>();
    // The plane through the landmarks' mean has the scale of the image there.
    const double z = p.options.focal / scale;
    const Eigen::Vector3d at((point_mean.x() - p.options.cx) / scale,
                             (point_mean.y() - p.options.cy) / scale, z);
    s.t = (at - R * shape_mean).cast<float>();
  }

  void check(const LandmarkObservations& seen, const LandmarkFitOptions& o) const {
    const auto require_count = [&](int n, const char* name, bool optional) {
      if (n != L && !(optional && n == 0))
        fail(std::string(name) + " should have " + std::to_string(L) + " landmarks, has " +
             std::to_string(n));
    };
    require_count(seen.points.n, "points", false);
    require_count(seen.weights.n, "weights", false);
    require_count(seen.directions.n, "directions", true);
    require_count(seen.depth.n, "depth", true);
    require_count(seen.depth_weights.n, "depth_weights", seen.depth.n == 0);
    require_finite(seen.points, "points");
    require_finite(seen.weights, "weights");
    require_finite(seen.directions, "directions");
    require_finite(seen.depth, "depth");
    require_finite(seen.depth_weights, "depth_weights");
    for (int l = 0; l < L; ++l)
      if (seen.weights[l].x < 0.f || seen.weights[l].y < 0.f)
        fail("weights should not be negative");
    for (int l = 0; l < seen.depth_weights.n; ++l)
      if (seen.depth_weights[l] < 0.f) fail("depth_weights should not be negative");
    for (int l = 0; l < seen.directions.n; ++l) {
      const Vec2 d = seen.directions[l];
      if (std::abs(d.x * d.x + d.y * d.y - 1.f) > 1e-3f) fail("directions should be unit vectors");
    }
    const auto positive = [](float v, const char* name) {
      if (!(v > 0.f) || !std::isfinite(v))
        fail(std::string(name) + " should be positive and finite");
    };
    positive(o.focal, "focal");
    positive(o.identity_sigma, "identity_sigma");
    positive(o.expression_sigma, "expression_sigma");
    positive(o.huber, "huber");
    if (!(o.focal_log_sigma >= 0.f) || !std::isfinite(o.focal_log_sigma))
      fail("focal_log_sigma should be 0 or positive");
    if (!std::isfinite(o.cx) || !std::isfinite(o.cy)) fail("cx, cy should be finite");
    if (!(o.expression_min <= o.expression_max) || !std::isfinite(o.expression_min) ||
        !std::isfinite(o.expression_max))
      fail("expression_min should not exceed expression_max");
    if (o.max_iterations < 0) fail("max_iterations should not be negative");
    if (!(o.tolerance >= 0.f)) fail("tolerance should not be negative");
  }

  void check(const LandmarkPrior& prior) const {
    const auto check_vector = [](View<const float> v, int n, const std::string& name, bool sigma) {
      if (v.n != 0 && v.n != n)
        fail(name + " should have " + std::to_string(n) + " numbers, has " + std::to_string(v.n));
      for (int i = 0; i < v.n; ++i)
        if (!std::isfinite(v[i]) || (sigma && !(v[i] > 0.f)))
          fail(name + (sigma ? " should be positive and finite" : " should be finite"));
    };
    check_vector(prior.identity, K, "prior identity", false);
    check_vector(prior.identity_sigma, K, "prior identity_sigma", true);
    check_vector(prior.expression, E, "prior expression", false);
    check_vector(prior.expression_sigma, E, "prior expression_sigma", true);
    if (!(prior.rotation_sigma >= 0.f) || !std::isfinite(prior.rotation_sigma))
      fail("prior rotation_sigma should be 0 or positive");
    if (!prior.camera_from_head) {
      if (prior.rotation_sigma > 0.f) fail("prior rotation_sigma needs a camera_from_head");
      return;
    }
    Mat R;
    for (int i = 0; i < 9; ++i) R(i / 3, i % 3) = prior.camera_from_head->R[i];
    // Written so that NaN fails as well.
    if (!((R * R.transpose() - Mat::Identity()).cwiseAbs().maxCoeff() < 1e-3f) ||
        !(R.determinant() > 0.f))
      fail("prior camera_from_head should be a rotation and a translation");
    const Vec t = as_eigen(prior.camera_from_head->t);
    if (!t.allFinite() || !(t.z() > 0.f))
      fail("prior camera_from_head should place the head in front of the camera");
  }

  LandmarkFit report(const Problem& p, const State& s, const Descent& d, bool deviations,
                     int threads) const {
    LandmarkFit fit;
    fit.identity.assign(s.coefficients.data(), s.coefficients.data() + K);
    fit.expression.assign(s.coefficients.data() + K, s.coefficients.data() + K + E);
    for (int i = 0; i < 9; ++i) fit.camera_from_head.R[i] = s.R(i / 3, i % 3);
    fit.camera_from_head.t = {s.t.x(), s.t.y(), s.t.z()};
    fit.focal = s.focal;
    fit.converged = d.converged;
    fit.costs.assign(d.costs.begin(), d.costs.end());
    fit.robust_weights.assign(L, 0.f);
    fit.residuals.resize(2 * L);
    const Placed placed = place(p, s, shape(s.coefficients));
    double sum = 0.0;
    int used = 0;
    for (int l = 0; l < L; ++l) {
      Vec2 e;
      const Vec r = residual(p, s, placed, l, &e);
      fit.residuals[2 * l] = e.x;
      fit.residuals[2 * l + 1] = e.y;
      if (p.seen.weights[l].x == 0.f && p.seen.weights[l].y == 0.f) continue;
      fit.robust_weights[l] = static_cast<float>(huber_weight(r.head<2>().norm(), p.options.huber));
      sum += double(e.x) * e.x + double(e.y) * e.y;
      ++used;
    }
    fit.rms = used ? static_cast<float>(std::sqrt(sum / used)) : 0.f;
    if (deviations) posterior(p, s, placed, threads, fit);
    return fit;
  }

  // Laplace approximation: deviations from the inverse of the final JᵀJ with the priors.
  void posterior(const Problem& p, const State& s, const Placed& placed, int threads,
                 LandmarkFit& fit) const {
    MatrixXd H = curvature(p, s, placed, false, threads);
    const bool focal_fixed = p.focal_weight == 0.0;
    if (focal_fixed) fix_focal(H);
    const VectorXd scale = H.diagonal().cwiseMax(1e-300).cwiseSqrt().cwiseInverse();
    H = scale.asDiagonal() * H * scale.asDiagonal();
    H.diagonal().array() += 1e-9;
    const int n = size();
    MatrixXd inverse_root = MatrixXd::Identity(n, n);
    const Eigen::LLT<MatrixXd> llt(H);
    llt.matrixL().solveInPlace(inverse_root);
    const VectorXf sigma =
        (inverse_root.colwise().norm().transpose().cwiseProduct(scale)).cast<float>();
    fit.pose_sigma.assign(sigma.data(), sigma.data() + kPose);
    if (focal_fixed) fit.pose_sigma[6] = 0.f;
    fit.identity_sigma.assign(sigma.data() + kPose, sigma.data() + kPose + K);
    fit.expression_sigma.assign(sigma.data() + kPose + K, sigma.data() + n);
  }
};

LandmarkFitter::LandmarkFitter(const LandmarkBasis& basis) : impl_(std::make_unique<Impl>()) {
  const int L = basis.mean.n;
  if (L < 4) fail("mean should have at least 4 landmarks, has " + std::to_string(L));
  if (basis.identity.n % L || basis.expression.n % L)
    fail("identity and expression should have the landmarks of mean");
  require_finite(basis.mean, "mean");
  require_finite(basis.identity, "identity");
  require_finite(basis.expression, "expression");
  impl_->L = L;
  impl_->K = basis.identity.n / L;
  impl_->E = basis.expression.n / L;
  impl_->mean.resize(L);
  impl_->basis.resize(impl_->K + impl_->E, 3 * L);
  for (int l = 0; l < L; ++l) {
    impl_->mean[l] = as_eigen(basis.mean[l]);
    for (int k = 0; k < impl_->K; ++k)
      impl_->basis.row(k).segment<3>(3 * l) = as_eigen(basis.identity[k * L + l]).transpose();
    for (int e = 0; e < impl_->E; ++e)
      impl_->basis.row(impl_->K + e).segment<3>(3 * l) =
          as_eigen(basis.expression[e * L + l]).transpose();
  }
}

LandmarkFitter::~LandmarkFitter() = default;
LandmarkFitter::LandmarkFitter(LandmarkFitter&&) noexcept = default;
LandmarkFitter& LandmarkFitter::operator=(LandmarkFitter&&) noexcept = default;

int LandmarkFitter::landmarks() const { return impl_->L; }

LandmarkFit LandmarkFitter::fit(const LandmarkObservations& seen, const LandmarkFitOptions& options,
                                int threads, const LandmarkPrior& prior, bool deviations) const {
  impl_->check(seen, options);
  impl_->check(prior);
  const Impl::Problem problem = impl_->prepare(seen, options, prior);
  State s = impl_->initial(problem);
  impl_->descend(problem, s, true, kPoseIterations, kPoseTolerance, 1);
  const Impl::Descent d =
      impl_->descend(problem, s, false, options.max_iterations, options.tolerance, threads);
  return impl_->report(problem, s, d, deviations, threads);
}

LandmarkFitter::Linearisation LandmarkFitter::linearise(const LandmarkObservations& seen,
                                                        const LandmarkFitOptions& options,
                                                        const LandmarkFit& state) const {
  const Impl& m = *impl_;
  m.check(seen, options);
  const Impl::Problem p = m.prepare(seen, options, {});
  State s{VectorXf(m.K + m.E), Mat(), as_eigen(state.camera_from_head.t), state.focal};
  for (int i = 0; i < 9; ++i) s.R(i / 3, i % 3) = state.camera_from_head.R[i];
  for (int k = 0; k < m.K; ++k) s.coefficients[k] = state.identity[k];
  for (int e = 0; e < m.E; ++e) s.coefficients[m.K + e] = state.expression[e];
  const Impl::Placed placed = m.place(p, s, m.shape(s.coefficients));
  const VectorXf mean_row = m.mean_depth_row(p, s, placed, false);
  const int n = m.size(), per = p.has_depth ? 3 : 2;
  Linearisation out;
  MatrixXf Jt(n, per);
  for (int l = 0; l < m.L; ++l) {
    m.columns(s, placed, mean_row, l, m.rows(p, s, placed, l), Vec::Ones(), Jt);
    const Vec r = m.residual(p, s, placed, l, nullptr);
    for (int c = 0; c < per; ++c) {
      out.residuals.push_back(r[c]);
      const float* row = Jt.col(c).data();
      const auto append = [&](int begin, int end) {
        out.jacobian.insert(out.jacobian.end(), row + begin, row + end);
      };
      append(kPose, kPose + m.K);
      append(0, kPose);
      append(kPose + m.K, n);
    }
  }
  return out;
}

LandmarkFit fit_landmarks(const LandmarkBasis& basis, const LandmarkObservations& seen,
                          const LandmarkFitOptions& options, int threads) {
  return LandmarkFitter(basis).fit(seen, options, threads);
}

}  // namespace e3d
