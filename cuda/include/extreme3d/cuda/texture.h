// texture.h — colours on the device, of vertices of the head model, the final mesh and the parts.
#pragma once

#include <memory>

#include "extreme3d/cuda/launch.h"
#include "extreme3d/paint.h"
#include "extreme3d/texture.h"

namespace e3d::cuda {

// Colours of the head model's skin (see extreme3d/texture.h). The host grows the offsets ring by
// ring and relaxes them one vertex after the other; the device grows them alike and relaxes all
// vertices at once, more often.
class VertexColors {
 public:
  // Host arrays: (F,), (V,) the mirror image or -1, (V,). Throws std::invalid_argument where an
  // index is out of range.
  VertexColors(View<const Tri> faces, View<const std::int32_t> mirror_of, View<const Rgb> fallback);
  ~VertexColors();
  VertexColors(VertexColors&&) noexcept;

  // pinhole: (4,) fx, fy, cx, cy of the photo, which has at least 2 × 2 pixels.
  void colors(View<const Vec3> vertices_in_camera, View<const std::uint8_t> seen,
              ImageView<const Rgb> photo, View<const float> pinhole, View<Rgb> out, Stream s) const;

  int n_vertices() const;

 private:
  struct Internals;
  std::unique_ptr<Internals> internals_;
};

// === The final mesh ===

// M vertices at most, of which the first `count` are; V sparse vertices, N dense ones.
struct FinalMesh {
  View<const std::uint8_t> source;         // (M,) VertexSource
  View<const std::int32_t> source_vertex;  // (M,) of R (kSparse) or of D (others)
  View<const std::int32_t> count;          // (1,)
};

// `provenance_of` each vertex (see extreme3d/paint.h).
void provenance(const FinalMesh& mesh, const DensePixels& dense, const SparseOrigin& sparse,
                View<std::uint8_t> out, Stream s);

// `mesh_color` of each vertex (see extreme3d/paint.h).
void mesh_colors(const FinalMesh& mesh, const DensePixels& dense,
                 const RegisteredDense& registration, View<const Rgb> color_of_sparse,
                 ImageView<const Rgb> photo, View<Rgb> out, Stream s);

// === Parts: eyeballs, teeth, tongue ===

// Colours of parts: the photo's where it shows them; elsewhere the model's, as bright as those, or
// as the skin where nothing of the part is seen.
class PartColors {
 public:
  // model_colors: host (V + T,), skin first, then the parts. begin: host (P + 1,), where each part
  // begins in it, and the end. Throws std::invalid_argument unless begin rises from 0 or more to
  // V + T.
  PartColors(View<const Rgb> model_colors, View<const std::int32_t> begin);
  ~PartColors();
  PartColors(PartColors&&) noexcept;

  // skin, shown: (V,) colours of the skin, and where the photo shows it.
  // visible, pixel_of_vertex: (T,) of the parts; what is visible lies in the photo.
  void colors(View<const Rgb> skin, View<const std::uint8_t> shown,
              View<const std::uint8_t> visible, View<const std::int32_t> pixel_of_vertex,
              ImageView<const Rgb> photo, View<Rgb> out, Stream s) const;

  int n_skin() const;
  int n_parts() const;  // vertices of all parts

 private:
  struct Internals;
  std::unique_ptr<Internals> internals_;
};

}  // namespace e3d::cuda
