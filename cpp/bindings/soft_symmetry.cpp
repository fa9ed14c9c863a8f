// soft_symmetry.cpp — Python view of extreme3d/soft_symmetry.h.
#include "extreme3d/soft_symmetry.h"

#include "arrays.h"

namespace e3d::bind {

void bind_soft_symmetry(py::module_& m) {
  py::class_<SoftSymmetrySolver>(m, "SoftSymmetrySolver")
      .def(py::init([](const Array<std::int32_t>& faces, const Array<std::int32_t>& mirror,
                       const Array<std::uint8_t>& region) {
             const auto mirror_view = view(mirror, "mirror");
             const auto region_view = view(region, "region", mirror_view.n);
             const auto face_view = tri_view(faces, "faces", mirror_view.n);
             const py::gil_scoped_release release;
             return SoftSymmetrySolver(face_view, mirror_view, region_view);
           }),
           py::arg("faces").noconvert(), py::arg("mirror").noconvert(),
           py::arg("region").noconvert())
      .def(
          "solve",
          [](const SoftSymmetrySolver& self, const Array<float>& foundation,
             const Array<float>& detailed, const Array<std::uint8_t>& visible, int threads) {
            const int n = self.n_vertices();
            const auto f = vec3_view(foundation, "foundation", n);
            const auto r = vec3_view(detailed, "detailed", n);
            const auto seen = view(visible, "visible", n);
            SymmetrySolution s;
            {
              const py::gil_scoped_release release;
              s = self.solve(f, r, seen, threads);
            }
            return py::make_tuple(take<float>(std::move(s.vertices), {n, 3}),
                                  take<std::uint8_t>(std::move(s.recovery), {n}));
          },
          py::arg("foundation").noconvert(), py::arg("detailed").noconvert(),
          py::arg("visible").noconvert(), py::arg("threads") = 1);
}

}  // namespace e3d::bind
