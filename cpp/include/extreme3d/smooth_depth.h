// smooth_depth.h — depth of the smooth surface behind the triangles.
//
// Boubekeur, Alexa. Phong Tessellation. 2008. A pixel is about a third of a triangle of the head
// model; without this the dense mesh would show the model's facets.
#pragma once

#include <cmath>
#include <limits>

#include "extreme3d/types.h"

namespace e3d {

// Depth (mm) at which the ray through the surface point P = sum b_i P_i meets the Phong surface of
// the triangle, to first order. P_i, n_i in the camera frame; uv: weights of the first and second
// corner on the screen, which divided by depth are weights b_i on the surface.
E3D_HD inline float phong_depth(const Vec3 (&p)[3], const Vec3 (&n)[3], Vec2 uv) {
  // Half way between the triangle and its tangent planes: exact to second order on a sphere. (Phong
  // tessellation for rendering takes 3/4, which looks rounder than the surface is.)
  constexpr float kAlpha = 0.5f;
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr float kMinCosine = 0.15f;  // towards grazing rays the first order means nothing
  const float b0 = uv.x * p[1].z * p[2].z, b1 = uv.y * p[0].z * p[2].z;
  const float b2 = (1.f - uv.x - uv.y) * p[0].z * p[1].z;
  const float inverse = 1.f / (b0 + b1 + b2);
  const float b[3] = {b0 * inverse, b1 * inverse, b2 * inverse};
  const Vec3 x = b[0] * p[0] + b[1] * p[1] + b[2] * p[2];
  Vec3 offset{0.f, 0.f, 0.f}, normal{0.f, 0.f, 0.f};
  for (int k = 0; k < 3; ++k) {
    offset = offset - (b[k] * kAlpha * dot(x - p[k], n[k])) * n[k];
    normal = normal + b[k] * n[k];
  }
  // of one millimetre of depth along the ray, times x.z and the normal's length
  const float slope = dot(normal, x), least = kMinCosine * x.z;
  // one comparison without a root, and a quotient in any case: compilers make vectors of that
  const bool facing = -slope * std::fabs(slope) > least * least * dot(normal, normal);
  return x.z + dot(offset, normal) * x.z / (facing ? slope : kInfinity);
}

// Depth of a pixel that sees the point with weights uv on the screen of a triangle; normals (V,).
E3D_HD inline float smooth_pixel(Tri f, Vec2 uv, View<const Vec3> vertices,
                                 View<const Vec3> normals) {
  const Vec3 p[3] = {vertices[f.v0], vertices[f.v1], vertices[f.v2]};
  const Vec3 n[3] = {normals[f.v0], normals[f.v1], normals[f.v2]};
  return phong_depth(p, n, uv);
}

// depth (H, W) mm and what `rasterize` gave for it; pixels without a face keep +inf.
// normals (V,): unit, camera frame, outward.
void smooth_depth(ImageView<const float> depth, ImageView<const int> triangle,
                  ImageView<const Vec2> barycentric, View<const Vec3> vertices,
                  View<const Vec3> normals, View<const Tri> faces, int threads,
                  ImageView<float> smooth);

}  // namespace e3d
