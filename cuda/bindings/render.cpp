// render.cpp — Python view of extreme3d/cuda/render.h.
#include "extreme3d/cuda/render.h"

#include <nanobind/stl/array.h>

#include "arrays.h"

namespace e3d::cuda::bind {
namespace {

void require_at_most(int have, int room, const char* what) {
  if (have > room)
    throw std::invalid_argument("the Renderer has room for " + std::to_string(room) + " " + what +
                                ", not for " + std::to_string(have));
}

}  // namespace

void bind_render(nb::module_& m) {
  m.def(
      "frame_views",
      [](const Array<const float>& vertices, const Array<const std::int32_t>& count,
         const Array<const float>& rotations, float distance, const Array<std::int32_t>& bounds,
         const Array<float>& out, std::uintptr_t s) {
        require_shape(rotations, "rotations", {-1, 3, 3});
        const auto views = static_cast<int>(rotations.shape(0));
        require_shape(out, "out", {views, 4, 4});
        frame_views(rows<const Vec3>(vertices, "vertices"), view(count, "count", 1),
                    {rotations.data(), 9 * views}, distance, view(bounds, "bounds", 7),
                    {out.data(), 16 * views}, stream(s));
      },
      "vertices"_array, "count"_array, "rotations"_array, "distance"_a, "bounds"_array, "out"_array,
      "stream"_a = 0);

  nb::class_<Renderer>(m, "Renderer")
      .def(
          "__init__",
          [](Renderer* self, int max_vertices, int max_faces, int max_size) {
            if (max_vertices < 0 || max_faces < 0 || max_size < 1)
              throw std::invalid_argument(
                  "max_vertices, max_faces and max_size should be positive");
            new (self) Renderer(max_vertices, max_faces, max_size);
          },
          "max_vertices"_a, "max_faces"_a, "max_size"_a)
      .def(
          "prepare",
          [](const Renderer& self, const Array<const std::int32_t>& faces,
             const Array<const std::int32_t>& count, int n_vertices, std::uintptr_t s) {
            const auto triangles = rows<const Tri>(faces, "faces");
            require_at_most(triangles.n, self.max_faces(), "faces");
            if (n_vertices < 0) throw std::invalid_argument("n_vertices should not be negative");
            require_at_most(n_vertices, self.max_vertices(), "vertices");
            self.prepare(triangles, view(count, "count", 1), n_vertices, stream(s));
          },
          "faces"_array, "count"_array, "n_vertices"_a, "stream"_a = 0)
      .def(
          "shade",
          [](const Renderer& self, const Array<const float>& vertices_in_camera,
             const Array<const std::int32_t>& faces, const Array<const std::uint8_t>& colors,
             const Array<const float>& depth, const Array<const std::int32_t>& triangle,
             const Array<const float>& barycentric, const Array<const float>& pinhole, bool clay,
             std::array<std::uint8_t, 3> background, const Array<std::uint8_t>& out,
             std::uintptr_t s) {
            const MeshView mesh{rows<const Vec3>(vertices_in_camera, "vertices_in_camera"),
                                rows<const Tri>(faces, "faces")};
            require_at_most(mesh.vertices.n, self.max_vertices(), "vertices");
            const auto picture = image_of<Rgb>(out, "out");
            require_at_most(picture.width, self.max_size(), "pixels a side");
            require_at_most(picture.height, self.max_size(), "pixels a side");
            const auto fine = image(depth, "depth");
            const int scale = picture.width > 0 ? fine.width / picture.width : 0;
            if (scale < 1 || fine.width != scale * picture.width ||
                fine.height != scale * picture.height)
              throw std::invalid_argument("depth should be a multiple of out in size");
            self.shade(mesh, rows<const Rgb>(colors, "colors", mesh.vertices.n),
                       {fine, image(triangle, "triangle", fine.height, fine.width),
                        image_of<const Vec2>(barycentric, "barycentric", fine.height, fine.width)},
                       view(pinhole, "pinhole", 4),
                       {clay ? Shading::kClay : Shading::kColor,
                        scale,
                        {background[0], background[1], background[2]}},
                       picture, stream(s));
          },
          "vertices_in_camera"_array, "faces"_array, "colors"_array, "depth"_array,
          "triangle"_array, "barycentric"_array, "pinhole"_array, "clay"_a, "background"_a,
          "out"_array, "stream"_a = 0);
}

}  // namespace e3d::cuda::bind
