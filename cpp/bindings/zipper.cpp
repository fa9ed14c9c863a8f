// zipper.cpp — Python view of extreme3d/zipper.h and extreme3d/triangulate.h.
#include "extreme3d/zipper.h"

#include "arrays.h"
#include "extreme3d/triangulate.h"

namespace e3d::bind {

void bind_zipper(py::module_& m) {
  m.def(
      "triangulate_region",
      [](const Array<std::int32_t>& points, const Array<std::int32_t>& boundary) {
        require_shape(points, "points", {-1, 2});
        require_shape(boundary, "boundary", {-1, 2});
        const View<const PlanarPoint> p{reinterpret_cast<const PlanarPoint*>(points.data()),
                                        static_cast<int>(points.shape(0))};
        const View<const BoundaryEdge> b{reinterpret_cast<const BoundaryEdge*>(boundary.data()),
                                         static_cast<int>(boundary.shape(0))};
        PlanarTriangulation t;
        {
          const py::gil_scoped_release release;
          t = triangulate_region(p, b);
        }
        const auto n = static_cast<py::ssize_t>(t.triangles.size());
        const auto broken = static_cast<py::ssize_t>(t.broken_edges.size());
        return py::make_tuple(take<std::int32_t>(std::move(t.triangles), {n, 3}),
                              take<std::int32_t>(std::move(t.broken_edges), {broken}));
      },
      py::arg("points").noconvert(), py::arg("boundary").noconvert());

  py::class_<Zipper>(m, "Zipper")
      .def(py::init([](const Array<std::int32_t>& faces, const Array<std::int32_t>& mirror) {
             const auto mirror_view = view(mirror, "mirror");
             return Zipper(tri_view(faces, "faces", mirror_view.n), mirror_view);
           }),
           py::arg("faces").noconvert(), py::arg("mirror").noconvert())
      .def(
          "zip",
          [](const Zipper& self, const Array<float>& sparse,
             const Array<float>& foundation_in_camera, const Array<std::uint8_t>& observed,
             const Array<std::uint8_t>& recovered, const Array<float>& dense,
             const Array<float>& reflected, const Array<std::uint8_t>& reflected_defined,
             const Array<std::int32_t>& triangle, const Array<std::int32_t>& vertex_of_pixel,
             float fx, float fy, float cx, float cy, int threads) {
            const int n = self.n_vertices();
            const auto d = vec3_view(dense, "dense");
            const auto t = image_view(triangle, "triangle");
            const ZipperInput input{
                vec3_view(sparse, "sparse", n),
                vec3_view(foundation_in_camera, "foundation_in_camera", n),
                view(observed, "observed", n),
                view(recovered, "recovered", n),
                d,
                vec3_view(reflected, "reflected", d.n),
                view(reflected_defined, "reflected_defined", d.n),
                t,
                image_view(vertex_of_pixel, "vertex_of_pixel", t.height, t.width),
                {fx, fy, cx, cy, t.width, t.height}};
            ZipperedMesh mesh;
            {
              const py::gil_scoped_release release;
              mesh = self.zip(input, threads);
            }
            const auto n_out = static_cast<py::ssize_t>(mesh.vertices.size());
            const auto n_faces = static_cast<py::ssize_t>(mesh.faces.size());
            return py::make_tuple(take<float>(std::move(mesh.vertices), {n_out, 3}),
                                  take<std::int32_t>(std::move(mesh.faces), {n_faces, 3}),
                                  take<std::uint8_t>(std::move(mesh.source), {n_out}),
                                  take<std::int32_t>(std::move(mesh.index), {n_out}),
                                  take<std::uint8_t>(std::move(mesh.seam), {n_out}));
          },
          py::arg("sparse").noconvert(), py::arg("foundation_in_camera").noconvert(),
          py::arg("observed").noconvert(), py::arg("recovered").noconvert(),
          py::arg("dense").noconvert(), py::arg("reflected").noconvert(),
          py::arg("reflected_defined").noconvert(), py::arg("triangle").noconvert(),
          py::arg("vertex_of_pixel").noconvert(), py::arg("fx"), py::arg("fy"), py::arg("cx"),
          py::arg("cy"), py::arg("threads") = 1);
}

}  // namespace e3d::bind
