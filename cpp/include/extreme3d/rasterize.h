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
  const float x = std::fma(c.fx, x_in_camera.x * inverse_z, c.cx);
  const float y = std::fma(c.fy, x_in_camera.y * inverse_z, c.cy);
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
// Int is int64, or int32 where the three lie within kSmallExtent.
template <class Int>
E3D_HD Int signed_area(SnappedVertex a, SnappedVertex b, SnappedVertex c) {
  return Int(b.y - a.y) * Int(c.x - a.x) - Int(b.x - a.x) * Int(c.y - a.y);
}

// Triangles within 32 × 32 px: products stay below 2^27, so int32 does for their edge functions at
// any pixel of their box.
inline constexpr std::int32_t kSmallExtent = 32 * kSubPixel;

E3D_HD inline bool is_small(SnappedVertex a, SnappedVertex b, SnappedVertex c) {
  return max3(a.x, b.x, c.x) - min3(a.x, b.x, c.x) < kSmallExtent &&
         max3(a.y, b.y, c.y) - min3(a.y, b.y, c.y) < kSmallExtent;
}

// Edge function of a → b: signed_area(a, b, centre of a pixel) at some first pixel, and what it
// gains by a pixel to the right and a pixel down.
template <class Int>
struct Edge {
  Int value, dx, dy;
};

template <class Int>
E3D_HD Edge<Int> edge_at(SnappedVertex a, SnappedVertex b, std::int32_t x, std::int32_t y) {
  const Int ex = b.x - a.x, ey = b.y - a.y;
  return {ey * Int(x - a.x) - ex * Int(y - a.y), ey * kSubPixel, -ex * kSubPixel};
}

// Fill rule: a pixel is inside where value + bias >= 0. Points on an edge belong to the triangle
// whose top or left edge it is; counter-clockwise with y down, left edges run downwards and top
// edges leftwards.
E3D_HD inline std::int32_t fill_bias(SnappedVertex a, SnappedVertex b) {
  // Positive for ey > 0, or ey = 0 and ex < 0: one comparison, as an edge's direction is a coin
  // toss to a branch predictor. |ex| < 2^30.
  const std::int64_t order = std::int64_t(b.y - a.y) * (std::int64_t(1) << 32) - (b.x - a.x);
  return static_cast<std::int32_t>((order - 1) >> 63);
}

// A triangle ready to be sampled from pixel (x, y) on. Edge k is opposite corner k; the third value
// is area − value0 − value1. A clockwise (back) face has its edges turned round, so that area is
// positive and the weights still belong to the face's own corners.
template <class Int>
struct RasterTriangle {
  Edge<Int> e0, e1;
  Int area;
  std::int32_t bias0, bias1, bias2;
  float inverse_area, inverse_z0, inverse_z1, inverse_z2;
};

template <class Int>
E3D_HD RasterTriangle<Int> raster_triangle(SnappedVertex a, SnappedVertex b, SnappedVertex c, int x,
                                           int y) {
  const std::int32_t px = x * kSubPixel + kSubPixel / 2, py = y * kSubPixel + kSubPixel / 2;
  RasterTriangle<Int> t;
  const Int area = signed_area<Int>(a, b, c);
  if (area > 0) {
    t.e0 = edge_at<Int>(b, c, px, py);
    t.e1 = edge_at<Int>(c, a, px, py);
    t.bias0 = fill_bias(b, c), t.bias1 = fill_bias(c, a), t.bias2 = fill_bias(a, b);
  } else {
    t.e0 = edge_at<Int>(c, b, px, py);
    t.e1 = edge_at<Int>(a, c, px, py);
    t.bias0 = fill_bias(c, b), t.bias1 = fill_bias(a, c), t.bias2 = fill_bias(b, a);
  }
  t.area = area > 0 ? area : -area;
  t.inverse_area = 1.f / static_cast<float>(t.area);
  t.inverse_z0 = a.inverse_z, t.inverse_z1 = b.inverse_z, t.inverse_z2 = c.inverse_z;
  return t;
}

template <class Int>
E3D_HD bool is_inside(const RasterTriangle<Int>& t, Int w0, Int w1) {
  return ((w0 + t.bias0) | (w1 + t.bias1) | (t.area - w0 - w1 + t.bias2)) >= 0;
}

// Screen-space weights (u of the first corner, v of the second; Eq. 6) from edge values.
template <class Int>
E3D_HD Vec2 screen_weights(const RasterTriangle<Int>& t, Int w0, Int w1) {
  return {static_cast<float>(w0) * t.inverse_area, static_cast<float>(w1) * t.inverse_area};
}

// Depth in mm: 1/z is linear in the image.
template <class Int>
E3D_HD float depth_at(const RasterTriangle<Int>& t, Vec2 uv) {
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

// Value at weights uv of a triangle, linear in the image, within those of the corners, which
// rounding must not leave. Explicit fma: the same bits whatever the compiler.
E3D_HD inline float on_face(Vec2 uv, float first, float second, float last) {
  const float value = std::fma(uv.y, second - last, std::fma(uv.x, first - last, last));
  return std::clamp(value, std::min(std::min(first, second), last),
                    std::max(std::max(first, second), last));
}

E3D_HD inline float interpolate_pixel(Tri t, Vec2 uv, View<const float> values) {
  return on_face(uv, values[t.v0], values[t.v1], values[t.v2]);
}

// Per-vertex values (V,) carried to the pixels, linearly in the image; 0 where no face.
void interpolate_on_screen(ImageView<const std::int32_t> triangle,
                           ImageView<const Vec2> barycentric, View<const float> values,
                           View<const Tri> faces, int threads, ImageView<float> image);

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

// Row-major pixel that a point projects into, -1 outside the image or where it is not finite. The
// fma with 0 rounds the product by itself, as NumPy does, where a compiler might have contracted.
E3D_HD inline std::int32_t pixel_of(Vec3 x_in_camera, const Camera& c) {
  const float x = std::fma(x_in_camera.x / x_in_camera.z, c.fx, 0.f) + c.cx;
  const float y = std::fma(x_in_camera.y / x_in_camera.z, c.fy, 0.f) + c.cy;
  const bool inside = x >= 0.f && y >= 0.f && x < float(c.width) && y < float(c.height);
  return inside ? static_cast<std::int32_t>(y) * c.width + static_cast<std::int32_t>(x) : -1;
}

// visible[v] is 1 or 0. `depth` as `rasterize` gave it for the same mesh and camera.
void vertex_visibility(View<const Vec3> vertices_in_camera, View<const Vec3> normals_in_camera,
                       ImageView<const float> depth, const Camera& camera,
                       VisibilityOptions options, int threads, View<std::uint8_t> visible);

// `pixel_of` each vertex.
void pixels_of_vertices(View<const Vec3> vertices_in_camera, const Camera& camera, int threads,
                        View<std::int32_t> pixels);

}  // namespace e3d
