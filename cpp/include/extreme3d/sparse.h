// sparse.h — dense to sparse: visible vertices of the foundation F take the detailed depth (§4.3).
#pragma once

#include <cmath>
#include <cstdint>

#include "extreme3d/rasterize.h"
#include "extreme3d/types.h"

namespace e3d {

// Share of the bilinear weight that must lie on valid pixels for a vertex to be moved.
inline constexpr float kMinBilinearWeight = 0.5f;

// Δ in mm at image position p, bilinear between the centres of the valid pixels round it, weights
// made to sum to 1 again. Returns false where less than half the weight is valid. Pixels are valid
// where their mask, or face weight, is positive.
template <class T>
E3D_HD bool sample_bump(ImageView<const float> bump, ImageView<const T> valid, Vec2 p,
                        float& delta) {
  const bool inside =
      p.x >= 0.f && p.y >= 0.f && p.x <= float(bump.width) && p.y <= float(bump.height);
  if (!inside) return false;
  const float gx = p.x - 0.5f, gy = p.y - 0.5f;  // in units of pixel centres
  const float floor_x = std::floor(gx), floor_y = std::floor(gy);
  const int x0 = static_cast<int>(floor_x), y0 = static_cast<int>(floor_y);
  const float tx = gx - floor_x, ty = gy - floor_y;
  float sum = 0.f, weight = 0.f;
  for (int k = 0; k < 4; ++k) {
    const int x = x0 + (k & 1), y = y0 + (k >> 1);
    if (x < 0 || y < 0 || x >= bump.width || y >= bump.height || !(valid(x, y) > 0)) continue;
    const float w = (k & 1 ? tx : 1.f - tx) * (k >> 1 ? ty : 1.f - ty);
    sum += w * bump(x, y);
    weight += w;
  }
  if (!(weight >= kMinBilinearWeight)) return false;
  delta = sum / weight;
  return true;
}

// Moves a vertex along its own viewing ray: P' = P (z + Δ) / z.
E3D_HD inline Vec3 move_along_ray(Vec3 x_in_camera, float delta) {
  return ((x_in_camera.z + delta) / x_in_camera.z) * x_in_camera;
}

// Moves a vertex by the Δ at its projection. Returns false where there is none: the vertex stays.
template <class T>
E3D_HD bool follow_bump(ImageView<const float> bump, ImageView<const T> valid, const Camera& camera,
                        Vec3& x_in_camera) {
  float delta = 0.f;
  if (!(x_in_camera.z > kNearDepth)) return false;
  if (!sample_bump(bump, valid, project(camera, x_in_camera), delta)) return false;
  x_in_camera = move_along_ray(x_in_camera, delta);
  return true;
}

// moved[v] is 1 where the vertex is visible and Δ is known at its projection, and 0 where the
// vertex stays as it was.
void sparse_from_dense(View<const Vec3> vertices_in_camera, View<const std::uint8_t> visible,
                       ImageView<const float> bump, ImageView<const std::uint8_t> valid,
                       const Camera& camera, int threads, View<Vec3> out, View<std::uint8_t> moved);

}  // namespace e3d
