// zipper.cpp — Python view of extreme3d/cuda/zipper.h.
#include "extreme3d/cuda/zipper.h"

#include "arrays.h"

namespace e3d::cuda::bind {

static nb::object counts_or_none(const std::optional<ZipperedCounts>& counts) {
  if (!counts) return nb::none();
  return nb::make_tuple(counts->vertices, counts->faces);
}

void bind_zipper(nb::module_& m) {
  nb::class_<Zipper>(m, "Zipper")
      .def(
          "__init__",
          [](Zipper* self, const HostArray<std::int32_t>& faces,
             const HostArray<std::int32_t>& mirror, int width, int height, int n_dense) {
            new (self) Zipper(rows<const Tri>(faces, "faces"), view(mirror, "mirror"), width,
                              height, n_dense);
          },
          "faces"_array, "mirror"_array, "width"_a, "height"_a, "n_dense"_a)
      .def(
          "zip",
          [](const Zipper& self, const Array<const float>& sparse,
             const Array<const float>& foundation_in_camera,
             const Array<const std::uint8_t>& observed, const Array<const std::uint8_t>& recovered,
             const Array<const float>& dense, const Array<const float>& reflected,
             const Array<const std::uint8_t>& reflected_defined,
             const Array<const std::int32_t>& triangle,
             const Array<const std::int32_t>& vertex_of_pixel, const Array<const float>& pinhole,
             const Array<float>& vertices, const Array<std::uint8_t>& source,
             const Array<std::int32_t>& index, const Array<std::uint8_t>& seam,
             const Array<std::int32_t>& faces, const Array<std::int32_t>& counts,
             std::uintptr_t s) {
            const int n = self.n_vertices(), d = self.n_dense();
            const ZipperArrays in{
                rows<const Vec3>(sparse, "sparse", n),
                rows<const Vec3>(foundation_in_camera, "foundation_in_camera", n),
                view(observed, "observed", n),
                view(recovered, "recovered", n),
                rows<const Vec3>(dense, "dense", d),
                rows<const Vec3>(reflected, "reflected", d),
                view(reflected_defined, "reflected_defined", d),
                image(triangle, "triangle", self.height(), self.width()),
                image(vertex_of_pixel, "vertex_of_pixel", self.height(), self.width()),
                view(pinhole, "pinhole", 4)};
            const auto out = rows<Vec3>(vertices, "vertices");
            self.zip(
                in,
                {out, view(source, "source", out.n), view(index, "index", out.n),
                 view(seam, "seam", out.n), rows<Tri>(faces, "faces"), view(counts, "counts", 2)},
                stream(s));
          },
          "sparse"_array, "foundation_in_camera"_array, "observed"_array, "recovered"_array,
          "dense"_array, "reflected"_array, "reflected_defined"_array, "triangle"_array,
          "vertex_of_pixel"_array, "pinhole"_array, "vertices"_array, "source"_array, "index"_array,
          "seam"_array, "faces"_array, "counts"_array, "stream"_a = 0)
      .def("counts", [](const Zipper& self) { return counts_or_none(self.counts()); })
      .def(
          "stitch",
          [](const Zipper& self, int threads, std::uintptr_t s) {
            std::optional<ZipperedCounts> counts;
            {
              const nb::gil_scoped_release release;
              counts = self.stitch(threads, stream(s));
            }
            return counts_or_none(counts);
          },
          "threads"_a = 2, "stream"_a = 0)
      .def(
          "finish",
          [](const Zipper& self, const Array<const std::int32_t>& vertex_of_pixel,
             const Array<std::int32_t>& faces, const Array<std::int32_t>& counts,
             std::uintptr_t s) {
            self.finish(image(vertex_of_pixel, "vertex_of_pixel", self.height(), self.width()),
                        rows<Tri>(faces, "faces"), view(counts, "counts", 2), stream(s));
          },
          "vertex_of_pixel"_array, "faces"_array, "counts"_array, "stream"_a = 0);
}

}  // namespace e3d::cuda::bind
