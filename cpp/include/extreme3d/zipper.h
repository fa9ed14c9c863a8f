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

#include <cstdint>
#include <memory>
#include <vector>

#include "extreme3d/types.h"

namespace e3d {

// Everything that a photo contributes. V sparse vertices, F faces, N dense vertices.
struct ZipperInput {
  View<const Vec3> sparse;                     // (V,) completed R, head frame
  View<const Vec3> foundation_in_camera;       // (V,) as it was rasterised; R lies on the same rays
  View<const std::uint8_t> observed;           // (V,) 1 where R took its position from D
  View<const std::uint8_t> recovered;          // (V,) 1 where soft symmetry solved the vertex
  View<const Vec3> dense;                      // (N,) D, head frame
  View<const Vec3> reflected;                  // (N,) Eq. 10
  View<const std::uint8_t> reflected_defined;  // (N,)
  ImageView<const int> triangle;               // face of R seen by each pixel, -1 for none
  ImageView<const int> vertex_of_pixel;        // vertex of D at each pixel, -1 for none
  Camera camera;
};

enum class VertexSource : std::uint8_t { kSparse = 0, kDense = 1, kReflected = 2 };

struct ZipperedMesh {
  std::vector<Vec3> vertices;        // (M,) head frame
  std::vector<Tri> faces;            // (K,)
  std::vector<VertexSource> source;  // (M,)
  std::vector<std::int32_t> index;   // (M,) vertex of R (kSparse) or of D (others)
  std::vector<std::uint8_t> seam;    // (M,) 1 for vertices of R on a seam
};

// Holds the adjacency of the topology.
class Zipper {
 public:
  // mirror: (V,) involution. Throws std::invalid_argument if an edge has more than two faces.
  Zipper(View<const Tri> faces, View<const int> mirror);
  ~Zipper();
  Zipper(Zipper&&) noexcept;

  ZipperedMesh zip(const ZipperInput& input) const;

  int n_vertices() const;
  int n_faces() const;

 private:
  struct Internals;
  std::unique_ptr<Internals> internals_;
};

}  // namespace e3d
