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

// Sums of maps; owns what a grid of threads needs.
class WeightSums {
 public:
  WeightSums();
  ~WeightSums();

  // out (2,): sum of the weight, and of its part outside the mask.
  void sum(ImageView<const float> weight, ImageView<const std::uint8_t> mask, View<double> out,
           Stream s) const;

 private:
  struct Internals;
  std::unique_ptr<Internals> internals_;
};

}  // namespace e3d::cuda
