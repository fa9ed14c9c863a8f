// render.cpp — lights, ambient occlusion and supersampling of rendered pictures.
#include "extreme3d/render.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>

#include "extreme3d/mesh.h"
#include "extreme3d/parallel.h"
#include "extreme3d/rasterize.h"

namespace e3d {
namespace {

constexpr int kRowGrain = 8;

// Ambient occlusion (after Bavoil & Sainz, Image-Space Horizon-Based Ambient Occlusion, 2008,
// simplified): how much of the surroundings within this distance stands above the tangent plane.
constexpr float kOcclusionRadius = 22.f;  // mm: nose wings, eye sockets, under the chin
constexpr int kOcclusionDirections = 8;
constexpr int kOcclusionSteps = 4;
constexpr float kOcclusionBias = 0.12f;  // sine of the angle that counts as flat
constexpr float kOcclusionStrength = 1.9f;
constexpr float kTiny = 1e-3f;  // mm; keeps the sample at the point itself out of 0 / 0
constexpr float kFar = std::numeric_limits<float>::max();  // the depth of no face is beyond it

// Directions to the lights in the viewer's frame: x right, y up, z towards the viewer.
constexpr Vec3 kKeyLight{-0.46f, 0.54f, 0.70f};
constexpr Vec3 kFillLight{0.81f, 0.06f, 0.58f};
constexpr Vec3 kRimLight{0.35f, 0.50f, -0.79f};
// Linear light colours and the clay's reflectance, chosen by eye: the brightest spot stays below 1.
constexpr Vec3 kKeyColor{1.12f, 1.05f, 0.96f};
constexpr Vec3 kFillColor{0.10f, 0.125f, 0.165f};
constexpr Vec3 kRimColor{0.34f, 0.37f, 0.42f};
constexpr Vec3 kSkyColor{0.20f, 0.215f, 0.245f};
constexpr Vec3 kGroundColor{0.075f, 0.065f, 0.06f};
constexpr Vec3 kClay{0.56f, 0.52f, 0.485f};
constexpr float kWrap = 0.08f;      // light that reaches beyond the terminator, as in skin
constexpr float kSpecular = 0.09f;  // strength of the clay's sheen
constexpr float kShininess = 18.f;
constexpr float kInside = 0.35f;  // inner sides of faces
// Colour shading: photo colours × (base + lamp · cos).
constexpr float kColorBase = 0.78f;
constexpr float kColorLamp = 0.27f;

Vec3 times(Vec3 a, Vec3 b) { return {a.x * b.x, a.y * b.y, a.z * b.z}; }

float srgb_decoded(float s) {
  return s <= 0.04045f ? s / 12.92f : std::pow((s + 0.055f) / 1.055f, 2.4f);
}

float srgb_encoded(float linear) {
  return linear <= 0.0031308f ? 12.92f * linear : 1.055f * std::pow(linear, 1.f / 2.4f) - 0.055f;
}

struct SrgbTables {
  std::array<float, 256> linear;
  static constexpr int kSteps = 4096;  // 1/16 of an 8-bit step at the darkest slope of the curve
  std::array<std::uint8_t, kSteps + 1> byte;

  SrgbTables() {
    for (int i = 0; i < 256; ++i) linear[i] = srgb_decoded(float(i) / 255.f);
    for (int i = 0; i <= kSteps; ++i)
      byte[i] = static_cast<std::uint8_t>(255.f * srgb_encoded(float(i) / kSteps) + 0.5f);
  }
  Vec3 decode(Rgb c) const { return {linear[c.r], linear[c.g], linear[c.b]}; }
  std::uint8_t encode(float x) const {
    return byte[static_cast<int>(std::clamp(x, 0.f, 1.f) * kSteps + 0.5f)];
  }
};

const SrgbTables& srgb() {
  static const SrgbTables tables;
  return tables;
}

// Viewer's frame from the camera frame: y and z turned round.
Vec3 to_viewer(Vec3 n) { return {n.x, -n.y, -n.z}; }

Vec3 clay_light(Vec3 n, float open) {
  const auto wrapped = [n](Vec3 light) {
    return std::max(0.f, (dot(n, light) + kWrap) / (1.f + kWrap));
  };
  const float up = 0.5f + 0.5f * n.y;
  const float facing = std::clamp(n.z, 0.f, 1.f);
  const float edge = (1.f - facing) * (1.f - facing);
  const Vec3 ambient = (1.f - up) * kGroundColor + up * kSkyColor;
  // A crease that sees less of the sky also sees less of a broad key light.
  const Vec3 light = open * ambient + (0.45f + 0.55f * open) * wrapped(kKeyLight) * kKeyColor +
                     open * wrapped(kFillLight) * kFillColor +
                     open * edge * std::max(0.f, dot(n, kRimLight) + 0.5f) * kRimColor;
  const Vec3 half = normalize_or_zero(kKeyLight + Vec3{0.f, 0.f, 1.f});
  const float sheen = kSpecular * open * std::pow(std::max(0.f, dot(n, half)), kShininess);
  return times(kClay, light) + Vec3{sheen, sheen, sheen};
}

Vec3 color_light(Vec3 albedo, Vec3 n, float open) {
  const float lamp = kColorBase + kColorLamp * std::max(0.f, n.z);
  return lamp * (0.35f + 0.65f * open) * albedo;
}

// Share of the surroundings that is open, 0 to 1, for each pixel of a depth image.
void ambient_occlusion(ImageView<const float> depth, const Camera& camera, int threads,
                       ImageView<float> open) {
  std::array<Vec2, kOcclusionDirections> directions;
  for (int d = 0; d < kOcclusionDirections; ++d) {
    const float angle = 6.2831853f * (float(d) + 0.25f) / kOcclusionDirections;
    directions[d] = {std::cos(angle), std::sin(angle)};
  }
  const int width = depth.width, height = depth.height;
  const float per_fx = 1.f / camera.fx, per_fy = 1.f / camera.fy;
  const auto point = [&](int x, int y) {
    const float z = depth(x, y);
    return Vec3{(float(x) + 0.5f - camera.cx) * per_fx * z,
                (float(y) + 0.5f - camera.cy) * per_fy * z, z};
  };
  parallel_for(height, threads, kRowGrain, [&](int begin, int end) {
    for (int y = begin; y < end; ++y)
      for (int x = 0; x < width; ++x) {
        open(x, y) = 1.f;
        if (!std::isfinite(depth(x, y))) continue;
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
        for (const Vec2 direction : directions)
          for (int step = 1; step <= kOcclusionSteps; ++step) {
            // Denser near the point, where contacts are.
            const float t = float(step * step) / (kOcclusionSteps * kOcclusionSteps);
            const float at_x = float(x) + 0.5f + t * radius_px * direction.x;
            const float at_y = float(y) + 0.5f + t * radius_px * direction.y;
            if (!(at_x >= 0.f && at_y >= 0.f && at_x < float(width) && at_y < float(height)))
              continue;
            const int sx = static_cast<int>(at_x), sy = static_cast<int>(at_y);
            if (!(depth(sx, sy) < kFar)) continue;
            const Vec3 to = point(sx, sy) - p;
            const float length = norm(to);
            const float above = dot(n, to) / (length + kTiny) - kOcclusionBias;
            const float near = 1.f - length / (1.5f * kOcclusionRadius);
            if (above > 0.f && near > 0.f) covered += above * near;
          }
        constexpr float kSamples = kOcclusionDirections * kOcclusionSteps;
        open(x, y) = std::clamp(1.f - kOcclusionStrength * covered / kSamples, 0.f, 1.f);
      }
  });
}

// 5 × 5 mean over pixels of about the same depth: takes the pattern of the fixed directions out.
void smooth_within_surface(ImageView<const float> depth, int threads, ImageView<float> open) {
  constexpr int kReach = 2;
  constexpr float kSameSurface = 4.f;  // mm
  const std::vector<float> before(open.data, open.data + open.width * open.height);
  parallel_for(open.height, threads, kRowGrain, [&](int begin, int end) {
    for (int y = begin; y < end; ++y)
      for (int x = 0; x < open.width; ++x) {
        if (!std::isfinite(depth(x, y))) continue;
        float sum = 0.f, count = 0.f;
        for (int j = std::max(y - kReach, 0); j <= std::min(y + kReach, open.height - 1); ++j)
          for (int i = std::max(x - kReach, 0); i <= std::min(x + kReach, open.width - 1); ++i) {
            if (!(std::fabs(depth(i, j) - depth(x, y)) < kSameSurface)) continue;
            sum += before[j * open.width + i];
            count += 1.f;
          }
        open(x, y) = sum / count;
      }
  });
}

}  // namespace

void render(MeshView mesh_in_camera, View<const Rgb> colors, const Camera& camera,
            const RenderStyle& style, int threads, ImageView<Rgb> out) {
  const int s = style.supersample;
  const int width = camera.width, height = camera.height;
  const Camera fine{camera.fx * s, camera.fy * s, camera.cx * s,
                    camera.cy * s, width * s,     height * s};
  const auto samples = static_cast<std::size_t>(fine.width) * fine.height;
  std::vector<float> depth(samples);
  std::vector<std::int32_t> triangle(samples);
  std::vector<Vec2> weights(samples);
  rasterize(mesh_in_camera, fine, Faces::kBoth, threads,
            {{depth.data(), fine.width, fine.height},
             {triangle.data(), fine.width, fine.height},
             {weights.data(), fine.width, fine.height}});

  std::vector<float> pixel_depth(static_cast<std::size_t>(width) * height),
      open(pixel_depth.size());
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x)
      pixel_depth[y * width + x] = depth[(y * s + s / 2) * fine.width + x * s + s / 2];
  const ImageView<const float> depth_view{pixel_depth.data(), width, height};
  const ImageView<float> open_view{open.data(), width, height};
  ambient_occlusion(depth_view, camera, threads, open_view);
  smooth_within_surface(depth_view, threads, open_view);

  std::vector<Vec3> normals(mesh_in_camera.vertices.n);
  const Csr faces_of = vertex_faces(mesh_in_camera.faces, mesh_in_camera.vertices.n);
  vertex_normals(mesh_in_camera, view(faces_of), threads,
                 {normals.data(), mesh_in_camera.vertices.n});
  const SrgbTables& tables = srgb();
  const Vec3 background = tables.decode(style.background);
  parallel_for(height, threads, kRowGrain, [&](int begin, int end) {
    for (int y = begin; y < end; ++y)
      for (int x = 0; x < width; ++x) {
        Vec3 sum{0.f, 0.f, 0.f};
        for (int k = 0; k < s * s; ++k) {
          const std::size_t at =
              static_cast<std::size_t>(y * s + k / s) * fine.width + (x * s + k % s);
          if (triangle[at] < 0) {
            sum = sum + background;
            continue;
          }
          const Tri t = mesh_in_camera.faces[triangle[at]];
          const float u = weights[at].x, v = weights[at].y, w = 1.f - u - v;
          const Vec3 a = mesh_in_camera.vertices[t.v0];
          const Vec3 flat =
              cross(mesh_in_camera.vertices[t.v1] - a, mesh_in_camera.vertices[t.v2] - a);
          const bool inside = dot(flat, a) > 0.f;
          const Vec3 smooth = u * normals[t.v0] + v * normals[t.v1] + w * normals[t.v2];
          const Vec3 n = to_viewer(normalize_or_zero(inside ? -smooth : smooth));
          Vec3 light;
          if (style.shading == Shading::kClay)
            light = clay_light(n, open_view(x, y));
          else
            light = color_light(u * tables.decode(colors[t.v0]) + v * tables.decode(colors[t.v1]) +
                                    w * tables.decode(colors[t.v2]),
                                n, open_view(x, y));
          sum = sum + (inside ? kInside : 1.f) * light;
        }
        const Vec3 mean = (1.f / float(s * s)) * sum;
        out(x, y) = {tables.encode(mean.x), tables.encode(mean.y), tables.encode(mean.z)};
      }
  });
}

}  // namespace e3d
