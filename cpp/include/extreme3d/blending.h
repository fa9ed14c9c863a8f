// blending.h — gradient-domain blending: holes are filled with the gradients of a guide.
//
// Pérez, Gangnet, Blake. Poisson Image Editing. SIGGRAPH 2003.
#pragma once

#include "extreme3d/multigrid.h"
#include "extreme3d/types.h"

namespace e3d {

// All maps have one size. Unknown pixels are those of `region` that are not `known`.
struct BlendMaps {
  ImageView<const float> values;  // read where known in the region
  ImageView<const std::uint8_t> known, region;
  ImageView<const float> guidance;  // read where guided in the region
  ImageView<const std::uint8_t> guided;
};

// Weight of guidance - f at a pixel whose component of unknown pixels meets nothing known.
inline constexpr float kFreePull = 1e-3f;

inline constexpr int kBlendIterations = 1000;  // at most: holes take 10, mazes hundreds
// Energy norm of the error before the last step, in tolerances: that step takes away most of it,
// and the largest error is well below the norm.
inline constexpr double kLastGain = 20.0;

E3D_HD inline bool is_unknown(const BlendMaps& m, int i) { return m.region[i] && !m.known[i]; }

// What f_i - f_j should be.
E3D_HD inline float guided_step(const BlendMaps& m, int i, int j) {
  return m.guided[i] && m.guided[j] ? m.guidance[i] - m.guidance[j] : 0.f;
}

// An unknown pixel's row of the normal equations:
//   fixed f_i + Σ (f_i - f_j) over unknown neighbours j = source
struct BlendRow {
  float fixed;        // known neighbours
  float source;       // their values less `base`, and the steps to all neighbours
  bool right, below;  // these neighbours are unknown
};

// Neighbours outside the region or the image have no term: the border is free.
E3D_HD inline BlendRow blend_row(const BlendMaps& m, int x, int y, float base) {
  const int width = m.region.width, i = y * width + x;
  BlendRow row{0.f, 0.f, false, false};
  const auto meet = [&](int j) {
    if (!m.region[j]) return false;
    row.source += guided_step(m, i, j);
    if (!m.known[j]) return true;
    row.fixed += 1.f;
    row.source += m.values[j] - base;
    return false;
  };
  if (x > 0) meet(i - 1);
  if (y > 0) meet(i - width);
  row.right = x + 1 < width && meet(i + 1);
  row.below = y + 1 < m.region.height && meet(i + width);
  return row;
}

// Bump maps fade with the face weight; below this weight too little is left to tell what they were.
inline constexpr float kMinFaceWeight = 0.1f;

// Minimises Σ ((f_i - f_j) - (g_i - g_j))² over the pairs of 4-neighbours in the region of which
// one or both are unknown; g_i - g_j counts as 0 unless both are guided. Components of unknown
// pixels that meet no known one are pulled towards the guidance, 0 where not guided. Pixels that
// are not unknown are copied from `values`. Errors are below `tolerance` times the range of the
// values and guidance used; only in winding corridors, thousands of pixels long, can they be above.
// Returns the most iterations and the largest residual of a solve. Scratch memory: about 70 bytes a
// pixel of the holes' boxes.
SolveStats blend_gradients(const BlendMaps& maps, float tolerance, ImageView<float> out);

}  // namespace e3d
