// shading.h — albedo and relief from log shading: the two linear solves of shape from shading.
#pragma once

#include "extreme3d/multigrid.h"
#include "extreme3d/types.h"

namespace e3d {

// Albedo ρ of a picture of log shading r, smooth but for edges (Or-El et al. 2015, Eq. 7):
//   min Σ c (r - ρ)² + Σ link_x (ρ - ρ_right)² + Σ link_y (ρ - ρ_below)²
// c >= 0 is how far a pixel is trusted; links of a pixel to its right and lower neighbour, >= 0,
// say how smooth the albedo is there. Where c = 0 the solution is continued, 0 where nothing is
// linked.
SolveStats solve_albedo(ImageView<const float> ratio, ImageView<const float> confidence,
                        ImageView<const float> link_x, ImageView<const float> link_y,
                        float tolerance, ImageView<float> albedo);

struct ReliefSettings {
  float ambient;    // log shading that a hollow loses per unit of its slope
  float ridge;      // λ, weight of relief², 1/mm²
  float stiffness;  // µ, weight of (pixel size · curvature)²
  float tolerance;  // of the residual
  int max_iterations;
};

// Relief D in mm, positive = deeper, whose linearised log shading is `detail`:
//   K D = slope_x ∂D/∂x + slope_y ∂D/∂y - ambient |ω| D
// slope_x, slope_y: change of log shading per unit of slope. |ω| is approximated octave by octave:
// each band of the Laplacian pyramid of `detail` is solved at its own resolution h, where
// |ω| = -0.8 h Δ holds at the band's middle, by
//   min Σ confidence (K D - detail)² + λ D² + µ (h ΔD)²
// D is 0 outside `region`. Returns the most iterations and the largest residual of an octave.
SolveStats relief_from_shading(ImageView<const float> detail, ImageView<const float> confidence,
                               ImageView<const float> slope_x, ImageView<const float> slope_y,
                               ImageView<const std::uint8_t> region, float mm_per_pixel,
                               const ReliefSettings& settings, ImageView<float> relief);

}  // namespace e3d
