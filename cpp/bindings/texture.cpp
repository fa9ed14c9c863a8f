// texture.cpp — Python view of extreme3d/texture.h.
#include "extreme3d/texture.h"

#include "arrays.h"

namespace e3d::bind {
namespace {

View<const Rgb> rgb_view(const Array<std::uint8_t>& a, const char* name, int n) {
  require_shape(a, name, {n, 3});
  return {reinterpret_cast<const Rgb*>(a.data()), n};
}

VertexColors vertex_colors(const Array<std::int32_t>& faces, const Array<std::int32_t>& mirror_of,
                           const Array<std::uint8_t>& fallback) {
  require_shape(mirror_of, "mirror_of", {-1});
  const int n = static_cast<int>(mirror_of.shape(0));
  return VertexColors(tri_view(faces, "faces", n), index_view(mirror_of, "mirror_of", n, -1, n),
                      rgb_view(fallback, "fallback", n));
}

py::array_t<std::uint8_t> colors(const VertexColors& self, const Array<float>& vertices_in_camera,
                                 const Array<std::uint8_t>& seen, const Array<std::uint8_t>& photo,
                                 float fx, float fy, float cx, float cy, int threads) {
  const int n = self.n_vertices();
  const auto vertices = vec3_view(vertices_in_camera, "vertices_in_camera", n);
  const auto shown = view(seen, "seen", n);
  require_shape(photo, "photo", {-1, -1, 3});
  const int height = static_cast<int>(photo.shape(0)), width = static_cast<int>(photo.shape(1));
  if (height < 2 || width < 2)
    throw std::invalid_argument("photo should have at least 2 x 2 pixels, has " + shape_of(photo));
  const ImageView<const Rgb> picture{reinterpret_cast<const Rgb*>(photo.data()), width, height};
  std::vector<Rgb> out;
  {
    const py::gil_scoped_release release;
    out = self.colors(vertices, shown, picture, {fx, fy, cx, cy, width, height}, threads);
  }
  return take<std::uint8_t>(std::move(out), {n, 3});
}

}  // namespace

void bind_texture(py::module_& m) {
  py::class_<VertexColors>(m, "VertexColors")
      .def(py::init(&vertex_colors), py::arg("faces").noconvert(), py::arg("mirror_of").noconvert(),
           py::arg("fallback").noconvert())
      .def("colors", &colors, py::arg("vertices_in_camera").noconvert(),
           py::arg("seen").noconvert(), py::arg("photo").noconvert(), py::arg("fx"), py::arg("fy"),
           py::arg("cx"), py::arg("cy"), py::arg("threads"));
}

}  // namespace e3d::bind
