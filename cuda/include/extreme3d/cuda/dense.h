// dense.h — detailed depth and the dense mesh D on the device; see extreme3d/dense.h.
#pragma once

#include <memory>

#include "extreme3d/cuda/launch.h"
#include "extreme3d/dense.h"

namespace e3d::cuda {

// Eq. 4 on the face: depth + bump where weight > 0, +inf elsewhere.
void compose_depth(View<const float> depth, View<const float> weight, View<const float> bump,
                   View<float> out, Stream s);

struct DenseMeshView {
  View<Vec3> vertices;                      // (W H,), the first `count` are written
  ImageView<std::int32_t> vertex_of_pixel;  // -1 where none
  View<std::int32_t> pixel_of_vertex;       // (W H,) row-major index, the first `count` are written
  View<std::int32_t> count;                 // (1,)
};

// Meshes depth maps of one size; keeps the scratch.
class DenseMesher {
 public:
  DenseMesher(int width, int height);
  ~DenseMesher();

  int width() const;
  int height() const;

  // The vertices of `dense_mesh`, numbered as there. frame_from_camera: (16,) rigid, or n = 0 for
  // vertices in the camera frame.
  void mesh(ImageView<const float> depth, View<const float> pinhole,
            View<const float> frame_from_camera, float max_slope, DenseMeshView out,
            Stream s) const;

 private:
  struct Internals;
  std::unique_ptr<Internals> internals_;
};

}  // namespace e3d::cuda
