// texture.h — colours on the device, of vertices of the head model, the final mesh and the parts.
#pragma once

#include <memory>

#include "extreme3d/cuda/launch.h"
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

// Row-major pixel that each vertex projects into, -1 outside of width × height.
void vertex_pixels(View<const Vec3> vertices_in_camera, View<const float> pinhole, int width,
                   int height, View<std::int32_t> out, Stream s);

// mask without the vertices outside of `region`, and without those whose pixel is not in `image`.
void mask_at_pixels(View<const std::uint8_t> mask, View<const std::uint8_t> region,
                    View<const std::int32_t> pixel_of_vertex, ImageView<const std::uint8_t> image,
                    View<std::uint8_t> out, Stream s);

// === The final mesh ===

// M vertices at most, of which the first `count` are; V sparse vertices, N dense ones.
struct FinalMesh {
  View<const std::uint8_t> source;         // (M,) VertexSource
  View<const std::int32_t> source_vertex;  // (M,) of R (kSparse) or of D (others)
  View<const std::int32_t> count;          // (1,)
};

struct DensePixels {
  View<const std::int32_t> pixel;      // (N,) row-major, of each dense vertex
  ImageView<const std::uint8_t> hole;  // 1 where the relief was filled in
};

// Provenance of a vertex as the package stores it.
enum class Provenance : std::uint8_t { kObserved = 0, kFilled = 1, kMirrored = 2, kModel = 3 };

// recovery: (V,) 1 where symmetry recovered the vertex from its mirror image.
// pixel_of_vertex: (V,), -1 outside the crop.
void provenance(const FinalMesh& mesh, const DensePixels& dense, View<const std::uint8_t> observed,
                View<const std::uint8_t> recovery, View<const std::int32_t> pixel_of_vertex,
                View<std::uint8_t> out, Stream s);

struct RegisteredDense {
  View<const std::int32_t> triangle;  // (N,) face of R
  View<const Vec2> uv;                // (N,)
  View<const Tri> faces;              // (F,)
  View<const std::int32_t> mirror;    // (V,)
};

// Colours of the final mesh. Dense vertices have their pixel's, where that is hidden the sparse
// colour at the place they are registered to. Reflected ones have the sparse colour at the mirror
// image of that place, plus what the pixel adds to its own sparse colour (Eq. 10).
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
