// view_shading.h — light, openness and colour of a pixel of a rendered view, for host and device.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "extreme3d/mesh.h"
#include "extreme3d/render.h"

namespace e3d {

// === Colour ===

inline float srgb_decoded(float s) {
  return s <= 0.04045f ? s / 12.92f : std::pow((s + 0.055f) / 1.055f, 2.4f);
}

inline float srgb_encoded(float linear) {
  return linear <= 0.0031308f ? 12.92f * linear : 1.055f * std::pow(linear, 1.f / 2.4f) - 0.055f;
}

inline constexpr int kSrgbSteps = 4096;  // 1/16 of an 8-bit step at the darkest slope of the curve

// Worked out on the host for both sides.
struct SrgbTables {
  float linear[256];
  std::uint8_t byte[kSrgbSteps + 1];
};

inline SrgbTables srgb_tables() {
  SrgbTables t;
  for (int i = 0; i < 256; ++i) t.linear[i] = srgb_decoded(float(i) / 255.f);
  for (int i = 0; i <= kSrgbSteps; ++i)
    t.byte[i] = static_cast<std::uint8_t>(255.f * srgb_encoded(float(i) / kSrgbSteps) + 0.5f);
  return t;
}

E3D_HD inline Vec3 srgb_decoded(const SrgbTables& t, Rgb c) {
  return {t.linear[c.r], t.linear[c.g], t.linear[c.b]};
}

E3D_HD inline std::uint8_t srgb_encoded(const SrgbTables& t, float x) {
  return t.byte[static_cast<int>(std::clamp(x, 0.f, 1.f) * kSrgbSteps + 0.5f)];
}

E3D_HD inline Rgb srgb_encoded(const SrgbTables& t, Vec3 c) {
  return {srgb_encoded(t, c.x), srgb_encoded(t, c.y), srgb_encoded(t, c.z)};
}

// === Light ===

inline constexpr float kWrap = 0.08f;      // light that reaches beyond the terminator, as in skin
inline constexpr float kSpecular = 0.09f;  // strength of the clay's sheen
inline constexpr float kShininess = 18.f;
inline constexpr float kInside = 0.35f;  // inner sides of faces
// Colour shading: photo colours × (base + lamp · cos).
inline constexpr float kColorBase = 0.78f;
inline constexpr float kColorLamp = 0.27f;

// Normals are in the viewer's frame: x right, y up, z towards the viewer.
E3D_HD inline Vec3 viewer_from_camera(Vec3 n) { return {n.x, -n.y, -n.z}; }

E3D_HD inline Vec3 clay_light(Vec3 n, float open) {
  // Directions to the lights, linear light colours and the clay's reflectance, chosen by eye: the
  // brightest spot stays below 1.
  constexpr Vec3 key{-0.46f, 0.54f, 0.70f}, fill{0.81f, 0.06f, 0.58f}, rim{0.35f, 0.50f, -0.79f};
  constexpr Vec3 key_color{1.12f, 1.05f, 0.96f}, fill_color{0.10f, 0.125f, 0.165f};
  constexpr Vec3 rim_color{0.34f, 0.37f, 0.42f};
  constexpr Vec3 sky{0.20f, 0.215f, 0.245f}, ground{0.075f, 0.065f, 0.06f};
  constexpr Vec3 clay{0.56f, 0.52f, 0.485f};
  const auto wrapped = [n](Vec3 light) {
    const float lit = (dot(n, light) + kWrap) / (1.f + kWrap);
    return std::max(0.f, lit);
  };
  const float up = 0.5f + 0.5f * n.y;
  const float facing = std::clamp(n.z, 0.f, 1.f);
  const float edge = (1.f - facing) * (1.f - facing);
  const Vec3 ambient = (1.f - up) * ground + up * sky;
  // A crease that sees less of the sky also sees less of a broad key light.
  const Vec3 light = open * ambient + (0.45f + 0.55f * open) * wrapped(key) * key_color +
                     open * wrapped(fill) * fill_color +
                     open * edge * std::max(0.f, dot(n, rim) + 0.5f) * rim_color;
  const Vec3 half = normalize_or_zero(key + Vec3{0.f, 0.f, 1.f});
  const float sheen = kSpecular * open * std::pow(std::max(0.f, dot(n, half)), kShininess);
  return Vec3{clay.x * light.x, clay.y * light.y, clay.z * light.z} + Vec3{sheen, sheen, sheen};
}

E3D_HD inline Vec3 color_light(Vec3 albedo, Vec3 n, float open) {
  const float lamp = kColorBase + kColorLamp * std::max(0.f, n.z);
  return lamp * (0.35f + 0.65f * open) * albedo;
}

// === Openness ===

// Ambient occlusion (after Bavoil & Sainz, Image-Space Horizon-Based Ambient Occlusion, 2008,
// simplified): how much of the surroundings within this distance stands above the tangent plane.
inline constexpr float kOcclusionRadius = 22.f;  // mm: nose wings, eye sockets, under the chin
inline constexpr int kOcclusionDirections = 8;
inline constexpr int kOcclusionSteps = 4;
inline constexpr float kOcclusionBias = 0.12f;  // sine of the angle that counts as flat
inline constexpr float kOcclusionStrength = 1.9f;
inline constexpr float kTiny = 1e-3f;  // mm; keeps the sample at the point itself out of 0 / 0
// The depth of no face is beyond it.
inline constexpr float kFar = std::numeric_limits<float>::max();

// Worked out on the host for both sides.
struct OcclusionDirections {
  Vec2 at[kOcclusionDirections];
};

inline OcclusionDirections occlusion_directions() {
  OcclusionDirections directions;
  for (int d = 0; d < kOcclusionDirections; ++d) {
    const float angle = 6.2831853f * (float(d) + 0.25f) / kOcclusionDirections;
    directions.at[d] = {std::cos(angle), std::sin(angle)};
  }
  return directions;
}

// Share of the surroundings that is open, 0 to 1, for a pixel of a depth image; 1 off the surface.
E3D_HD inline float openness(ImageView<const float> depth, const Camera& camera,
                             const OcclusionDirections& directions, int x, int y) {
  if (!std::isfinite(depth(x, y))) return 1.f;
  const int width = depth.width, height = depth.height;
  const float per_fx = 1.f / camera.fx, per_fy = 1.f / camera.fy;
  const auto point = [&](int i, int j) {
    const float z = depth(i, j);
    return Vec3{(float(i) + 0.5f - camera.cx) * per_fx * z,
                (float(j) + 0.5f - camera.cy) * per_fy * z, z};
  };
  const int x0 = std::max(x - 1, 0), x1 = std::min(x + 1, width - 1);
  const int y0 = std::max(y - 1, 0), y1 = std::min(y + 1, height - 1);
  // One-sided differences across a silhouette: take the nearer neighbour on each axis.
  const Vec3 p = point(x, y);
  const auto slope = [&](int xa, int ya, int xb, int yb) {
    const float a = std::fabs(depth(xa, ya) - p.z), b = std::fabs(depth(xb, yb) - p.z);
    if (!std::isfinite(a) && !std::isfinite(b)) return Vec3{0.f, 0.f, 0.f};
    return b <= a || !std::isfinite(a) ? point(xb, yb) - p : p - point(xa, ya);
  };
  // x right × y down points away from the viewer: turn it.
  const Vec3 n = normalize_or_zero(cross(slope(x, y0, x, y1), slope(x0, y, x1, y)));
  const float radius_px = camera.fx * kOcclusionRadius / p.z;
  float covered = 0.f;
  for (int d = 0; d < kOcclusionDirections; ++d)
    for (int step = 1; step <= kOcclusionSteps; ++step) {
      // Denser near the point, where contacts are.
      const float t = float(step * step) / (kOcclusionSteps * kOcclusionSteps);
      const float at_x = float(x) + 0.5f + t * radius_px * directions.at[d].x;
      const float at_y = float(y) + 0.5f + t * radius_px * directions.at[d].y;
      if (!(at_x >= 0.f && at_y >= 0.f && at_x < float(width) && at_y < float(height))) continue;
      const int sx = static_cast<int>(at_x), sy = static_cast<int>(at_y);
      if (!(depth(sx, sy) < kFar)) continue;
      const Vec3 to = point(sx, sy) - p;
      const float length = norm(to);
      const float above = dot(n, to) / (length + kTiny) - kOcclusionBias;
      const float near = 1.f - length / (1.5f * kOcclusionRadius);
      if (above > 0.f && near > 0.f) covered += above * near;
    }
  constexpr float kSamples = kOcclusionDirections * kOcclusionSteps;
  return std::clamp(1.f - kOcclusionStrength * covered / kSamples, 0.f, 1.f);
}

// 5 × 5 mean over pixels of about the same depth: takes the pattern of the fixed directions out.
E3D_HD inline float smooth_openness(ImageView<const float> depth, ImageView<const float> open,
                                    int x, int y) {
  constexpr int kReach = 2;
  constexpr float kSameSurface = 4.f;  // mm
  if (!std::isfinite(depth(x, y))) return open(x, y);
  float sum = 0.f, count = 0.f;
  for (int j = std::max(y - kReach, 0); j <= std::min(y + kReach, open.height - 1); ++j)
    for (int i = std::max(x - kReach, 0); i <= std::min(x + kReach, open.width - 1); ++i) {
      if (!(std::fabs(depth(i, j) - depth(x, y)) < kSameSurface)) continue;
      sum += open(i, j);
      count += 1.f;
    }
  return sum / count;
}

// === Pixels ===

struct ShadedMesh {
  MeshView mesh_in_camera;
  View<const Vec3> normals;  // (V,)
  View<const Rgb> colors;    // (V,)
};

// What a raster of `supersample` × `supersample` samples a pixel holds.
struct SampleView {
  ImageView<const std::int32_t> triangle;  // -1 where no face
  ImageView<const Vec2> barycentric;
};

// Linear light of a sample of a face.
E3D_HD inline Vec3 sample_light(const ShadedMesh& m, const SrgbTables& tables, Shading shading,
                                std::int32_t triangle, Vec2 uv, float open) {
  const Tri t = m.mesh_in_camera.faces[triangle];
  const float u = uv.x, v = uv.y, w = 1.f - u - v;
  const bool inside =
      dot(face_area_vector(m.mesh_in_camera, triangle), m.mesh_in_camera.vertices[t.v0]) > 0.f;
  const Vec3 smooth = u * m.normals[t.v0] + v * m.normals[t.v1] + w * m.normals[t.v2];
  const Vec3 n = viewer_from_camera(normalize_or_zero(inside ? -smooth : smooth));
  Vec3 light;
  if (shading == Shading::kClay)
    light = clay_light(n, open);
  else
    light = color_light(u * srgb_decoded(tables, m.colors[t.v0]) +
                            v * srgb_decoded(tables, m.colors[t.v1]) +
                            w * srgb_decoded(tables, m.colors[t.v2]),
                        n, open);
  return (inside ? kInside : 1.f) * light;
}

// Mean of a pixel's samples.
E3D_HD inline Rgb shaded_pixel(const ShadedMesh& m, const SampleView& samples,
                               const SrgbTables& tables, const RenderStyle& style, float open,
                               int x, int y) {
  const int s = style.supersample;
  const Vec3 background = srgb_decoded(tables, style.background);
  Vec3 sum{0.f, 0.f, 0.f};
  for (int k = 0; k < s * s; ++k) {
    const int i = x * s + k % s, j = y * s + k / s;
    const std::int32_t triangle = samples.triangle(i, j);
    sum = sum + (triangle < 0 ? background
                              : sample_light(m, tables, style.shading, triangle,
                                             samples.barycentric(i, j), open));
  }
  return srgb_encoded(tables, (1.f / float(s * s)) * sum);
}

// Depth of the sample at a pixel's middle, of a raster of s × s samples a pixel.
E3D_HD inline float middle_depth(ImageView<const float> depth, int s, int x, int y) {
  return depth(x * s + s / 2, y * s + s / 2);
}

}  // namespace e3d
