// occlusion.cpp — Python view of extreme3d/occlusion.h.
#include "extreme3d/occlusion.h"

#include "arrays.h"

namespace e3d::bind {
namespace {

using Map = Array<float>;
using Mask = Array<std::uint8_t>;

py::tuple hole_array(const Mask& face_mask, const Map& weight) {
  const auto w = image_view(weight, "weight");
  const auto seen = image_view(face_mask, "face_mask", w.height, w.width);
  py::array_t<std::uint8_t> hole({w.height, w.width});
  const ImageView<std::uint8_t> out{hole.mutable_data(), w.width, w.height};
  double fraction = 0.0;
  {
    const py::gil_scoped_release release;
    fraction = find_holes(seen, w, out);
  }
  return py::make_tuple(hole, fraction);
}

py::tuple unfaded_arrays(const Map& bump, const Map& weight, const Mask& hole, int threads) {
  const auto mm = image_view(bump, "bump");
  const auto w = image_view(weight, "weight", mm.height, mm.width);
  const auto hidden = image_view(hole, "hole", mm.height, mm.width);
  py::array_t<float> unfaded({mm.height, mm.width});
  py::array_t<std::uint8_t> known({mm.height, mm.width});
  const ImageView<float> out{unfaded.mutable_data(), mm.width, mm.height};
  const ImageView<std::uint8_t> told{known.mutable_data(), mm.width, mm.height};
  {
    const py::gil_scoped_release release;
    unfade(mm, w, hidden, threads, out, told);
  }
  return py::make_tuple(unfaded, known);
}

py::array_t<float> filled_array(const Map& bump, const Map& weight, const Mask& hole,
                                const Map& borrowed, const Mask& valid, int threads) {
  const auto mm = image_view(bump, "bump");
  const int height = mm.height, width = mm.width;
  const FillMaps maps{
      mm, image_view(weight, "weight", height, width), image_view(hole, "hole", height, width),
      image_view(borrowed, "borrowed", height, width), image_view(valid, "valid", height, width)};
  py::array_t<float> filled({height, width});
  const ImageView<float> out{filled.mutable_data(), width, height};
  {
    const py::gil_scoped_release release;
    fill_bump(maps, threads, out);
  }
  return filled;
}

}  // namespace

void bind_occlusion(py::module_& m) {
  const auto bump = py::arg("bump").noconvert();
  const auto weight = py::arg("weight").noconvert();
  const auto hole = py::arg("hole").noconvert();
  m.def("find_holes", &hole_array, py::arg("face_mask").noconvert(), weight);
  m.def("unfade", &unfaded_arrays, bump, weight, hole, py::arg("threads") = 1);
  m.def("fill_bump", &filled_array, bump, weight, hole, py::arg("borrowed").noconvert(),
        py::arg("valid").noconvert(), py::arg("threads") = 1);
}

}  // namespace e3d::bind
