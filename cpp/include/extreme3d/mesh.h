// mesh.h — topology of triangle meshes: who meets whom, normals, borders, and whether all is valid.
//
// Tables are CSR and depend on the faces alone: build once per topology, gather ever after.
#pragma once

#include <cstdint>
#include <vector>

#include "extreme3d/types.h"

namespace e3d {

// Row i holds indices[offsets[i] .. offsets[i + 1]).
struct Csr {
  std::vector<std::int32_t> offsets;  // (rows + 1,)
  std::vector<std::int32_t> indices;
};

struct CsrView {
  View<const std::int32_t> offsets;  // (rows + 1,)
  View<const std::int32_t> indices;
};

inline CsrView view(const Csr& c) {
  return {{c.offsets.data(), static_cast<int>(c.offsets.size())},
          {c.indices.data(), static_cast<int>(c.indices.size())}};
}

// The two other corners of the faces of each vertex, rows in the order of the faces.
struct CornerRows {
  std::vector<std::int32_t> offsets;         // (V + 1,)
  std::vector<std::int32_t> next, previous;  // (3 F,)
};

struct CornerView {
  View<const std::int32_t> offsets;         // (V + 1,)
  View<const std::int32_t> next, previous;  // (3 F,)
};

inline CornerView view(const CornerRows& c) {
  const int n = static_cast<int>(c.next.size());
  return {{c.offsets.data(), static_cast<int>(c.offsets.size())},
          {c.next.data(), n},
          {c.previous.data(), n}};
}

// Undirected edge, a < b.
struct VertexPair {
  std::int32_t a, b;
};

// === Normals ===

// Twice the area of a face times its outward normal, mm².
E3D_HD inline Vec3 face_area_vector(const MeshView& m, int f) {
  const Tri t = m.faces[f];
  const Vec3 a = m.vertices[t.v0];
  return cross(m.vertices[t.v1] - a, m.vertices[t.v2] - a);
}

// Area-weighted unit normal from the area vectors of all faces, zero for a vertex without faces.
// Gathers over the vertex's faces, so the sum has the same order on CPU and GPU.
E3D_HD inline Vec3 vertex_normal(View<const Vec3> area_vectors, const CsrView& vertex_faces,
                                 int v) {
  Vec3 n{0.f, 0.f, 0.f};
  for (int k = vertex_faces.offsets[v]; k < vertex_faces.offsets[v + 1]; ++k)
    n = n + area_vectors[vertex_faces.indices[k]];
  return normalize_or_zero(n);
}

// Sum of the area vectors of the faces of a vertex.
E3D_HD inline Vec3 area_normal(View<const Vec3> vertices, const CornerView& corners, int v) {
  const Vec3 x = vertices[v];
  Vec3 normal{0.f, 0.f, 0.f};
  for (int k = corners.offsets[v]; k < corners.offsets[v + 1]; ++k)
    normal = normal + cross(vertices[corners.next[k]] - x, vertices[corners.previous[k]] - x);
  return normal;
}

// === Masks of vertices ===

// Whether erode_mask leaves a vertex in the mask.
E3D_HD inline bool stays_in_mask(View<const std::uint8_t> mask, View<const Tri> faces,
                                 const CsrView& vertex_faces, int v) {
  bool inside = mask[v];
  for (int k = vertex_faces.offsets[v]; inside && k < vertex_faces.offsets[v + 1]; ++k) {
    const Tri t = faces[vertex_faces.indices[k]];
    inside = mask[t.v0] && mask[t.v1] && mask[t.v2];
  }
  return inside;
}

E3D_HD inline bool stays_in_mask(View<const std::uint8_t> mask, const CornerView& corners, int v) {
  bool inside = mask[v];
  for (int k = corners.offsets[v]; inside && k < corners.offsets[v + 1]; ++k)
    inside = mask[corners.next[k]] && mask[corners.previous[k]];
  return inside;
}

// The mask without the corners of faces that have a corner outside it.
void erode_mask(View<const std::uint8_t> mask, View<const Tri> faces, View<std::uint8_t> out);

// === Transforms and normals of all vertices ===

// Throws std::invalid_argument unless mirror[mirror[v]] == v for every vertex.
void require_involution(View<const int> mirror);

// Points and directions carried from frame a to frame b.
void transform_points(const Rigid& b_from_a, View<const Vec3> in, int threads, View<Vec3> out);
void rotate_vectors(const Rigid& b_from_a, View<const Vec3> in, int threads, View<Vec3> out);

void face_normals(MeshView mesh, int threads, View<Vec3> out);                          // (F,)
void vertex_normals(MeshView mesh, CsrView vertex_faces, int threads, View<Vec3> out);  // (V,)

// === Neighbourhoods ===

// Faces of each vertex, ascending; a face that names a vertex twice is listed twice.
Csr vertex_faces(View<const Tri> faces, int n_vertices);
CornerRows corner_rows(View<const Tri> faces, int n_vertices);
// Undirected edges, each once, in lexicographic order. Edges from a vertex to itself are left out.
std::vector<VertexPair> unique_edges(View<const Tri> faces, int n_vertices);
// Vertices that share an edge with each vertex, ascending.
Csr vertex_neighbours(View<const Tri> faces, int n_vertices);
// Closed borders as rows of vertices, each in the direction of its faces' edges (the surface lies
// to the left seen from outside), beginning at its smallest vertex; rows ordered by that vertex.
// Where two borders touch in one vertex, each stays with its own fan of faces.
Csr boundary_loops(View<const Tri> faces, int n_vertices);

// === Validity ===

// Counts of what can be wrong. Faces that name a vertex twice count as degenerate and take no part
// in the rest, except that their vertices count as referenced.
struct MeshReport {
  int vertices, faces, edges;
  int components;             // of the faces, joined by shared vertices
  int boundary_edges;         // edges of one face
  int boundary_loops;         //
  int non_manifold_edges;     // edges of three or more faces
  int non_manifold_vertices;  // vertices whose faces form more than one fan (bow ties)
  int inconsistent_edges;     // edges whose two faces run along them in the same direction
  int unreferenced_vertices;  // in no face
  int degenerate_faces;       // a vertex named twice
  int zero_area_faces;        // three different vertices on a line, to 1e-12 of the longest edge²
  int non_finite_vertices;    // with a NaN or an infinity
};

MeshReport mesh_report(MeshView mesh, int threads);

}  // namespace e3d
