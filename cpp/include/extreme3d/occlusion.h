// occlusion.h — holes of a face, and bump maps across them; see
// python/extreme3d_fast/occlusion.py.
#pragma once

#include <cstdint>
#include <vector>

#include "extreme3d/blending.h"
#include "extreme3d/types.h"

namespace e3d {

// === Holes. Pixels are those of a crop 500 px wide ===

inline constexpr double kHoleCropSize = 500.0;
inline constexpr double kTrustMargin = 7.0;  // 4 mm: next to an occluder the bump holds its shadow
inline constexpr double kMinHole = 30.0;
inline constexpr double kMinSeen = 1000.0;  // less between what covers a face is a shard of that

// Half the width of a disc of that radius, px, in each row from its middle on. Distances are made
// of steps of 1, 1.4 and 2.1969 px to the side, diagonally and as a knight moves.
std::vector<int> disc_half_widths(double radius);

// Face-region pixels (weight > 0) that the mask rejects, grown by kTrustMargin, and islands between
// them that are too small to be trusted. Returns what share of the weight is hidden, before
// growing.
double find_holes(ImageView<const std::uint8_t> face_mask, ImageView<const float> weight,
                  ImageView<std::uint8_t> hole);

// === Bump maps, which fade with the face weight ===

// Where a bump map can be told as it was before it faded.
E3D_HD inline bool is_told(float weight, bool hidden) {
  return !hidden & (weight >= kMinFaceWeight);  // without a branch, for loops over a map
}

// out: the bump map as it was before it faded, where it can be told, else 0; known: where that is.
// Throws std::invalid_argument where it is known and not finite.
void unfade(ImageView<const float> bump, ImageView<const float> weight,
            ImageView<const std::uint8_t> hole, int threads, ImageView<float> out,
            ImageView<std::uint8_t> known);

inline constexpr float kFillTolerance = 1e-4f;  // of `blend_gradients`

// All maps have one size. borrowed: detail for the holes, unfaded; valid: where there is some.
struct FillMaps {
  ImageView<const float> bump, weight;
  ImageView<const std::uint8_t> hole;
  ImageView<const float> borrowed;
  ImageView<const std::uint8_t> valid;
};

// The bump map with its holes filled by `blend_gradients`, faded with the weight. Throws
// std::invalid_argument where a map that is used is not finite.
void fill_bump(const FillMaps& maps, int threads, ImageView<float> out);

}  // namespace e3d
