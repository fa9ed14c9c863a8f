// references.h — relief of reference faces on the device, and the unrolled face that it is kept on;
// see python/extreme3d_fast/transfer.py and face_chart.py.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "extreme3d/cuda/launch.h"
#include "extreme3d/references.h"

namespace e3d::cuda {

inline constexpr int kMaxReferences = 40;

// Where the skin of a head model lies in the chart.
class FaceChart {
 public:
  // corners: of the face that each pixel of the chart sees, v0 = -1 where it sees none.
  FaceChart(const std::vector<Tri>& corners, const std::vector<Vec2>& barycentric,
            const std::vector<Vec2>& place, const std::vector<Tri>& faces);
  ~FaceChart();

  // A map of a crop brought into the chart; 0 where the crop does not show it. box: of the mask
  // `known`, from bounding_box. pinhole: (4,) of the crop.
  void unroll(ImageView<const float> map, ImageView<const std::uint8_t> known,
              View<const std::int32_t> box, View<const float> pinhole,
              View<const Vec3> vertices_in_camera, View<const std::uint8_t> visible,
              ImageView<float> out, ImageView<std::uint8_t> seen, Stream s) const;

  // The chart's relief brought into a crop, within a box; not valid outside of it. triangle,
  // barycentric: what the crop's pixels see of the skin.
  void warp_by_surface(ImageView<const float> relief, ImageView<const std::uint8_t> seen,
                       ImageView<const std::int32_t> triangle, ImageView<const Vec2> barycentric,
                       View<const std::int32_t> box, ImageView<float> bump,
                       ImageView<std::uint8_t> valid, Stream s) const;

  int vertex_count() const;

 private:
  struct Internals;
  std::unique_ptr<Internals> in_;
};

// Slots for the relief of references, and what a face is expected to hide, given those like it.
class ReferenceRelief {
 public:
  explicit ReferenceRelief(int slots);
  ~ReferenceRelief();

  // relief: the bytes of a StoredRelief in host memory, free again on return.
  void store(int slot, View<const std::uint8_t> relief, Stream s) const;

  // chosen: (kMaxReferences,) 2 slot + mirrored of the references, -1 behind the last. own: relief
  // of the face itself on the chart, used where seen.
  void expected_relief(View<const std::int32_t> chosen, ImageView<const float> own,
                       ImageView<const std::uint8_t> seen, ImageView<float> out,
                       ImageView<std::uint8_t> valid, Stream s) const;

  int slots() const;

 private:
  struct Internals;
  std::unique_ptr<Internals> in_;
};

}  // namespace e3d::cuda
