// render.cpp — Python view of extreme3d/render.h.
#include "extreme3d/render.h"

#include <pybind11/stl.h>

#include "arrays.h"

namespace e3d::bind {
namespace {

py::array_t<std::uint8_t> picture(const Array<float>& vertices_in_camera,
                                  const Array<std::int32_t>& faces,
                                  const Array<std::uint8_t>& colors, float fx, float fy, float cx,
                                  float cy, int width, int height, bool clay, int supersample,
                                  std::array<std::uint8_t, 3> background, int threads) {
  const auto points = vec3_view(vertices_in_camera, "vertices_in_camera");
  const auto triangles = tri_view(faces, "faces", points.n);
  require_shape(colors, "colors", {points.n, 3});
  if (width < 1 || height < 1 || supersample < 1)
    throw std::invalid_argument("width, height and supersample should be at least 1");
  const View<const Rgb> rgb{reinterpret_cast<const Rgb*>(colors.data()), points.n};
  const RenderStyle style{clay ? Shading::kClay : Shading::kColor,
                          supersample,
                          {background[0], background[1], background[2]}};
  std::vector<Rgb> out(static_cast<std::size_t>(width) * height);
  {
    const py::gil_scoped_release release;
    render({points, triangles}, rgb, {fx, fy, cx, cy, width, height}, style, threads,
           {out.data(), width, height});
  }
  return take<std::uint8_t>(std::move(out), {height, width, 3});
}

}  // namespace

void bind_render(py::module_& m) {
  m.def("render", &picture, py::arg("vertices_in_camera").noconvert(), py::arg("faces").noconvert(),
        py::arg("colors").noconvert(), py::arg("fx"), py::arg("fy"), py::arg("cx"), py::arg("cy"),
        py::arg("width"), py::arg("height"), py::arg("clay"), py::arg("supersample"),
        py::arg("background"), py::arg("threads"));
}

}  // namespace e3d::bind
