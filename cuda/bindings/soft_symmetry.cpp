// soft_symmetry.cpp — Python view of extreme3d/cuda/soft_symmetry.h.
#include "extreme3d/cuda/soft_symmetry.h"

#include "arrays.h"

namespace e3d::cuda::bind {
namespace {

void require_vertices(View<const std::int32_t> indices, const char* name, int n_vertices) {
  for (int i = 0; i < indices.n; ++i)
    if (indices[i] < 0 || indices[i] >= n_vertices)
      throw std::invalid_argument(std::string(name) + " names vertex " +
                                  std::to_string(indices[i]) + " of " + std::to_string(n_vertices));
}

}  // namespace

void bind_soft_symmetry(nb::module_& m) {
  nb::class_<SoftSymmetrySolver>(m, "SoftSymmetrySolver")
      .def(
          "__init__",
          [](SoftSymmetrySolver* self, const HostArray<std::int32_t>& faces,
             const HostArray<std::int32_t>& mirror, const HostArray<bool>& region) {
            const auto f = rows<const Tri>(faces, "faces");
            const auto m = view(mirror, "mirror");
            require_shape(region, "region", {m.n});
            require_vertices({faces.data(), 3 * f.n}, "faces", m.n);
            require_vertices(m, "mirror", m.n);
            new (self) SoftSymmetrySolver(
                f, m, {reinterpret_cast<const std::uint8_t*>(region.data()), m.n});
          },
          "faces"_array, "mirror"_array, "region"_array)
      .def(
          "solve",
          [](const SoftSymmetrySolver& self, const Array<const float>& foundation,
             const Array<const float>& detailed, const Array<const std::uint8_t>& visible,
             const Array<float>& out, const Array<std::uint8_t>& recovery, std::uintptr_t s) {
            const int n = self.n_vertices();
            self.solve(rows<const Vec3>(foundation, "foundation", n),
                       rows<const Vec3>(detailed, "detailed", n), view(visible, "visible", n),
                       rows<Vec3>(out, "out", n), view(recovery, "recovery", n), stream(s));
          },
          "foundation"_array, "detailed"_array, "visible"_array, "out"_array, "recovery"_array,
          "stream"_a = 0)
      // Of the last solve: iterations, residual (mm), converged. Waits for the stream.
      .def(
          "status",
          [](const SoftSymmetrySolver& self, std::uintptr_t s) {
            const nb::gil_scoped_release release;
            return self.status(stream(s));
          },
          "stream"_a = 0);
  nb::class_<SolveStatus>(m, "SolveStatus")
      .def_ro("iterations", &SolveStatus::iterations)
      .def_ro("residual", &SolveStatus::residual)
      .def_ro("converged", &SolveStatus::converged);
}

}  // namespace e3d::cuda::bind
