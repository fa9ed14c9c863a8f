// rasterize.cpp — Python view of extreme3d/cuda/rasterize.h.
#include "extreme3d/cuda/rasterize.h"

#include "arrays.h"

namespace e3d::cuda::bind {
namespace {

void require_at_most(int n, int most, const char* name) {
  if (n > most)
    throw std::invalid_argument(std::string(name) + " has " + std::to_string(n) +
                                " rows, there is room for " + std::to_string(most));
}

}  // namespace

void bind_rasterize(nb::module_& m) {
  nb::class_<Rasterizer>(m, "Rasterizer")
      .def(
          "__init__",
          [](Rasterizer* self, int max_vertices, int max_faces, int width, int height) {
            if (max_vertices < 0 || max_faces < 0)
              throw std::invalid_argument("max_vertices and max_faces should not be negative");
            if (width < 1 || height < 1 || width > kMaxImageSide || height > kMaxImageSide)
              throw std::invalid_argument("width and height should be in [1, " +
                                          std::to_string(kMaxImageSide) + "], are " +
                                          std::to_string(width) + " and " + std::to_string(height));
            new (self) Rasterizer(max_vertices, max_faces, width, height);
          },
          "max_vertices"_a, "max_faces"_a, "width"_a, "height"_a)
      .def(
          "rasterize",
          [](const Rasterizer& rasterizer, const Array<const float>& vertices_in_camera,
             const Array<const std::int32_t>& faces, const Array<const float>& pinhole,
             const Array<float>& depth, const Array<std::int32_t>& triangle,
             const Array<float>& barycentric, bool cull_back_faces, std::uintptr_t s) {
            const MeshView mesh{rows<const Vec3>(vertices_in_camera, "vertices_in_camera"),
                                rows<const Tri>(faces, "faces")};
            require_at_most(mesh.vertices.n, rasterizer.max_vertices(), "vertices_in_camera");
            require_at_most(mesh.faces.n, rasterizer.max_faces(), "faces");
            const int h = rasterizer.height(), w = rasterizer.width();
            rasterizer.rasterize(mesh, view(pinhole, "pinhole", 4),
                                 cull_back_faces ? Faces::kFront : Faces::kBoth,
                                 {image(depth, "depth", h, w), image(triangle, "triangle", h, w),
                                  image_of<Vec2>(barycentric, "barycentric", h, w)},
                                 stream(s));
          },
          "vertices_in_camera"_array, "faces"_array, "pinhole"_array, "depth"_array,
          "triangle"_array, "barycentric"_array, "cull_back_faces"_a = true, "stream"_a = 0);
  m.def(
      "interpolate",
      [](const Array<const std::int32_t>& triangle, const Array<const float>& barycentric,
         const Array<const float>& values, const Array<const std::int32_t>& faces,
         const Array<float>& out, std::uintptr_t s) {
        const auto t = image(triangle, "triangle");
        interpolate(t, image_of<const Vec2>(barycentric, "barycentric", t.height, t.width),
                    view(values, "values"), rows<const Tri>(faces, "faces"),
                    image(out, "out", t.height, t.width), stream(s));
      },
      "triangle"_array, "barycentric"_array, "values"_array, "faces"_array, "out"_array,
      "stream"_a = 0);
  m.def(
      "smooth_depth",
      [](const Array<const float>& depth, const Array<const std::int32_t>& triangle,
         const Array<const float>& barycentric, const Array<const float>& vertices_in_camera,
         const Array<const float>& normals_in_camera, const Array<const std::int32_t>& faces,
         const Array<float>& out, std::uintptr_t s) {
        const auto z = image(depth, "depth");
        const auto v = rows<const Vec3>(vertices_in_camera, "vertices_in_camera");
        smooth_depth(z, image(triangle, "triangle", z.height, z.width),
                     image_of<const Vec2>(barycentric, "barycentric", z.height, z.width), v,
                     rows<const Vec3>(normals_in_camera, "normals_in_camera", v.n),
                     rows<const Tri>(faces, "faces"), image(out, "out", z.height, z.width),
                     stream(s));
      },
      "depth"_array, "triangle"_array, "barycentric"_array, "vertices_in_camera"_array,
      "normals_in_camera"_array, "faces"_array, "out"_array, "stream"_a = 0);
  m.def(
      "vertex_visibility",
      [](const Array<const float>& vertices_in_camera, const Array<const float>& normals_in_camera,
         const Array<const float>& depth, const Array<const float>& pinhole, float min_cosine,
         float depth_tolerance, const Array<std::uint8_t>& out, std::uintptr_t s) {
        const auto v = rows<const Vec3>(vertices_in_camera, "vertices_in_camera");
        vertex_visibility(v, rows<const Vec3>(normals_in_camera, "normals_in_camera", v.n),
                          image(depth, "depth"), view(pinhole, "pinhole", 4),
                          {min_cosine, depth_tolerance}, view(out, "out", v.n), stream(s));
      },
      "vertices_in_camera"_array, "normals_in_camera"_array, "depth"_array, "pinhole"_array,
      "min_cosine"_a, "depth_tolerance"_a, "out"_array, "stream"_a = 0);
  m.def(
      "pixels_of_vertices",
      [](const Array<const float>& vertices_in_camera, const Array<const float>& pinhole, int width,
         int height, const Array<std::int32_t>& out, std::uintptr_t s) {
        const auto v = rows<const Vec3>(vertices_in_camera, "vertices_in_camera");
        pixels_of_vertices(v, view(pinhole, "pinhole", 4), width, height, view(out, "out", v.n),
                           stream(s));
      },
      "vertices_in_camera"_array, "pinhole"_array, "width"_a, "height"_a, "out"_array,
      "stream"_a = 0);
  m.def(
      "photo_mask",
      [](const Array<const double>& corners, const Array<std::int32_t>& rows_scratch,
         const Array<std::uint8_t>& out, std::uintptr_t s) {
        const auto mask = image(out, "out");
        require_shape(out, "out", {mask.width, mask.width});
        photo_mask(view(corners, "corners", 8), rows<Span>(rows_scratch, "rows", mask.height), mask,
                   stream(s));
      },
      "corners"_array, "rows"_array, "out"_array, "stream"_a = 0);
  nb::class_<WeightSums>(m, "WeightSums")
      .def(nb::init<>())
      .def(
          "sum",
          [](const WeightSums& sums, const Array<const float>& weight,
             const Array<const std::uint8_t>& mask, const Array<double>& out, std::uintptr_t s) {
            const auto w = image(weight, "weight");
            sums.sum(w, image(mask, "mask", w.height, w.width), view(out, "out", 2), stream(s));
          },
          "weight"_array, "mask"_array, "out"_array, "stream"_a = 0);
}

}  // namespace e3d::cuda::bind
