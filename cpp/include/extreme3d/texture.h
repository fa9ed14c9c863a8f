// texture.h — a colour for every vertex: from the photo, from the other half of the face, or grown.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "extreme3d/mesh.h"
#include "extreme3d/types.h"

namespace e3d {

// 8-bit sRGB.
struct Rgb {
  std::uint8_t r, g, b;
};

E3D_HD inline Vec3 to_vec(Rgb c) { return {float(c.r), float(c.g), float(c.b)}; }
E3D_HD inline std::uint8_t to_byte(float x) {
  return static_cast<std::uint8_t>(std::clamp(x + 0.5f, 0.f, 255.f));
}
E3D_HD inline Rgb to_rgb(Vec3 c) { return {to_byte(c.x), to_byte(c.y), to_byte(c.z)}; }

// Weights of Rec. 601; nearly the perceived lightness for colours as photos store them.
E3D_HD inline float lightness(Vec3 c) { return 0.299f * c.x + 0.587f * c.y + 0.114f * c.z; }

// === What the photo shows ===

inline constexpr float kMaxTilt = 0.26f;  // cos 75°
inline constexpr int kErodedRings = 2;    // one vertex a pixel in the dense part: two pixels

// Whether a surface with this normal of any length is turned to the camera and in the photo, half
// a pixel inside its border, where `sample` has all it needs.
E3D_HD inline bool is_sampled(const Camera& camera, Vec3 x_in_camera, Vec3 normal) {
  const bool facing = x_in_camera.z > 0.f &&
                      -dot(normal, x_in_camera) > kMaxTilt * norm(normal) * norm(x_in_camera);
  const Vec2 p = facing ? project(camera, x_in_camera) : Vec2{-1.f, -1.f};
  return p.x >= 0.5f && p.x <= float(camera.width) - 0.5f && p.y >= 0.5f &&
         p.y <= float(camera.height) - 0.5f;
}

// Bilinear; p in pixels with centres at +0.5, at least half a pixel inside the picture.
E3D_HD inline Vec3 sample(ImageView<const Rgb> photo, Vec2 p) {
  const int right = photo.width - 2, low = photo.height - 2;
  const int px = static_cast<int>(p.x - 0.5f), py = static_cast<int>(p.y - 0.5f);
  const int x = px < right ? px : right, y = py < low ? py : low;
  const float fx = p.x - 0.5f - float(x), fy = p.y - 0.5f - float(y);
  const Vec3 top = (1.f - fx) * to_vec(photo(x, y)) + fx * to_vec(photo(x + 1, y));
  const Vec3 bottom = (1.f - fx) * to_vec(photo(x, y + 1)) + fx * to_vec(photo(x + 1, y + 1));
  return (1.f - fy) * top + fy * bottom;
}

// === Membrane of the offsets ===

inline constexpr float kFadeLength = 40.f;  // mm: half a face; beyond, the model's own colour
inline constexpr int kSmoothRounds = 2;     // rounds that take pores and noise out of its frame

// Of a vertex with `count` neighbours in the membrane, by `squared` mm² the sum of their squared
// distances. Weight of the sum of their values; on a regular ring of edge length h: mean of the
// neighbours − u = h²/4 Δu = h²/4 u/L². 0 without neighbours: on a border, a vertex may be one of
// another's without having any.
E3D_HD inline float membrane_weight(float count, float squared) {
  return count > 0.f ? 1.f / (count + squared / (4.f * kFadeLength * kFadeLength)) : 0.f;
}
// One ring further out the membrane has fallen by exp(−h/L).
E3D_HD inline float membrane_fade(float count, float squared) {
  return 1.f - std::min(std::sqrt(squared / std::max(count, 1.f)) / kFadeLength, 1.f);
}

// === Tone of the model's colours ===

inline constexpr int kFewestForTone = 64;
// Shares of the known vertices that are darker and not lighter than lit skin.
inline constexpr float kLitSkinLow = 0.5f, kLitSkinHigh = 0.8f;

// Colours of the vertices, (V,).
//
// 1. Seen vertices take the photo's colour (bilinear), unless they lie within two edges of an
//    unseen one or their surface is turned by more than 75° from the viewing ray: what a pixel
//    shows there is partly background.
// 2. Other vertices whose mirror image has a colour take that, plus an offset that makes the two
//    halves meet: on known vertices the offset is the difference to their own mirror image, from
//    there it spreads over the mesh as a screened membrane (u = L² Δu) and fades with L = 40 mm.
//    So the light of the photo runs on over the seam and the details are the mirrored ones.
// 3. The rest takes `fallback`, scaled so that lit skin has the photo's colour, plus an
//    offset spread in the same way.
//
// Holds what depends on the mesh and the model alone.
class VertexColors {
 public:
  // mirror_of: (V,) the vertex on the other half of the face, or -1; fallback: (V,) colour of the
  // model where nothing is known. Indices must be in range (the binding checks). Throws
  // std::invalid_argument unless both have one length.
  VertexColors(View<const Tri> faces, View<const std::int32_t> mirror_of, View<const Rgb> fallback);

  // vertices_in_camera: (V,) mm; seen: (V,) not 0 where the photo shows the vertex. The photo is
  // the crop that the camera is of, at least 2 × 2 pixels.
  std::vector<Rgb> colors(View<const Vec3> vertices_in_camera, View<const std::uint8_t> seen,
                          ImageView<const Rgb> photo, const Camera& camera, int threads) const;

  int n_vertices() const { return static_cast<int>(mirror_of_.size()); }

 private:
  CornerRows corners_;
  std::vector<std::int32_t> mirror_of_;
  std::vector<Rgb> fallback_;
};

}  // namespace e3d
