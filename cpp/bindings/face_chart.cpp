// face_chart.cpp — Python view of extreme3d/face_chart.h.
#include "extreme3d/face_chart.h"

#include "arrays.h"

namespace e3d::bind {
namespace {

using Indices = Array<std::int32_t>;
using Mask = Array<std::uint8_t>;

// (H, W, 2) float32 as vectors.
ImageView<const Vec2> vec2_image(const Array<float>& a, const char* name, py::ssize_t h,
                                 py::ssize_t w) {
  require_shape(a, name, {h, w, 2});
  return {reinterpret_cast<const Vec2*>(a.data()), static_cast<int>(w), static_cast<int>(h)};
}

// Keeps the chart's arrays alive and checks them once.
class ChartTables {
 public:
  ChartTables(Indices triangle, Array<float> barycentric, Array<float> place, Indices faces)
      : barycentric_(std::move(barycentric)), place_(std::move(place)), faces_(std::move(faces)) {
    require_shape(place_, "place", {-1, 2});
    n_vertices_ = static_cast<int>(place_.shape(0));
    view_.place = {reinterpret_cast<const Vec2*>(place_.data()), n_vertices_};
    view_.faces = tri_view(faces_, "faces", n_vertices_);
    view_.barycentric = vec2_image(barycentric_, "barycentric", kChartHeight, kChartWidth);
    const auto of_pixel = image_view(triangle, "triangle", kChartHeight, kChartWidth);
    require_range(of_pixel.data, kChartPixels, "triangle", -1, view_.faces.n);
    for (int i = 0; i < kChartPixels; ++i)
      corners_.push_back(of_pixel[i] < 0 ? Tri{-1, -1, -1} : view_.faces[of_pixel[i]]);
    view_.corners = {corners_.data(), kChartWidth, kChartHeight};
  }

  py::tuple unroll(const Array<float>& map, const Mask& known, float fx, float fy, float cx,
                   float cy, const Array<float>& vertices_in_camera, const Mask& visible,
                   int threads) const {
    const auto crop = image_view(map, "map");
    const auto counts = image_view(known, "known", crop.height, crop.width);
    const auto skin = vec3_view(vertices_in_camera, "vertices_in_camera", n_vertices_);
    const auto shown = view(visible, "visible", n_vertices_);
    py::array_t<float> out({kChartHeight, kChartWidth});
    py::array_t<std::uint8_t> seen({kChartHeight, kChartWidth});
    const ImageView<float> to{out.mutable_data(), kChartWidth, kChartHeight};
    const ImageView<std::uint8_t> to_seen{seen.mutable_data(), kChartWidth, kChartHeight};
    {
      const py::gil_scoped_release release;
      e3d::unroll(view_, crop, counts, {fx, fy, cx, cy, crop.width, crop.height}, skin, shown,
                  threads, to, to_seen);
    }
    return py::make_tuple(out, seen);
  }

  py::tuple warp_by_surface(const Array<float>& relief, const Mask& seen, const Indices& triangle,
                            const Array<float>& barycentric, const Mask& where, int threads) const {
    const auto mm = image_view(relief, "bump", kChartHeight, kChartWidth);
    const auto shown = image_view(seen, "seen", kChartHeight, kChartWidth);
    const auto of_pixel = image_view(triangle, "raster.triangle");
    const int height = of_pixel.height, width = of_pixel.width;
    require_range(of_pixel.data, triangle.size(), "raster.triangle", -1, view_.faces.n);
    const auto uv = vec2_image(barycentric, "raster.barycentric", height, width);
    const auto wanted = image_view(where, "where", height, width);
    py::array_t<float> bump({height, width});
    py::array_t<std::uint8_t> valid({height, width});
    const ImageView<float> to{bump.mutable_data(), width, height};
    const ImageView<std::uint8_t> to_valid{valid.mutable_data(), width, height};
    {
      const py::gil_scoped_release release;
      e3d::warp_by_surface(view_, mm, shown, of_pixel, uv, wanted, threads, to, to_valid);
    }
    return py::make_tuple(bump, valid);
  }

 private:
  Array<float> barycentric_, place_;
  Indices faces_;
  std::vector<Tri> corners_;
  ChartView view_{};
  int n_vertices_ = 0;
};

}  // namespace

void bind_face_chart(py::module_& m) {
  const auto triangle = py::arg("triangle").noconvert();
  const auto barycentric = py::arg("barycentric").noconvert();
  py::class_<ChartTables>(m, "ChartTables", "Where the skin lies in the chart; checked once.")
      .def(py::init<Indices, Array<float>, Array<float>, Indices>(), triangle, barycentric,
           py::arg("place").noconvert(), py::arg("faces").noconvert())
      .def("unroll", &ChartTables::unroll, py::arg("map").noconvert(), py::arg("known").noconvert(),
           py::arg("fx"), py::arg("fy"), py::arg("cx"), py::arg("cy"),
           py::arg("vertices_in_camera").noconvert(), py::arg("visible").noconvert(),
           py::arg("threads"), "A map of a crop in the chart -> (H, W) float32 and uint8, seen.")
      .def("warp_by_surface", &ChartTables::warp_by_surface, py::arg("relief").noconvert(),
           py::arg("seen").noconvert(), triangle, barycentric, py::arg("where").noconvert(),
           py::arg("threads"), "Relief of the chart in a crop -> (S, S) float32 and uint8, valid.");
}

}  // namespace e3d::bind
