// paint.h — colour and provenance of every vertex of the final mesh S.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "extreme3d/texture.h"
#include "extreme3d/zipper.h"

namespace e3d {

// Where a vertex came from, as the package stores it.
enum class Provenance : std::uint8_t { kObserved = 0, kFilled = 1, kMirrored = 2, kModel = 3 };

struct DensePixels {
  View<const std::int32_t> pixel;      // (N,) row-major, of each dense vertex
  ImageView<const std::uint8_t> hole;  // 1 where the relief was filled in
};

struct RegisteredDense {
  View<const std::int32_t> triangle;  // (N,) face of R, -1 for none
  View<const Vec2> uv;                // (N,)
  View<const Tri> faces;              // (F,)
  View<const std::int32_t> mirror;    // (V,)
};

struct SparseOrigin {
  View<const std::uint8_t> observed;         // (V,)
  View<const std::uint8_t> recovery;         // (V,) 1 where recovered from the mirror image
  View<const std::int32_t> pixel_of_vertex;  // (V,) -1 outside the crop
};

E3D_HD inline Provenance provenance_of(VertexSource source, std::int32_t v,
                                       const DensePixels& dense, const SparseOrigin& sparse) {
  constexpr std::uint8_t kRecoveredFromMirror = 1;
  if (source == VertexSource::kReflected) return Provenance::kMirrored;
  if (source == VertexSource::kSparse && !sparse.observed[v])
    return sparse.recovery[v] == kRecoveredFromMirror ? Provenance::kMirrored : Provenance::kModel;
  const bool is_dense = source == VertexSource::kDense;
  const std::int32_t pixel = is_dense ? dense.pixel[v] : sparse.pixel_of_vertex[v];
  return pixel >= 0 && dense.hole[pixel] ? Provenance::kFilled : Provenance::kObserved;
}

// The nearest byte towards 0.
E3D_HD inline std::uint8_t truncated(float x) {
  return static_cast<std::uint8_t>(std::clamp(x, 0.f, 255.f));
}
E3D_HD inline Rgb truncated(Vec3 c) { return {truncated(c.x), truncated(c.y), truncated(c.z)}; }

// Colours of the sparse mesh, or of its mirror image, at the place a dense vertex is registered to
// (Eq. 8).
E3D_HD inline Vec3 registered_color(const RegisteredDense& r, View<const Rgb> color_of_sparse,
                                    int dense, bool mirrored) {
  const Tri t = r.faces[r.triangle[dense]];
  const Vec2 uv = r.uv[dense];
  const auto color = [&](std::int32_t v) {
    return to_vec(color_of_sparse[mirrored ? r.mirror[v] : v]);
  };
  return uv.x * color(t.v0) + uv.y * color(t.v1) + (1.f - uv.x - uv.y) * color(t.v2);
}

// A dense vertex has its pixel's colour, where that is hidden the sparse colour at its place.
E3D_HD inline Rgb dense_color(const DensePixels& dense, const RegisteredDense& r,
                              View<const Rgb> color_of_sparse, ImageView<const Rgb> photo, int v) {
  const std::int32_t pixel = dense.pixel[v];
  if (!dense.hole[pixel] || r.triangle[v] < 0) return photo[pixel];
  return truncated(registered_color(r, color_of_sparse, v, false));
}

// Eq. 10 on colours: the sparse colour of the mirror image, which continues the light of the
// visible side, plus what the pixel adds to its own sparse colour.
E3D_HD inline Rgb reflected_color(const DensePixels& dense, const RegisteredDense& r,
                                  View<const Rgb> color_of_sparse, ImageView<const Rgb> photo,
                                  int v) {
  // Largest difference of a pixel from the colour of its triangle that counts as detail of the
  // skin: beside the rim of what the photo shows, sparse colours are not the photo's.
  constexpr float kMaxDetail = 40.f;
  const Rgb own = dense_color(dense, r, color_of_sparse, photo, v);
  if (r.triangle[v] < 0) return own;
  const float most = kMaxDetail;
  const auto detail = [most](float x) { return std::clamp(x, -most, most); };
  const Vec3 d = to_vec(own) - registered_color(r, color_of_sparse, v, false);
  return truncated(registered_color(r, color_of_sparse, v, true) +
                   Vec3{detail(d.x), detail(d.y), detail(d.z)});
}

E3D_HD inline Rgb mesh_color(VertexSource source, std::int32_t v, const DensePixels& dense,
                             const RegisteredDense& r, View<const Rgb> color_of_sparse,
                             ImageView<const Rgb> photo) {
  if (source == VertexSource::kSparse) return color_of_sparse[v];
  if (source == VertexSource::kDense) return dense_color(dense, r, color_of_sparse, photo, v);
  return reflected_color(dense, r, color_of_sparse, photo, v);
}

// === On the host ===

struct Paint {
  std::vector<Rgb> colors;             // (M,)
  std::vector<Provenance> provenance;  // (M,)
};

// source, source_vertex: (M,) vertex of R (kSparse) or of D (others); throws std::invalid_argument
// where it has no such vertex.
Paint paint_mesh(View<const std::uint8_t> source, View<const std::int32_t> source_vertex,
                 const DensePixels& dense, const RegisteredDense& registration,
                 const SparseOrigin& sparse, View<const Rgb> color_of_sparse,
                 ImageView<const Rgb> photo, int threads);

}  // namespace e3d
