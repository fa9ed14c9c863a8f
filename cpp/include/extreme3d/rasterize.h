// rasterize.h — z-buffer of a triangle mesh: depth, triangle and barycentric weights of each pixel.
//
// Coverage is decided in integers on vertices snapped to 1/256 pixel, so a CPU and a GPU cover the
// same pixels and a shared edge is covered exactly once. What both need stands here as E3D_HD.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "extreme3d/types.h"

namespace e3d {

// Fixed-point positions have 8 bits below the pixel: 1/512 px of rounding moves a 0.5 mm pixel's
// surface by a thousandth of a millimetre.
inline constexpr int kSubPixelBits = 8;
inline constexpr std::int32_t kSubPixel = 1 << kSubPixelBits;
// Triangles that reach a depth of 1 mm or less are left out: heads stand hundreds away, and
// clipping would be code that no photo ever runs.
inline constexpr float kNearDepth = 1.f;
// Triangles with a corner further than this from the image origin are left out. 2^21 px are 2^29
// units; differences 2^30, edge functions at most 2^61: no int64 overflows.
inline constexpr float kGuardBand = 2097152.f;
// Largest image side; keeps pixel indices inside an int32.
inline constexpr int kMaxImageSide = 32768;

struct SnappedVertex {
  std::int32_t x, y;  // 1/256 px; x = kNoPosition where the vertex cannot be drawn
  float inverse_z;    // 1/mm
};
inline constexpr std::int32_t kNoPosition = std::numeric_limits<std::int32_t>::min();

// Explicit fma: the same bits whether or not a compiler contracts. NaN fails every comparison.
E3D_HD inline SnappedVertex snap(const Camera& c, Vec3 x_in_camera) {
  const float inverse_z = 1.f / x_in_camera.z;
  const float x = std::fma(c.fx, x_in_camera.x / x_in_camera.z, c.cx);
  const float y = std::fma(c.fy, x_in_camera.y / x_in_camera.z, c.cy);
  const bool drawable = x_in_camera.z > kNearDepth && inverse_z > 0.f &&
                        std::fabs(x) < kGuardBand && std::fabs(y) < kGuardBand;
  if (!drawable) return {kNoPosition, 0, 0.f};
  return {static_cast<std::int32_t>(std::floor(std::fma(x, float(kSubPixel), 0.5f))),
          static_cast<std::int32_t>(std::floor(std::fma(y, float(kSubPixel), 0.5f))), inverse_z};
}

// Pixels [x0, x1] × [y0, y1] whose centres the bounding box of a triangle holds, both ends
// included.
struct PixelBox {
  int x0, y0, x1, y1;
  E3D_HD bool empty() const { return x0 > x1 || y0 > y1; }
};

// First pixel whose centre is at or after the position, last one at or before.
E3D_HD inline int first_centre(std::int32_t at) {
  return (at + kSubPixel / 2 - 1) >> kSubPixelBits;
}
E3D_HD inline int last_centre(std::int32_t at) { return (at - kSubPixel / 2) >> kSubPixelBits; }

E3D_HD inline std::int32_t min3(std::int32_t a, std::int32_t b, std::int32_t c) {
  const std::int32_t m = a < b ? a : b;
  return m < c ? m : c;
}
E3D_HD inline std::int32_t max3(std::int32_t a, std::int32_t b, std::int32_t c) {
  const std::int32_t m = a > b ? a : b;
  return m > c ? m : c;
}

E3D_HD inline PixelBox pixel_box(SnappedVertex a, SnappedVertex b, SnappedVertex c, int width,
                                 int height) {
  const int x0 = first_centre(min3(a.x, b.x, c.x)), x1 = last_centre(max3(a.x, b.x, c.x));
  const int y0 = first_centre(min3(a.y, b.y, c.y)), y1 = last_centre(max3(a.y, b.y, c.y));
  return {x0 > 0 ? x0 : 0, y0 > 0 ? y0 : 0, x1 < width - 1 ? x1 : width - 1,
          y1 < height - 1 ? y1 : height - 1};
}

// Twice the area of abc in 1/256² px², positive for a triangle that turns counter-clockwise as seen
// in the image (y points down, hence the sign), i.e. for an outward face turned to the camera.
E3D_HD inline std::int64_t signed_area(SnappedVertex a, SnappedVertex b, SnappedVertex c) {
  return std::int64_t(b.y - a.y) * (c.x - a.x) - std::int64_t(b.x - a.x) * (c.y - a.y);
}

// Edge function of a → b as a linear function of the pixel: value(x, y) = at_origin + x·dx + y·dy,
// where value is signed_area(a, b, centre of the pixel). `bias` is −1 on edges whose own points
// belong to the neighbour (neither top nor left), so `value + bias >= 0` is the fill rule.
struct Edge {
  std::int64_t at_origin, dx, dy;
  std::int32_t bias;
  E3D_HD std::int64_t at(int x, int y) const { return at_origin + x * dx + y * dy; }
};

E3D_HD inline Edge edge_of(SnappedVertex a, SnappedVertex b) {
  const std::int64_t ex = b.x - a.x, ey = b.y - a.y;
  const std::int64_t centre = kSubPixel / 2;
  // Counter-clockwise with y down: left edges run downwards, top edges run leftwards.
  const bool top_left = ey > 0 || (ey == 0 && ex < 0);
  return {ey * (centre - a.x) - ex * (centre - a.y), ey * kSubPixel, -ex * kSubPixel,
          top_left ? 0 : -1};
}

// A triangle ready to be sampled, corners in the order of the face. `area` is positive; edge k is
// opposite corner k. A clockwise (back) face is entered with its edges turned round, so that the
// weights still belong to the face's own corners.
struct RasterTriangle {
  Edge e0, e1, e2;
  std::int64_t area;
  float inverse_z0, inverse_z1, inverse_z2;
};

E3D_HD inline RasterTriangle raster_triangle(SnappedVertex a, SnappedVertex b, SnappedVertex c,
                                             std::int64_t area) {
  if (area > 0)
    return {edge_of(b, c), edge_of(c, a), edge_of(a, b), area,
            a.inverse_z,   b.inverse_z,   c.inverse_z};
  return {edge_of(c, b), edge_of(a, c), edge_of(b, a), -area,
          a.inverse_z,   b.inverse_z,   c.inverse_z};
}

// Screen-space weights (u of the first corner, v of the second; Eq. 6) from edge values.
E3D_HD inline Vec2 screen_weights(std::int64_t w0, std::int64_t w1, std::int64_t area) {
  const float a = static_cast<float>(area);
  return {static_cast<float>(w0) / a, static_cast<float>(w1) / a};
}

// Depth in mm: 1/z is linear in the image.
E3D_HD inline float depth_at(const RasterTriangle& t, Vec2 uv) {
  const float inverse_z = std::fma(uv.x, t.inverse_z0 - t.inverse_z2,
                                   std::fma(uv.y, t.inverse_z1 - t.inverse_z2, t.inverse_z2));
  return 1.f / inverse_z;
}

// Order of the z-buffer: nearer first, then the smaller triangle. Positive floats sort as integers.
E3D_HD inline std::uint64_t depth_key(float depth, std::int32_t triangle) {
#if defined(__CUDA_ARCH__)
  const std::uint32_t bits = __float_as_uint(depth);
#else
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(depth);
#endif
  return std::uint64_t(bits) << 32 | std::uint32_t(triangle);
}

struct RasterView {
  ImageView<float> depth;            // mm, +inf where no face
  ImageView<std::int32_t> triangle;  // -1 where no face
  ImageView<Vec2> barycentric;       // screen-space (u, v), 0 where no face
};

enum class Faces { kFront, kBoth };

// Fills the three images. Vertices are in the camera frame, mm; indices must be in range (the
// binding checks). The result does not depend on `threads` nor on the order of the triangles, ties
// in depth apart, which go to the smaller index.
void rasterize(MeshView mesh_in_camera, const Camera& camera, Faces shown, int threads,
               RasterView out);

// === Visibility of vertices ===

struct VisibilityOptions {
  float min_cosine;       // between the normal and the direction to the camera
  float depth_tolerance;  // mm, along the vertex's normal
};

// Whether the camera sees a vertex: it projects into the image, its normal turns to the camera, and
// the surface that the z-buffer holds in its pixel does not stand before the vertex. That surface
// is met at the pixel's centre, not at the vertex, so its point is measured against the vertex's
// tangent plane, not against its depth: on a slope the depth may differ by many mm between the two,
// the height over the tangent plane by next to nothing. A pixel without surface hides nothing.
E3D_HD inline bool is_visible(Vec3 x_in_camera, Vec3 normal_in_camera, ImageView<const float> depth,
                              const Camera& camera, VisibilityOptions options) {
  if (!(x_in_camera.z > kNearDepth)) return false;
  const float facing = -dot(normal_in_camera, x_in_camera);
  if (!(facing > options.min_cosine * norm(x_in_camera) * norm(normal_in_camera))) return false;
  const Vec2 p = project(camera, x_in_camera);
  const bool inside =
      p.x >= 0.f && p.y >= 0.f && p.x < float(depth.width) && p.y < float(depth.height);
  if (!inside) return false;
  const int x = static_cast<int>(p.x), y = static_cast<int>(p.y);
  const float z = depth(x, y);
  if (!std::isfinite(z)) return true;
  const Vec3 seen = unproject(camera, {x + 0.5f, y + 0.5f}, z);
  const float height = dot(normal_in_camera, seen - x_in_camera);
  return height <= options.depth_tolerance * norm(normal_in_camera);
}

// visible[v] is 1 or 0. `depth` as `rasterize` gave it for the same mesh and camera.
void vertex_visibility(View<const Vec3> vertices_in_camera, View<const Vec3> normals_in_camera,
                       ImageView<const float> depth, const Camera& camera,
                       VisibilityOptions options, int threads, View<std::uint8_t> visible);

}  // namespace e3d
