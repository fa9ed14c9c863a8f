// texture.cpp — Python view of extreme3d/texture.h.
#include "extreme3d/texture.h"

#include "arrays.h"

namespace e3d::bind {
namespace {

View<const Rgb> rgb_view(const Array<std::uint8_t>& a, const char* name, int n) {
  require_shape(a, name, {n, 3});
  return {reinterpret_cast<const Rgb*>(a.data()), n};
}

py::array_t<std::uint8_t> colors(const Array<float>& vertices_in_camera,
                                 const Array<std::int32_t>& faces, const Array<std::uint8_t>& seen,
                                 const Array<std::int32_t>& mirror_of,
                                 const Array<std::uint8_t>& fallback,
                                 const Array<std::uint8_t>& photo, float fx, float fy, float cx,
                                 float cy, int threads) {
  const auto vertices = vec3_view(vertices_in_camera, "vertices_in_camera");
  require_shape(photo, "photo", {-1, -1, 3});
  const int height = static_cast<int>(photo.shape(0)), width = static_cast<int>(photo.shape(1));
  if (height < 2 || width < 2)
    throw std::invalid_argument("photo should have at least 2 x 2 pixels, has " + shape_of(photo));
  const TextureInput in{{vertices, tri_view(faces, "faces", vertices.n)},
                        view(seen, "seen", vertices.n),
                        view(mirror_of, "mirror_of", vertices.n),
                        rgb_view(fallback, "fallback", vertices.n),
                        {reinterpret_cast<const Rgb*>(photo.data()), width, height},
                        {fx, fy, cx, cy, width, height}};
  for (int v = 0; v < vertices.n; ++v)
    if (in.mirror_of[v] >= vertices.n)
      throw std::invalid_argument("mirror_of has index " + std::to_string(in.mirror_of[v]) +
                                  " outside [-1, " + std::to_string(vertices.n) + ")");
  std::vector<Rgb> out;
  {
    const py::gil_scoped_release release;
    out = vertex_colors(in, threads);
  }
  return take<std::uint8_t>(std::move(out), {vertices.n, 3});
}

}  // namespace

void bind_texture(py::module_& m) {
  m.def("vertex_colors", &colors, py::arg("vertices_in_camera").noconvert(),
        py::arg("faces").noconvert(), py::arg("seen").noconvert(), py::arg("mirror_of").noconvert(),
        py::arg("fallback").noconvert(), py::arg("photo").noconvert(), py::arg("fx"), py::arg("fy"),
        py::arg("cx"), py::arg("cy"), py::arg("threads"));
}

}  // namespace e3d::bind
