// views.h — cameras and rigid transforms that kernels read from device memory.
#pragma once

#include "extreme3d/types.h"

namespace e3d::cuda {

// A rigid transform from its row-major (4, 4) matrix.
E3D_HD inline Rigid rigid(View<const float> m) {
  return {{m[0], m[1], m[2], m[4], m[5], m[6], m[8], m[9], m[10]}, {m[3], m[7], m[11]}};
}

// The camera of an image of that size; pinhole: fx, fy, cx, cy.
E3D_HD inline Camera camera(View<const float> pinhole, int width, int height) {
  return {pinhole[0], pinhole[1], pinhole[2], pinhole[3], width, height};
}

}  // namespace e3d::cuda
