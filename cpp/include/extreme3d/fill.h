// fill.h — smooth (harmonic) filling of holes in an image.
#pragma once

#include "extreme3d/types.h"

namespace e3d {

struct FillStats {
  int unknowns;    // pixels solved for
  int iterations;  // of conjugate gradients
  float residual;  // relative to the right-hand side
};

// Solves Laplace's equation (5-point) on the pixels of `region` that are not `known`. Their values
// meet those of known neighbours, and 0 at neighbours outside the region; the image border is
// free (natural). Pixels of `out` that are not solved for are copied from `values`.
// Conjugate gradients preconditioned by one multigrid V-cycle, until the residual is below
// `tolerance` times the right-hand side. Scratch memory: about 50 bytes a pixel of the holes' box.
FillStats fill_harmonic(ImageView<const float> values, ImageView<const std::uint8_t> known,
                        ImageView<const std::uint8_t> region, float tolerance,
                        ImageView<float> out);

}  // namespace e3d
