// references.cpp — Python view of extreme3d/references.h.
#include "extreme3d/references.h"

#include "arrays.h"

namespace e3d::bind {
namespace {

py::tuple expected_relief_arrays(const Array<std::uint8_t>& stored,
                                 const Array<std::int32_t>& chosen, const Array<float>& own,
                                 const Array<std::uint8_t>& seen, int threads) {
  require_shape(stored, "stored", {-1, sizeof(StoredRelief)});
  if (reinterpret_cast<std::uintptr_t>(stored.data()) % alignof(StoredRelief))
    throw std::invalid_argument("stored should be aligned as its records are");
  const auto n = static_cast<int>(stored.shape(0));
  const ReliefsView references{
      {reinterpret_cast<const StoredRelief*>(stored.data()), n},
      index_view(chosen, "chosen", -1, 0, 2 * n),
  };
  if (references.chosen.n < 1) throw std::invalid_argument("chosen should name a reference");
  const auto mm = image_view(own, "own", kChartHeight, kChartWidth);
  const auto shown = image_view(seen, "seen", kChartHeight, kChartWidth);
  py::array_t<float> relief({kChartHeight, kChartWidth});
  py::array_t<std::uint8_t> known({kChartHeight, kChartWidth});
  const ImageView<float> to{relief.mutable_data(), kChartWidth, kChartHeight};
  const ImageView<std::uint8_t> to_known{known.mutable_data(), kChartWidth, kChartHeight};
  {
    const py::gil_scoped_release release;
    expected_relief(references, mm, shown, threads, to, to_known);
  }
  return py::make_tuple(relief, known);
}

}  // namespace

void bind_references(py::module_& m) {
  m.def("expected_relief", &expected_relief_arrays, py::arg("stored").noconvert(),
        py::arg("chosen").noconvert(), py::arg("own").noconvert(), py::arg("seen").noconvert(),
        py::arg("threads") = 1);
}

}  // namespace e3d::bind
