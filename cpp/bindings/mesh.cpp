// mesh.cpp — Python view of extreme3d/mesh.h.
#include "extreme3d/mesh.h"

#include "arrays.h"

namespace e3d::bind {
namespace {

using Indices = Array<std::int32_t>;

py::tuple csr_arrays(Csr&& table) {
  const auto rows = static_cast<py::ssize_t>(table.offsets.size());
  const auto n = static_cast<py::ssize_t>(table.indices.size());
  return py::make_tuple(take<std::int32_t>(std::move(table.offsets), {rows}),
                        take<std::int32_t>(std::move(table.indices), {n}));
}

// Faces of each vertex as the caller built them: checked, since the loops trust them.
CsrView vertex_faces_view(const Indices& offsets, const Indices& indices, int n_vertices,
                          int n_faces) {
  const CsrView table{view(offsets, "offsets", n_vertices + 1), view(indices, "vertex_faces")};
  int descents = table.offsets[0] != 0 || table.offsets[n_vertices] != table.indices.n;
  for (int v = 0; v < n_vertices; ++v) descents += table.offsets[v] > table.offsets[v + 1];
  if (descents) throw std::invalid_argument("offsets should ascend from 0 to len(vertex_faces)");
  require_range(table.indices.data, table.indices.n, "vertex_faces", 0, n_faces);
  return table;
}

py::array_t<float> vertex_normals_array(const Array<float>& vertices, const Indices& faces,
                                        const Indices& offsets, const Indices& vertex_faces,
                                        int threads) {
  const auto v = vec3_view(vertices, "vertices");
  const MeshView mesh{v, tri_view(faces, "faces", v.n)};
  const CsrView table = vertex_faces_view(offsets, vertex_faces, v.n, mesh.faces.n);
  py::array_t<float> normals({v.n, 3});
  const View<Vec3> out{reinterpret_cast<Vec3*>(normals.mutable_data()), v.n};
  {
    const py::gil_scoped_release release;
    vertex_normals(mesh, table, threads, out);
  }
  return normals;
}

// A loop over vectors in another frame.
template <void (*kLoop)(const Rigid&, View<const Vec3>, int, View<Vec3>)>
py::array_t<float> in_other_frame(const Array<float>& b_from_a, const Array<float>& vectors,
                                  int threads) {
  const auto in = vec3_view(vectors, "vectors");
  const Rigid motion = rigid(b_from_a, "b_from_a");
  py::array_t<float> moved({in.n, 3});
  const View<Vec3> out{reinterpret_cast<Vec3*>(moved.mutable_data()), in.n};
  {
    const py::gil_scoped_release release;
    kLoop(motion, in, threads, out);
  }
  return moved;
}

py::array_t<std::uint8_t> erode_mask_array(const Array<std::uint8_t>& mask, const Indices& faces) {
  const auto m = view(mask, "mask");
  const auto f = tri_view(faces, "faces", m.n);
  py::array_t<std::uint8_t> eroded(m.n);
  const View<std::uint8_t> out{eroded.mutable_data(), m.n};
  {
    const py::gil_scoped_release release;
    erode_mask(m, f, out);
  }
  return eroded;
}

py::array_t<float> face_normals_array(const Array<float>& vertices, const Indices& faces,
                                      int threads) {
  const auto v = vec3_view(vertices, "vertices");
  const MeshView mesh{v, tri_view(faces, "faces", v.n)};
  py::array_t<float> normals({mesh.faces.n, 3});
  const View<Vec3> out{reinterpret_cast<Vec3*>(normals.mutable_data()), mesh.faces.n};
  {
    const py::gil_scoped_release release;
    face_normals(mesh, threads, out);
  }
  return normals;
}

// A table that depends on the faces alone.
template <Csr (*build)(View<const Tri>, int)>
py::tuple table_arrays(const Indices& faces, int n_vertices) {
  const auto f = tri_view(faces, "faces", n_vertices);
  Csr table;
  {
    const py::gil_scoped_release release;
    table = build(f, n_vertices);
  }
  return csr_arrays(std::move(table));
}

py::array_t<std::int32_t> unique_edges_array(const Indices& faces, int n_vertices) {
  const auto f = tri_view(faces, "faces", n_vertices);
  std::vector<VertexPair> edges;
  {
    const py::gil_scoped_release release;
    edges = unique_edges(f, n_vertices);
  }
  const auto n = static_cast<py::ssize_t>(edges.size());
  return take<std::int32_t>(std::move(edges), {n, 2});
}

py::dict mesh_report_dict(const Array<float>& vertices, const Indices& faces, int threads) {
  using namespace py::literals;
  const auto v = vec3_view(vertices, "vertices");
  const MeshView mesh{v, tri_view(faces, "faces", v.n)};
  MeshReport r;
  {
    const py::gil_scoped_release release;
    r = mesh_report(mesh, threads);
  }
  return py::dict(
      "vertices"_a = r.vertices, "faces"_a = r.faces, "edges"_a = r.edges,
      "components"_a = r.components, "boundary_edges"_a = r.boundary_edges,
      "boundary_loops"_a = r.boundary_loops, "non_manifold_edges"_a = r.non_manifold_edges,
      "non_manifold_vertices"_a = r.non_manifold_vertices,
      "inconsistent_edges"_a = r.inconsistent_edges,
      "unreferenced_vertices"_a = r.unreferenced_vertices,
      "degenerate_faces"_a = r.degenerate_faces, "zero_area_faces"_a = r.zero_area_faces,
      "non_finite_vertices"_a = r.non_finite_vertices);
}

}  // namespace

void bind_mesh(py::module_& m) {
  using namespace py::literals;
  const auto faces = py::arg("faces").noconvert();
  const auto vertices = py::arg("vertices").noconvert();
  m.def("face_normals", &face_normals_array, vertices, faces, "threads"_a = 1);
  m.def("erode_mask", &erode_mask_array, py::arg("mask").noconvert(), py::arg("faces").noconvert());
  m.def("transform_points", &in_other_frame<transform_points>, py::arg("b_from_a").noconvert(),
        py::arg("points").noconvert(), py::arg("threads") = 1);
  m.def("rotate_vectors", &in_other_frame<rotate_vectors>, py::arg("b_from_a").noconvert(),
        py::arg("vectors").noconvert(), py::arg("threads") = 1);
  m.def("vertex_normals", &vertex_normals_array, vertices, faces, py::arg("offsets").noconvert(),
        py::arg("vertex_faces").noconvert(), "threads"_a = 1);
  m.def("vertex_faces", &table_arrays<vertex_faces>, faces, "n_vertices"_a);
  m.def("vertex_neighbours", &table_arrays<vertex_neighbours>, faces, "n_vertices"_a);
  m.def("boundary_loops", &table_arrays<boundary_loops>, faces, "n_vertices"_a);
  m.def("unique_edges", &unique_edges_array, faces, "n_vertices"_a);
  m.def("mesh_report", &mesh_report_dict, vertices, faces, "threads"_a = 1);
}

}  // namespace e3d::bind
