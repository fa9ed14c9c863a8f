// shading.cpp — Python view of extreme3d/shading.h.
#include "extreme3d/shading.h"

#include "arrays.h"

namespace e3d::bind {
namespace {

using Image = Array<float>;

py::tuple albedo_array(const Image& ratio, const Image& confidence, const Image& link_x,
                       const Image& link_y, float tolerance) {
  const auto r = image_view(ratio, "ratio");
  const auto c = image_view(confidence, "confidence", r.height, r.width);
  const auto lx = image_view(link_x, "link_x", r.height, r.width);
  const auto ly = image_view(link_y, "link_y", r.height, r.width);
  py::array_t<float> albedo({r.height, r.width});
  const ImageView<float> out{albedo.mutable_data(), r.width, r.height};
  SolveStats stats;
  {
    const py::gil_scoped_release release;
    stats = solve_albedo(r, c, lx, ly, tolerance, out);
  }
  return py::make_tuple(albedo, stats.iterations, stats.residual);
}

py::tuple relief_array(const Image& detail, const Image& confidence, const Image& slope_x,
                       const Image& slope_y, const Array<std::uint8_t>& region, float mm_per_pixel,
                       float ambient, float ridge, float stiffness, float tolerance,
                       int max_iterations) {
  const auto r = image_view(detail, "detail");
  const auto c = image_view(confidence, "confidence", r.height, r.width);
  const auto sx = image_view(slope_x, "slope_x", r.height, r.width);
  const auto sy = image_view(slope_y, "slope_y", r.height, r.width);
  const auto inside = image_view(region, "region", r.height, r.width);
  if (!(mm_per_pixel > 0.f)) throw std::invalid_argument("mm_per_pixel should be positive");
  if (!(ridge > 0.f)) throw std::invalid_argument("ridge should be positive");
  py::array_t<float> relief({r.height, r.width});
  const ImageView<float> out{relief.mutable_data(), r.width, r.height};
  SolveStats stats;
  {
    const py::gil_scoped_release release;
    stats = relief_from_shading(r, c, sx, sy, inside, mm_per_pixel,
                                {ambient, ridge, stiffness, tolerance, max_iterations}, out);
  }
  return py::make_tuple(relief, stats.iterations, stats.residual);
}

}  // namespace

void bind_shading(py::module_& m) {
  using namespace py::literals;
  m.def("solve_albedo", &albedo_array, py::arg("ratio").noconvert(),
        py::arg("confidence").noconvert(), py::arg("link_x").noconvert(),
        py::arg("link_y").noconvert(), "tolerance"_a);
  m.def("relief_from_shading", &relief_array, py::arg("detail").noconvert(),
        py::arg("confidence").noconvert(), py::arg("slope_x").noconvert(),
        py::arg("slope_y").noconvert(), py::arg("region").noconvert(), "mm_per_pixel"_a,
        "ambient"_a, "ridge"_a, "stiffness"_a, "tolerance"_a, "max_iterations"_a);
}

}  // namespace e3d::bind
