// sparse.h — the sparse mesh R from the dense detail, on the device; see extreme3d/sparse.h.
#pragma once

#include "extreme3d/cuda/launch.h"
#include "extreme3d/mesh.h"
#include "extreme3d/sparse.h"

namespace e3d::cuda {

// As the host's, valid where the face weight is positive. pinhole: fx, fy, cx, cy.
void sparse_from_dense(View<const Vec3> vertices_in_camera, View<const std::uint8_t> visible,
                       ImageView<const float> bump, ImageView<const float> weight,
                       View<const float> pinhole, View<Vec3> out, View<std::uint8_t> moved,
                       Stream s);

// The foundation F, (V,) each, as the photo's detail is carried to it.
struct FoundationView {
  View<const Vec3> in_camera, in_head;
  View<const std::uint8_t> visible;
  View<const std::uint8_t> region;  // where vertices may be moved
  View<const Tri> faces;
  CsrView vertex_faces;
};

struct SparseView {
  View<Vec3> in_head;           // (V,) moved where observed, else the foundation's
  View<std::uint8_t> observed;  // (V,) moved vertices of the region, eroded by a ring
};

// `sparse_from_dense`, erosion of what moved, and the way into the head frame, in one.
// moved_in_head, moved: (V,) scratch.
void observe(FoundationView foundation, ImageView<const float> bump, ImageView<const float> weight,
             View<const float> pinhole, View<const float> head_from_camera,
             View<Vec3> moved_in_head, View<std::uint8_t> moved, SparseView out, Stream s);

}  // namespace e3d::cuda
