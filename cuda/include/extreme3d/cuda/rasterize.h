// rasterize.h — z-buffer, visibility and maps of a mesh's pixels on the device; see
// extreme3d/rasterize.h.
//
// A camera is a pinhole (4,) fx, fy, cx, cy in device memory, in px, and the size of its images.
#pragma once

#include <memory>

#include "extreme3d/cuda/memory.h"
#include "extreme3d/photo_mask.h"
#include "extreme3d/rasterize.h"
#include "extreme3d/smooth_depth.h"

namespace e3d::cuda {

// Owns the snapped vertices and the z-buffer, for meshes and images up to a size.
class Rasterizer {
 public:
  Rasterizer(int max_vertices, int max_faces, int width, int height);

  int width() const { return width_; }
  int height() const { return height_; }
  int max_vertices() const { return static_cast<int>(vertices_.size()); }
  int max_faces() const { return static_cast<int>(large_.size()); }

  // Bit for bit what the host's `rasterize` gives. Indices must be in range.
  void rasterize(MeshView mesh_in_camera, View<const float> pinhole, Faces shown, RasterView out,
                 Stream s) const;

 private:
  int width_, height_;
  DeviceArray<SnappedVertex> vertices_;
  DeviceArray<unsigned long long> keys_;  // nearest `depth_key` of each pixel
  DeviceArray<std::int32_t> large_;       // faces that are drawn by many threads
  DeviceArray<std::int32_t> large_count_;
};

// values (V,) of the vertices carried to the pixels; 0 where no face.
void interpolate(ImageView<const std::int32_t> triangle, ImageView<const Vec2> barycentric,
                 View<const float> values, View<const Tri> faces, ImageView<float> out, Stream s);

// depth as `rasterize` gave it; normals (V,) unit, camera frame, outward.
void smooth_depth(ImageView<const float> depth, ImageView<const std::int32_t> triangle,
                  ImageView<const Vec2> barycentric, View<const Vec3> vertices,
                  View<const Vec3> normals, View<const Tri> faces, ImageView<float> out, Stream s);

// out[v] is 1 or 0.
void vertex_visibility(View<const Vec3> vertices_in_camera, View<const Vec3> normals_in_camera,
                       ImageView<const float> depth, View<const float> pinhole,
                       VisibilityOptions options, View<std::uint8_t> out, Stream s);

// out[v]: row-major pixel that vertex v projects into, -1 outside the image.
void pixels_of_vertices(View<const Vec3> vertices_in_camera, View<const float> pinhole, int width,
                        int height, View<std::int32_t> out, Stream s);

// corners (8,): x, y of the photo's corners in px of the square crop, in order; rows: scratch, one
// a row of the crop; out: 1 where the photo has the pixel and its neighbours.
void photo_mask(View<const double> corners, View<Span> rows, ImageView<std::uint8_t> out, Stream s);

// Bins of a histogram of depths from 64 to 4096 mm: 2048 an octave, so that a bin's middle is
// within 1/4096 of what is in it. What lies beyond is in the first and last bin.
inline constexpr int kDepthBins = 6 * 2048;

// out (kDepthBins,): number of the pixels with a weight and a finite depth in each bin.
void depth_histogram(ImageView<const float> weight, ImageView<const float> depth,
                     View<std::int32_t> out, Stream s);

// Boxes and sums of maps; owns what a grid of threads needs.
class MapReductions {
 public:
  MapReductions();
  ~MapReductions();

  // out (5,): first and last row, first and last column, and number of the pixels with a weight
  // and a finite depth; (0, -1, 0, -1, 0) where there is none.
  void bounding_box(ImageView<const float> weight, ImageView<const float> depth,
                    View<std::int32_t> out, Stream s) const;
  // The same of the pixels of a mask.
  void mask_box(ImageView<const std::uint8_t> mask, View<std::int32_t> out, Stream s) const;
  // out (2,): sum of the weight, and of its part outside the mask.
  void weight_sums(ImageView<const float> weight, ImageView<const std::uint8_t> mask,
                   View<double> out, Stream s) const;

 private:
  struct Internals;
  std::unique_ptr<Internals> internals_;
};

}  // namespace e3d::cuda
