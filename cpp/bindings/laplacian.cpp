// laplacian.cpp — Python view of extreme3d/laplacian.h, which the pipeline uses inside of Eq. 9.
#include "extreme3d/laplacian.h"

#include "arrays.h"

namespace e3d::bind {

void bind_laplacian(py::module_& m) {
  py::class_<EdgeRows>(m, "EdgeRows", "Edges of a topology, for the cotangent Laplacian.")
      .def(py::init([](const Array<std::int32_t>& faces, int n_vertices) {
             const auto f = tri_view(faces, "faces", n_vertices);
             const py::gil_scoped_release release;
             return build_edge_rows(f, n_vertices);
           }),
           py::arg("faces").noconvert(), py::arg("n_vertices"))
      .def(
          "csr",
          [](const EdgeRows& self) {
            const auto rows = static_cast<py::ssize_t>(self.offsets.size());
            const auto n = static_cast<py::ssize_t>(self.neighbors.size());
            return py::make_tuple(take<std::int32_t>(std::vector<int>(self.offsets), {rows}),
                                  take<std::int32_t>(std::vector<int>(self.neighbors), {n}));
          },
          "(V + 1,) offsets and (E,) neighbours, int32.")
      .def(
          "cotangent_weights",
          [](const EdgeRows& self, const Array<float>& vertices, int threads) {
            const auto x = vec3_view(vertices, "vertices", self.n_vertices());
            std::vector<float> weights;
            {
              const py::gil_scoped_release release;
              weights = cotangent_weights(self, x, threads);
            }
            const auto count = static_cast<py::ssize_t>(weights.size());
            return take<float>(std::move(weights), {count});
          },
          "(E,) float32, in the order of csr().", py::arg("vertices").noconvert(),
          py::arg("threads") = 1);
}

}  // namespace e3d::bind
