// render.h — shaded views of coloured meshes on the device; see extreme3d/render.h.
#pragma once

#include <memory>

#include "extreme3d/cuda/launch.h"
#include "extreme3d/render.h"

namespace e3d::cuda {

// Turned views of a head, framed by the sphere around the middle of its box, all at one distance
// and zoom. rotations: (K, 9) camera_from_head, row-major. bounds: (7,) scratch. out: (K, 16)
// camera_from_head, rigid. vertices: head frame, of which the first `count` (1,) are.
// distance: of the viewer, in radii of the sphere.
void frame_views(View<const Vec3> vertices, View<const std::int32_t> count,
                 View<const float> rotations, float distance, View<std::int32_t> bounds,
                 View<float> out, Stream s);

// A raster of `supersample` × `supersample` samples a pixel.
struct Samples {
  ImageView<const float> depth;            // mm, +inf where no face
  ImageView<const std::int32_t> triangle;  // -1 where no face
  ImageView<const Vec2> barycentric;
};

// Shades what a rasteriser found, as `render` of the host does after its own.
class Renderer {
 public:
  // Room for meshes and square pictures of these sizes at most.
  Renderer(int max_vertices, int max_faces, int max_size);
  ~Renderer();
  Renderer(Renderer&&) noexcept;

  // Finds the faces of each vertex of a mesh with V vertices, for all views of it. count: (1,) the
  // first faces are.
  void prepare(View<const Tri> faces, View<const std::int32_t> count, int n_vertices,
               Stream s) const;

  // mesh_in_camera: with the faces that were prepared. pinhole: (4,) of the picture, not of its
  // samples. The samples' size is style.supersample times that of `out`.
  void shade(MeshView mesh_in_camera, View<const Rgb> colors, const Samples& samples,
             View<const float> pinhole, const RenderStyle& style, ImageView<Rgb> out,
             Stream s) const;

  int max_vertices() const;
  int max_faces() const;
  int max_size() const;

 private:
  struct Internals;
  std::unique_ptr<Internals> internals_;
};

}  // namespace e3d::cuda
