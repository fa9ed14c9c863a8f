// references.h — relief of reference faces on the unrolled face, and what is expected of a face
// that is like them; see python/extreme3d_fast/references.py and transfer.py.
#pragma once

#include <cstdint>

#include "extreme3d/face_chart.h"

namespace e3d {

inline constexpr int kSeenBlock = 4;  // px that are told seen together
inline constexpr int kSeenBytes = (kChartPixels / (kSeenBlock * kSeenBlock) + 7) / 8;

// A reference's relief as its set stores it, its map decoded.
struct alignas(16) StoredRelief {
  std::uint8_t level[kChartPixels];
  float zero, step;               // mm of level 0, mm a level
  std::uint8_t seen[kSeenBytes];  // a bit a block, row by row, the highest first
};

E3D_HD inline bool is_block_seen(const StoredRelief& r, int block) {
  return ((r.seen[block / 8] >> (7 - block % 8)) & 1) != 0;
}

inline constexpr float kEnough = 0.25f;  // share of the references that have to show a place
inline constexpr float kUnseen = 1e-3f;  // what an unseen place, which goes on smoothly, counts
// Weight of the prior, in mean energies of a reference's slopes, and how much the own relief of the
// other side counts where it is seen; both measured, see docs/detail.md.
inline constexpr double kPrior = 3.0;
inline constexpr float kOwnMirrored = 0.25f;
inline constexpr int kRimReach = 4;  // px of the chart to either side of 9

struct ReliefsView {
  View<const StoredRelief> stored;
  View<const std::int32_t> chosen;  // 2 index + mirrored of each reference, at least one
};

// Relief that is expected on the whole chart, and where enough of the references show it or the
// face itself on its other side. own: relief of the face itself, used where seen.
void expected_relief(const ReliefsView& references, ImageView<const float> own,
                     ImageView<const std::uint8_t> seen, int threads, ImageView<float> out,
                     ImageView<std::uint8_t> valid);

}  // namespace e3d
