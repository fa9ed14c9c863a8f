// registration.h — the dense mesh in terms of the sparse one, on the device; see
// extreme3d/registration.h.
#pragma once

#include "extreme3d/cuda/launch.h"
#include "extreme3d/registration.h"

namespace e3d::cuda {

// What the pixels show of the foundation, and the pixel of each dense vertex.
struct PixelsView {
  ImageView<const std::int32_t> triangle;
  ImageView<const Vec2> barycentric;
  View<const std::int32_t> pixel_of_vertex;  // (N,)
  View<const std::int32_t> count;            // (1,): of (N,) arrays only so many rows are meant
};

// As the host's; rows from `count` on are left alone.
void register_dense(PixelsView pixels, View<const Vec3> dense, MeshView sparse_mesh,
                    RegistrationView out, Stream s);

}  // namespace e3d::cuda
