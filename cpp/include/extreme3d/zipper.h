// zipper.h — the dense and the sparse mesh sewn into one (section 4.3, "Producing the final
// shape").
//
// Turk, Levoy. Zippered polygon meshes from range images. 1994. Overlap is removed from the sparse
// mesh, the dense mesh is clipped against the border of what is left, and the strip between the two
// borders is stitched. Turk and Levoy clip in space, triangle against triangle. Here every dense
// vertex is a pixel, and where R is visible its projection is one-to-one, so that clipping and
// stitching become one constrained Delaunay triangulation in the image plane, in integers: the
// border of R stays as it is, gains no vertex, and S is as manifold as R is.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <memory>
#include <vector>

#include "extreme3d/mesh.h"
#include "extreme3d/rasterize.h"
#include "extreme3d/triangulate.h"
#include "extreme3d/types.h"

namespace e3d {

// === Where R is covered by D ===

// Islands of fewer faces than this stay at the resolution of R: all seam, no detail.
inline constexpr int kMinIsland = 24;

// What a pixel adds to the count of its face; a hole more than any ring of faces makes up for.
E3D_HD inline int pixel_weight(int vertex_of_pixel) { return vertex_of_pixel >= 0 ? 1 : -1000; }

// Vertices around which D is at least as dense as R: half as many pixels as faces (a mesh has half
// as many vertices as faces), each with a vertex of D. Elsewhere D would only take detail away.
// pixels: (F,) the weights of each face's pixels.
E3D_HD inline bool is_dense_around(View<const int> pixels, const CsrView& faces_around, int v) {
  int around = 0;
  for (int k = faces_around.offsets[v]; k < faces_around.offsets[v + 1]; ++k)
    around += 2 * pixels[faces_around.indices[k]] - 1;
  return around >= 0;
}

// A vertex of R in the image plane in the rasteriser's units, y up, so that faces turned to the
// camera are counter-clockwise. False, and no position, outside the image.
E3D_HD inline bool corner_in_image(const Camera& camera, Vec3 x_in_camera, PlanarPoint* corner) {
  const SnappedVertex p = snap(camera, x_in_camera);
  const bool inside =
      p.x >= 0 && p.y >= 0 && p.x <= camera.width * kSubPixel && p.y <= camera.height * kSubPixel;
  if (inside) *corner = {p.x, -p.y};
  return inside;
}

E3D_HD inline bool turns_left(PlanarPoint a, PlanarPoint b, PlanarPoint c) {
  return std::int64_t(b.x - a.x) * (c.y - a.y) > std::int64_t(b.y - a.y) * (c.x - a.x);
}

// === Clipping of cells, squares between four pixel centres, against the border of R ===

// Cells closer than this to the border are clipped off: they would make slivers. In 1/256 px.
inline constexpr double kBorderMargin = 0.3 * kSubPixel;

E3D_HD inline PlanarPoint pixel_center(int x, int y) {
  return {x * kSubPixel + kSubPixel / 2, -(y * kSubPixel + kSubPixel / 2)};
}

E3D_HD inline double squared_distance_to_segment(double px, double py, PlanarPoint a,
                                                 PlanarPoint b) {
  const double dx = b.x - a.x, dy = b.y - a.y;
  const double length2 = dx * dx + dy * dy;
  const double t =
      length2 > 0 ? std::clamp(((px - a.x) * dx + (py - a.y) * dy) / length2, 0.0, 1.0) : 0.0;
  const double ex = a.x + t * dx - px, ey = a.y + t * dy - py;
  return ex * ex + ey * ey;
}

// Twice the signed area of (p, q, r).
E3D_HD inline double side_of_line(double px, double py, double qx, double qy, double rx,
                                  double ry) {
  return (qx - px) * (ry - py) - (qy - py) * (rx - px);
}

E3D_HD inline bool segments_cross(double ax, double ay, double bx, double by, PlanarPoint c,
                                  PlanarPoint d) {
  const double s1 = side_of_line(ax, ay, bx, by, c.x, c.y);
  const double s2 = side_of_line(ax, ay, bx, by, d.x, d.y);
  const double s3 = side_of_line(c.x, c.y, d.x, d.y, ax, ay);
  const double s4 = side_of_line(c.x, c.y, d.x, d.y, bx, by);
  return s1 * s2 <= 0 && s3 * s4 <= 0;
}

// The segment (a, b) comes within the margin of the square [x0, x0 + kSubPixel] x [y0, ...].
E3D_HD inline bool near_cell(double x0, double y0, PlanarPoint a, PlanarPoint b) {
  const double x1 = x0 + kSubPixel, y1 = y0 + kSubPixel;
  // most cells are cleared by how far their centre is from the line: no point of them is further
  // from it than half a diagonal, 0.71 px
  constexpr double kReach = kBorderMargin + 0.71 * kSubPixel;
  const double dx = b.x - a.x, dy = b.y - a.y;
  const double area2 = side_of_line(a.x, a.y, b.x, b.y, x0 + kSubPixel / 2, y0 + kSubPixel / 2);
  if (area2 * area2 > kReach * kReach * (dx * dx + dy * dy)) return false;
  if (a.x >= x0 && a.x <= x1 && a.y >= y0 && a.y <= y1) return true;
  const double corners[4][2] = {{x0, y0}, {x1, y0}, {x1, y1}, {x0, y1}};
  for (int k = 0; k < 4; ++k) {
    const auto& p = corners[k];
    const auto& q = corners[(k + 1) % 4];
    if (squared_distance_to_segment(p[0], p[1], a, b) < kBorderMargin * kBorderMargin) return true;
    if (segments_cross(p[0], p[1], q[0], q[1], a, b)) return true;
    const PlanarPoint from{int(p[0]), int(p[1])}, to{int(q[0]), int(q[1])};
    if (squared_distance_to_segment(a.x, a.y, from, to) < kBorderMargin * kBorderMargin)
      return true;
  }
  return false;
}

// Cells that the segment (a, b) can come near to; a cell (x, y) lies between the centres of pixels
// (x, y) and (x + 1, y + 1).
E3D_HD inline PixelBox cells_near(PlanarPoint a, PlanarPoint b, int width, int height) {
  const double m = kBorderMargin, half = kSubPixel / 2;
  const auto cell = [&](double at) { return int(std::floor((at - half) / kSubPixel)); };
  return {std::max(0, cell(std::min(a.x, b.x) - m)), std::max(0, cell(-(std::max(a.y, b.y) + m))),
          std::min(width - 2, cell(std::max(a.x, b.x) + m)),
          std::min(height - 2, cell(-(std::min(a.y, b.y) - m)))};
}

// === Triangles of a cell, vertices named d + column + row ===

// The diagonal from (x, y) to (x + 1, y + 1) is the shorter one. Explicit fma: the same everywhere.
E3D_HD inline bool cut_falling(Vec3 d00, Vec3 d10, Vec3 d01, Vec3 d11) {
  const auto length2 = [](Vec3 a) { return std::fma(a.z, a.z, std::fma(a.x, a.x, a.y * a.y)); };
  return length2(d00 - d11) <= length2(d10 - d01);
}

struct CellTriangles {
  Tri triangles[2];
};

E3D_HD inline CellTriangles cell_triangles(int d00, int d10, int d01, int d11, bool falling) {
  if (falling) return {{{d00, d01, d11}, {d00, d11, d10}}};
  return {{{d00, d01, d10}, {d10, d01, d11}}};
}

// === The topology of R ===

E3D_HD inline std::array<int, 3> corners_of(const Tri& t) { return {t.v0, t.v1, t.v2}; }

struct ZipperTopology {
  std::vector<std::array<int, 3>> neighbors;  // face across the edge v_k -> v_k+1, -1 for none
  std::vector<int> mirror_face;               // face of the mirrored corners, -1 for none
  Csr faces_around;                           // faces of each vertex
};

// mirror: (V,) involution. Throws std::invalid_argument if an edge has more than two faces.
ZipperTopology zipper_topology(View<const Tri> faces, View<const int> mirror);

// === The operation ===

// Everything that a photo contributes. V sparse vertices, F faces, N dense vertices.
struct ZipperInput {
  View<const Vec3> sparse;                     // (V,) completed R, head frame
  View<const Vec3> foundation_in_camera;       // (V,) as it was rasterised; R lies on the same rays
  View<const std::uint8_t> observed;           // (V,) 1 where R took its position from D
  View<const std::uint8_t> recovered;          // (V,) 1 where soft symmetry solved the vertex
  View<const Vec3> dense;                      // (N,) D, head frame, in row-major order of pixels
  View<const Vec3> reflected;                  // (N,) Eq. 10
  View<const std::uint8_t> reflected_defined;  // (N,)
  ImageView<const int> triangle;               // face of R seen by each pixel, -1 for none
  ImageView<const int> vertex_of_pixel;        // vertex of D at each pixel, -1 for none
  Camera camera;
};

enum class VertexSource : std::uint8_t { kSparse = 0, kDense = 1, kReflected = 2 };

struct ZipperedMesh {
  Rows<Vec3> vertices;        // (M,) head frame
  Rows<Tri> faces;            // (K,)
  Rows<VertexSource> source;  // (M,)
  Rows<std::int32_t> index;   // (M,) vertex of R (kSparse) or of D (others)
  Rows<std::uint8_t> seam;    // (M,) 1 for vertices of R on a seam
};

// Holds the adjacency of the topology.
class Zipper {
 public:
  // mirror: (V,) involution. Throws std::invalid_argument if an edge has more than two faces.
  Zipper(View<const Tri> faces, View<const int> mirror);
  ~Zipper();
  Zipper(Zipper&&) noexcept;

  ZipperedMesh zip(const ZipperInput& input, int threads) const;

  int n_vertices() const;
  int n_faces() const;

 private:
  struct Internals;
  std::unique_ptr<Internals> internals_;
};

}  // namespace e3d
