// network_maps.cpp — Python view of extreme3d/network_maps.h.
#include "extreme3d/network_maps.h"

#include "arrays.h"

namespace e3d::bind {
namespace {

void require_square(ImageView<const float> map, const char* name) {
  if (map.width != map.height) throw std::invalid_argument(std::string(name) + " is not square");
}

py::array_t<float> bump_input_array(const Array<std::uint8_t>& image, const Array<float>& depth,
                                    float mm_per_pixel, int x, int y, int width, int height,
                                    int channels, int threads) {
  const auto z = image_view(depth, "depth");
  require_square(z, "depth");
  require_shape(image, "image", {z.height, z.width, 3});
  if (width < 1 || height < 1 || (channels != 3 && channels != 5))
    throw std::invalid_argument("the window should have pixels, and 3 or 5 channels");
  const ImageView<const Rgb> crop{reinterpret_cast<const Rgb*>(image.data()), z.width, z.height};
  std::vector<float> seen;
  {
    const py::gil_scoped_release release;
    seen = bump_input(crop, z, mm_per_pixel, {x, y, width, height}, channels, threads);
  }
  return take<float>(std::move(seen), {1, channels, height, width});
}

py::tuple bump_output_arrays(const Array<float>& bump, const Array<float>& mask, int x, int y,
                             const Array<float>& weight, const Array<std::uint8_t>& face,
                             int threads) {
  const auto answer = image_view(bump, "bump");
  const auto shown = image_view(mask, "mask", answer.height, answer.width);
  const auto w = image_view(weight, "weight");
  require_square(w, "weight");
  const auto f = image_view(face, "face", w.height, w.width);
  py::array_t<float> bump_out({w.height, w.width}), probability_out({w.height, w.width});
  const ImageView<float> z{bump_out.mutable_data(), w.width, w.height};
  const ImageView<float> p{probability_out.mutable_data(), w.width, w.height};
  bool finite = false;
  {
    const py::gil_scoped_release release;
    finite = bump_output(answer, shown, {x, y, answer.width, answer.height}, w, f, threads, z, p);
  }
  return py::make_tuple(bump_out, probability_out, finite);
}

}  // namespace

void bind_network_maps(py::module_& m) {
  using namespace py::literals;
  m.def("bump_input", &bump_input_array, py::arg("image").noconvert(), py::arg("depth").noconvert(),
        "mm_per_pixel"_a, "x"_a, "y"_a, "width"_a, "height"_a, "channels"_a, "threads"_a = 1);
  m.def("bump_output", &bump_output_arrays, py::arg("bump").noconvert(),
        py::arg("mask").noconvert(), "x"_a, "y"_a, py::arg("weight").noconvert(),
        py::arg("face").noconvert(), "threads"_a = 1);
}

}  // namespace e3d::bind
