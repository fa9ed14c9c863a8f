// mesh.h — transforms, normals and masks of meshes on the device; see extreme3d/mesh.h.
#pragma once

#include "extreme3d/cuda/launch.h"
#include "extreme3d/mesh.h"

namespace e3d::cuda {

// b_from_a: (16,) row-major rigid (4, 4) in device memory, so that a recorded graph serves any
// pose.
void transform_points(View<const float> b_from_a, View<const Vec3> in, View<Vec3> out, Stream s);
void rotate_vectors(View<const float> b_from_a, View<const Vec3> in, View<Vec3> out, Stream s);

// area: (F,) scratch.
void vertex_normals(MeshView mesh, CsrView vertex_faces, View<Vec3> area, View<Vec3> out, Stream s);

// The mask without the corners of faces that have a corner outside it. In and out are two arrays.
void erode_mask(View<const std::uint8_t> mask, View<const Tri> faces, CsrView vertex_faces,
                View<std::uint8_t> out, Stream s);

}  // namespace e3d::cuda
