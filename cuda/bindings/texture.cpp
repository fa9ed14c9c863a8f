// texture.cpp — Python view of extreme3d/cuda/texture.h.
#include "extreme3d/cuda/texture.h"

#include "arrays.h"

namespace e3d::cuda::bind {
namespace {

FinalMesh final_mesh(const Array<const std::uint8_t>& source,
                     const Array<const std::int32_t>& source_vertex,
                     const Array<const std::int32_t>& count) {
  const auto from = view(source, "source");
  return {from, view(source_vertex, "source_vertex", from.n), view(count, "count", 1)};
}

ImageView<const Rgb> photo_of(const Array<const std::uint8_t>& photo) {
  const auto picture = image_of<const Rgb>(photo, "photo");
  if (picture.width < 2 || picture.height < 2)
    throw std::invalid_argument("photo should have at least 2 x 2 pixels");
  return picture;
}

}  // namespace

void bind_texture(nb::module_& m) {
  nb::class_<VertexColors>(m, "VertexColors")
      .def(
          "__init__",
          [](VertexColors* self, const HostArray<std::int32_t>& faces,
             const HostArray<std::int32_t>& mirror_of, const HostArray<std::uint8_t>& fallback) {
            const auto mirror = view(mirror_of, "mirror_of");
            new (self) VertexColors(rows<const Tri>(faces, "faces"), mirror,
                                    rows<const Rgb>(fallback, "fallback", mirror.n));
          },
          "faces"_array, "mirror_of"_array, "fallback"_array)
      .def(
          "colors",
          [](const VertexColors& self, const Array<const float>& vertices_in_camera,
             const Array<const std::uint8_t>& seen, const Array<const std::uint8_t>& photo,
             const Array<const float>& pinhole, const Array<std::uint8_t>& out, std::uintptr_t s) {
            const int n = self.n_vertices();
            self.colors(rows<const Vec3>(vertices_in_camera, "vertices_in_camera", n),
                        view(seen, "seen", n), photo_of(photo), view(pinhole, "pinhole", 4),
                        rows<Rgb>(out, "out", n), stream(s));
          },
          "vertices_in_camera"_array, "seen"_array, "photo"_array, "pinhole"_array, "out"_array,
          "stream"_a = 0);

  m.def(
      "provenance",
      [](const Array<const std::uint8_t>& source, const Array<const std::int32_t>& source_vertex,
         const Array<const std::int32_t>& count, const Array<const std::int32_t>& pixel_of_dense,
         const Array<const std::uint8_t>& filled, const Array<const std::uint8_t>& observed,
         const Array<const std::uint8_t>& recovery,
         const Array<const std::int32_t>& pixel_of_vertex, const Array<std::uint8_t>& out,
         std::uintptr_t s) {
        const FinalMesh mesh = final_mesh(source, source_vertex, count);
        const auto seen = view(observed, "observed");
        provenance(mesh, {view(pixel_of_dense, "pixel_of_dense"), image(filled, "filled")},
                   {seen, view(recovery, "recovery", seen.n),
                    view(pixel_of_vertex, "pixel_of_vertex", seen.n)},
                   view(out, "out", mesh.source.n), stream(s));
      },
      "source"_array, "source_vertex"_array, "count"_array, "pixel_of_dense"_array, "filled"_array,
      "observed"_array, "recovery"_array, "pixel_of_vertex"_array, "out"_array, "stream"_a = 0);
  m.def(
      "mesh_colors",
      [](const Array<const std::uint8_t>& source, const Array<const std::int32_t>& source_vertex,
         const Array<const std::int32_t>& count, const Array<const std::int32_t>& pixel_of_dense,
         const Array<const std::uint8_t>& filled, const Array<const std::int32_t>& triangle,
         const Array<const float>& uv, const Array<const std::int32_t>& faces,
         const Array<const std::int32_t>& mirror, const Array<const std::uint8_t>& color_of_sparse,
         const Array<const std::uint8_t>& photo, const Array<std::uint8_t>& out, std::uintptr_t s) {
        const FinalMesh mesh = final_mesh(source, source_vertex, count);
        const auto pixels = view(pixel_of_dense, "pixel_of_dense");
        const auto picture = photo_of(photo);
        const auto sparse = rows<const Rgb>(color_of_sparse, "color_of_sparse");
        mesh_colors(mesh, {pixels, image(filled, "filled", picture.height, picture.width)},
                    {view(triangle, "triangle", pixels.n), rows<const Vec2>(uv, "uv", pixels.n),
                     rows<const Tri>(faces, "faces"), view(mirror, "mirror", sparse.n)},
                    sparse, picture, rows<Rgb>(out, "out", mesh.source.n), stream(s));
      },
      "source"_array, "source_vertex"_array, "count"_array, "pixel_of_dense"_array, "filled"_array,
      "triangle"_array, "uv"_array, "faces"_array, "mirror"_array, "color_of_sparse"_array,
      "photo"_array, "out"_array, "stream"_a = 0);

  nb::class_<PartColors>(m, "PartColors")
      .def(
          "__init__",
          [](PartColors* self, const HostArray<std::uint8_t>& model_colors,
             const HostArray<std::int32_t>& begin) {
            new (self)
                PartColors(rows<const Rgb>(model_colors, "model_colors"), view(begin, "begin"));
          },
          "model_colors"_array, "begin"_array)
      .def(
          "colors",
          [](const PartColors& self, const Array<const std::uint8_t>& skin,
             const Array<const std::uint8_t>& shown, const Array<const std::uint8_t>& visible,
             const Array<const std::int32_t>& pixel_of_vertex,
             const Array<const std::uint8_t>& photo, const Array<std::uint8_t>& out,
             std::uintptr_t s) {
            const int n = self.n_parts();
            self.colors(rows<const Rgb>(skin, "skin", self.n_skin()),
                        view(shown, "shown", self.n_skin()), view(visible, "visible", n),
                        view(pixel_of_vertex, "pixel_of_vertex", n), photo_of(photo),
                        rows<Rgb>(out, "out", n), stream(s));
          },
          "skin"_array, "shown"_array, "visible"_array, "pixel_of_vertex"_array, "photo"_array,
          "out"_array, "stream"_a = 0);
}

}  // namespace e3d::cuda::bind
