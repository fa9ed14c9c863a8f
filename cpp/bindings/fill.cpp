// fill.cpp — Python view of extreme3d/fill.h.
#include "extreme3d/fill.h"

#include "arrays.h"

namespace e3d::bind {
namespace {

py::tuple fill_arrays(const Array<float>& values, const Array<std::uint8_t>& known,
                      const Array<std::uint8_t>& region, float tolerance) {
  const auto image = image_view(values, "values");
  const auto known_view = image_view(known, "known", image.height, image.width);
  const auto region_view = image_view(region, "region", image.height, image.width);
  py::array_t<float> filled({image.height, image.width});
  const ImageView<float> out{filled.mutable_data(), image.width, image.height};
  FillStats stats;
  {
    const py::gil_scoped_release release;
    stats = fill_harmonic(image, known_view, region_view, tolerance, out);
  }
  return py::make_tuple(filled, stats.iterations, stats.residual);
}

}  // namespace

void bind_fill(py::module_& m) {
  using namespace py::literals;
  m.def("fill_harmonic", &fill_arrays, py::arg("values").noconvert(), py::arg("known").noconvert(),
        py::arg("region").noconvert(), "tolerance"_a);
}

}  // namespace e3d::bind
