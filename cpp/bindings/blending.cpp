// blending.cpp — Python view of extreme3d/blending.h.
#include "extreme3d/blending.h"

#include "arrays.h"

namespace e3d::bind {
namespace {

py::tuple blend_arrays(const Array<float>& values, const Array<std::uint8_t>& known,
                       const Array<std::uint8_t>& region, const Array<float>& guidance,
                       const Array<std::uint8_t>& guided, float tolerance) {
  const auto image = image_view(values, "values");
  const int height = image.height, width = image.width;
  const BlendMaps maps{
      image, image_view(known, "known", height, width), image_view(region, "region", height, width),
      image_view(guidance, "guidance", height, width), image_view(guided, "guided", height, width)};
  py::array_t<float> blended({height, width});
  const ImageView<float> out{blended.mutable_data(), width, height};
  SolveStats stats;
  {
    const py::gil_scoped_release release;
    stats = blend_gradients(maps, tolerance, out);
  }
  return py::make_tuple(blended, stats.iterations, stats.residual);
}

}  // namespace

void bind_blending(py::module_& m) {
  using namespace py::literals;
  m.def("blend_gradients", &blend_arrays, py::arg("values").noconvert(),
        py::arg("known").noconvert(), py::arg("region").noconvert(),
        py::arg("guidance").noconvert(), py::arg("guided").noconvert(), "tolerance"_a);
}

}  // namespace e3d::bind
