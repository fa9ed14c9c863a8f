// rasterize.cpp — Python view of extreme3d/rasterize.h.
#include "extreme3d/rasterize.h"

#include <pybind11/stl.h>

#include <optional>

#include "arrays.h"

namespace e3d::bind {
namespace {

// Array `k` of a caller's tuple to be written again, or a new one. Fresh pages cost a frame of
// 500 × 500 about a millisecond.
template <class T>
py::array_t<T> reuse(const std::optional<py::tuple>& arrays, std::size_t k, const char* name,
                     const std::vector<py::ssize_t>& shape) {
  if (!arrays) return py::array_t<T>(shape);
  if (arrays->size() != 3) throw std::invalid_argument("out should have 3 arrays");
  const py::object item = (*arrays)[k];
  if (!py::isinstance<Array<T>>(item))
    throw py::type_error(std::string(name) + " should be a C-contiguous array as returned before");
  auto array = py::reinterpret_borrow<py::array_t<T>>(item);
  require_shape(array, name, shape);
  return array;
}

py::tuple rasterize_arrays(const Array<float>& vertices_in_camera, const Array<std::int32_t>& faces,
                           float fx, float fy, float cx, float cy, int width, int height,
                           bool cull_back_faces, int threads,
                           const std::optional<py::tuple>& out_images) {
  const auto vertices = vec3_view(vertices_in_camera, "vertices_in_camera");
  const MeshView mesh{vertices, tri_view(faces, "faces", vertices.n)};
  if (width < 1 || height < 1 || width > kMaxImageSide || height > kMaxImageSide)
    throw std::invalid_argument("width and height should be in [1, " +
                                std::to_string(kMaxImageSide) + "], are " + std::to_string(width) +
                                " and " + std::to_string(height));
  auto depth = reuse<float>(out_images, 0, "out.depth", {height, width});
  auto triangle = reuse<std::int32_t>(out_images, 1, "out.triangle", {height, width});
  auto barycentric = reuse<float>(out_images, 2, "out.barycentric", {height, width, 2});
  const RasterView out{{depth.mutable_data(), width, height},
                       {triangle.mutable_data(), width, height},
                       {reinterpret_cast<Vec2*>(barycentric.mutable_data()), width, height}};
  {
    const py::gil_scoped_release release;
    rasterize(mesh, {fx, fy, cx, cy, width, height}, cull_back_faces ? Faces::kFront : Faces::kBoth,
              threads, out);
  }
  return py::make_tuple(depth, triangle, barycentric);
}

py::array_t<std::uint8_t> vertex_visibility_array(const Array<float>& vertices_in_camera,
                                                  const Array<float>& normals_in_camera,
                                                  const Array<float>& depth, float fx, float fy,
                                                  float cx, float cy, int width, int height,
                                                  float min_cosine, float depth_tolerance,
                                                  int threads) {
  const auto vertices = vec3_view(vertices_in_camera, "vertices_in_camera");
  const auto normals = vec3_view(normals_in_camera, "normals_in_camera", vertices.n);
  const auto z = image_view(depth, "depth", height, width);
  py::array_t<std::uint8_t> visible(vertices.n);
  const View<std::uint8_t> out{visible.mutable_data(), vertices.n};
  {
    const py::gil_scoped_release release;
    vertex_visibility(vertices, normals, z, {fx, fy, cx, cy, width, height},
                      {min_cosine, depth_tolerance}, threads, out);
  }
  return visible;
}

py::array_t<std::int32_t> pixels_array(const Array<float>& vertices_in_camera, float fx, float fy,
                                       float cx, float cy, int width, int height, int threads) {
  const auto vertices = vec3_view(vertices_in_camera, "vertices_in_camera");
  py::array_t<std::int32_t> pixels(vertices.n);
  const View<std::int32_t> out{pixels.mutable_data(), vertices.n};
  {
    const py::gil_scoped_release release;
    pixels_of_vertices(vertices, {fx, fy, cx, cy, width, height}, threads, out);
  }
  return pixels;
}

py::array_t<float> interpolate_image(const Array<std::int32_t>& triangle,
                                     const Array<float>& barycentric, const Array<float>& values,
                                     const Array<std::int32_t>& faces, int threads) {
  const auto v = view(values, "values");
  const auto f = tri_view(faces, "faces", v.n);
  const auto t = image_view(triangle, "triangle");
  require_range(t.data, triangle.size(), "triangle", -1, f.n);
  require_shape(barycentric, "barycentric", {t.height, t.width, 2});
  const ImageView<const Vec2> b{reinterpret_cast<const Vec2*>(barycentric.data()), t.width,
                                t.height};
  py::array_t<float> image({t.height, t.width});
  const ImageView<float> out{image.mutable_data(), t.width, t.height};
  {
    const py::gil_scoped_release release;
    interpolate_on_screen(t, b, v, f, threads, out);
  }
  return image;
}

}  // namespace

void bind_rasterize(py::module_& m) {
  using namespace py::literals;
  m.def("rasterize", &rasterize_arrays, py::arg("vertices_in_camera").noconvert(),
        py::arg("faces").noconvert(), "fx"_a, "fy"_a, "cx"_a, "cy"_a, "width"_a, "height"_a,
        "cull_back_faces"_a = true, "threads"_a = 1, "out"_a = py::none());
  m.def("interpolate", &interpolate_image, py::arg("triangle").noconvert(),
        py::arg("barycentric").noconvert(), py::arg("values").noconvert(),
        py::arg("faces").noconvert(), "threads"_a = 1);
  m.def("vertex_visibility", &vertex_visibility_array, py::arg("vertices_in_camera").noconvert(),
        py::arg("normals_in_camera").noconvert(), py::arg("depth").noconvert(), "fx"_a, "fy"_a,
        "cx"_a, "cy"_a, "width"_a, "height"_a, "min_cosine"_a, "depth_tolerance"_a,
        "threads"_a = 1);
  m.def("pixels_of_vertices", &pixels_array, py::arg("vertices_in_camera").noconvert(), "fx"_a,
        "fy"_a, "cx"_a, "cy"_a, "width"_a, "height"_a, "threads"_a = 1);
}

}  // namespace e3d::bind
