// dense.h — detailed depth (Eq. 4) and the dense mesh D with one vertex a pixel (paper §4.1).
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "extreme3d/rasterize.h"
#include "extreme3d/types.h"

namespace e3d {

// A pixel holds surface where its depth is finite and in front of the near plane.
E3D_HD inline bool has_surface(float depth) { return depth > kNearDepth && std::isfinite(depth); }

// Eq. 4, mm: z' = z + Δ. Pixels without surface stay without.
E3D_HD inline float detailed_depth(float depth, float bump) { return depth + bump; }

void compose_depth(View<const float> depth, View<const float> bump, int threads, View<float> out);

// Largest steps of depth between pixels that a triangle may bridge, per mm of depth: a slope
// against the image plane times the width of a pixel at that depth, z/f.
struct DepthSteps {
  float along_x, along_y, diagonal;
};

E3D_HD inline DepthSteps depth_steps(const Camera& c, float max_slope) {
  const float wx = 1.f / c.fx, wy = 1.f / c.fy;
  return {max_slope * wx, max_slope * wy, max_slope * std::sqrt(wx * wx + wy * wy)};
}

E3D_HD inline bool is_continuous(float z0, float z1, float step) {
  return std::fabs(z0 - z1) <= step * (z0 < z1 ? z0 : z1);
}

// The two possible triangles of a 2×2 block of pixels, as bits.
enum BlockBits : std::uint8_t {
  kMainDiagonal = 1,  // cut from top left to bottom right, else the other way
  kFirst = 2,         // the triangle that holds the bottom left pixel, or, on the other
                      // diagonal, the top left one
  kSecond = 4,
};

// Cuts a block along the diagonal with the smaller step; three pixels with surface allow one
// triangle. A triangle stands only where none of its edges jumps.
E3D_HD inline std::uint8_t cut_block(float z00, float z10, float z01, float z11, DepthSteps s) {
  const bool v00 = has_surface(z00), v10 = has_surface(z10), v01 = has_surface(z01),
             v11 = has_surface(z11);
  const bool main = v00 && v11 && !(v10 && v01 && std::fabs(z00 - z11) > std::fabs(z10 - z01));
  const bool top = v00 && v10 && is_continuous(z00, z10, s.along_x);
  const bool bottom = v01 && v11 && is_continuous(z01, z11, s.along_x);
  const bool left = v00 && v01 && is_continuous(z00, z01, s.along_y);
  const bool right = v10 && v11 && is_continuous(z10, z11, s.along_y);
  if (main) {
    if (!is_continuous(z00, z11, s.diagonal)) return 0;
    return static_cast<std::uint8_t>(kMainDiagonal | (left && bottom ? kFirst : 0) |
                                     (top && right ? kSecond : 0));
  }
  if (!v10 || !v01 || !is_continuous(z10, z01, s.diagonal)) return 0;
  return static_cast<std::uint8_t>((left && top ? kFirst : 0) | (right && bottom ? kSecond : 0));
}

// Which corners of a block its triangles use: bits 0..3 for top left, top right, bottom left,
// bottom right.
E3D_HD inline std::uint8_t used_corners(std::uint8_t cut) {
  if (cut & kMainDiagonal)
    return static_cast<std::uint8_t>((cut & kFirst ? 0b1101 : 0) | (cut & kSecond ? 0b1011 : 0));
  return static_cast<std::uint8_t>((cut & kFirst ? 0b0111 : 0) | (cut & kSecond ? 0b1110 : 0));
}

// Whether a triangle of any of the four blocks round a pixel uses it.
E3D_HD inline bool is_used(ImageView<const float> depth, int x, int y, DepthSteps steps) {
  if (!has_surface(depth(x, y))) return false;
  for (int k = 0; k < 4; ++k) {
    const int left = x - (k & 1), top = y - (k >> 1);  // the pixel is corner k of this block
    if (left < 0 || top < 0 || left + 1 >= depth.width || top + 1 >= depth.height) continue;
    const std::uint8_t cut = cut_block(depth(left, top), depth(left + 1, top), depth(left, top + 1),
                                       depth(left + 1, top + 1), steps);
    if (used_corners(cut) >> k & 1) return true;
  }
  return false;
}

struct DenseMesh {
  std::vector<Vec3> vertices;  // camera frame, mm, in row-major order of their pixels
  std::vector<Tri> faces;      // counter-clockwise seen from the camera, by block, row-major
};

// One vertex for each pixel that some triangle uses, on the viewing ray through the pixel's centre.
// vertex_of_pixel is -1 elsewhere. The numbering does not depend on `threads`.
DenseMesh dense_mesh(ImageView<const float> depth, const Camera& camera, float max_slope,
                     int threads, ImageView<std::int32_t> vertex_of_pixel);

}  // namespace e3d
