// landmark_fit.h — identity, expression, pose and focal length of a head model from image points.
//
// Stands where the foundation and pose networks stand (paper §3): Gauss-Newton on the reprojection
// error of the model's landmarks with the model's own Gaussian prior (Eq. 1-2).
#pragma once

#include <memory>
#include <vector>

#include "extreme3d/types.h"

namespace e3d {

// Linear model of L landmarks in the head frame: mean + Σ α_k identity_k + Σ η_e expression_e.
struct LandmarkBasis {
  View<const Vec3> mean;        // (L,) mm
  View<const Vec3> identity;    // (K * L,) mm per standard deviation, component after component
  View<const Vec3> expression;  // (E * L,) mm at coefficient 1
};

// What was seen. A residual is split along `direction` and across it (direction turned by +90° in
// the image), each with its own weight: a point that may slide along a contour has the contour's
// normal as direction and a small second weight. Weight 0 takes a point out.
struct LandmarkObservations {
  View<const Vec2> points;          // (L,) px
  View<const Vec2> weights;         // (L,) 1/px: 1/sigma along and across the direction
  View<const Vec2> directions;      // (L,) unit vectors, or empty: image x
  View<const float> depth;          // (L,) px, or empty: larger is farther, unknown common offset
  View<const float> depth_weights;  // (L,) 1/px, or empty
};

struct LandmarkFitOptions {
  float focal;             // px, centre of the log-normal prior and the start
  float focal_log_sigma;   // spread of that prior; 0 keeps the focal length
  float cx, cy;            // px, principal point
  float identity_sigma;    // prior deviation of α, 1 is the model's own
  float expression_sigma;  // prior deviation of η around 0
  float expression_min;    // bounds of every η
  float expression_max;
  float huber;         // whitened residual length where the loss turns linear
  int max_iterations;  // of the joint stage: JᵀJ at most, each for as many steps as it serves
  float tolerance;     // relative decrease of the cost that counts as converged
};

// What is known of the head beforehand, instead of the options' own priors. An empty view leaves
// those: a mean of 0 (which expression bounds clamp), one deviation for all.
struct LandmarkPrior {
  View<const float> identity{nullptr, 0};          // (K,) mean of α, where the fit starts
  View<const float> identity_sigma{nullptr, 0};    // (K,)
  View<const float> expression{nullptr, 0};        // (E,) mean of η, where the fit starts
  View<const float> expression_sigma{nullptr, 0};  // (E,)
  const Rigid* camera_from_head = nullptr;         // start, mm, at the options' focal length
  float rotation_sigma = 0.f;  // rad, per camera axis, around that start; 0: a start alone
};

struct LandmarkFit {
  std::vector<float> identity;        // (K,)
  std::vector<float> expression;      // (E,)
  Rigid camera_from_head;             // mm
  float focal;                        // px
  float rms;                          // px, √mean |residual|² over points with a weight
  bool converged;                     // the cost settled before the iterations ran out
  std::vector<float> costs;           // of the joint stage, first before the first step
  std::vector<float> robust_weights;  // (L,) in [0, 1], 0 for points without a weight
  std::vector<float> residuals;       // (2L,) px, model - observed, image x and y
  std::vector<float>
      identity_sigma;  // (K,) posterior deviation of α, near 1: the photo said nothing
  std::vector<float> expression_sigma;  // (E,) posterior deviation of η, bounds not considered
  // Posterior deviations of rotation (rad, camera axes), translation (mm), log focal; the depth of
  // the translation is that at a fixed focal length.
  std::vector<float> pose_sigma;  // (7,)
};

// Keeps the basis in the layout of the solver, so that one model fits many photos.
class LandmarkFitter {
 public:
  explicit LandmarkFitter(const LandmarkBasis& basis);
  ~LandmarkFitter();
  LandmarkFitter(LandmarkFitter&&) noexcept;
  LandmarkFitter& operator=(LandmarkFitter&&) noexcept;

  int landmarks() const;
  // Throws std::invalid_argument for non-finite or degenerate input. Same result on any number of
  // threads. Without `deviations`, which cost as much as the rest, those of the fit are empty.
  LandmarkFit fit(const LandmarkObservations& seen, const LandmarkFitOptions& options, int threads,
                  const LandmarkPrior& prior = {}, bool deviations = true) const;

  // Residuals, row-major Jacobian and parameter order [α, ω, t, log f, η] at a given state, for
  // tests: rows as in `fit`, whitened, not robustified, without priors.
  struct Linearisation {
    std::vector<float> residuals;  // (R,)
    std::vector<float> jacobian;   // (R * (K + 7 + E),)
  };
  Linearisation linearise(const LandmarkObservations& seen, const LandmarkFitOptions& options,
                          const LandmarkFit& state) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

LandmarkFit fit_landmarks(const LandmarkBasis& basis, const LandmarkObservations& seen,
                          const LandmarkFitOptions& options, int threads);

}  // namespace e3d
