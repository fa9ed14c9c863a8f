// soft_symmetry.h — hidden vertices recovered from their mirror images by Poisson blending (Eq. 9).
//
// Tran et al. Extreme 3D Face Reconstruction. CVPR 2018, section 4.3; Yu et al. Mesh editing with
// Poisson-based gradient field manipulation. 2004.
//
// Where this departs from the letter of Eq. 9:
// - Where the mirror vertex is hidden too, Eq. 9 takes the foundation's differential at the mirror
//   vertex; here it is the vertex's own, as in the authors' code. Nothing was observed on either
//   side, and a lopsided expression should stay on its side.
// - A mirror vertex counts as visible only with its whole ring: a Laplacian across the border of
// what
//   was observed would carry the border's step into the solution.
// - An edge has one weight, that of R's mirror image, or F's where either end follows F: the matrix
//   stays symmetric, and where the boundary agrees the solution is exactly what it came from.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "extreme3d/laplacian.h"
#include "extreme3d/types.h"

namespace e3d {

// How a vertex of the completed sparse mesh came about.
enum class Recovery : std::uint8_t {
  kKept = 0,        // not an unknown: position given
  kMirrored = 1,    // differential of the mirror vertex on the detailed mesh R
  kFoundation = 2,  // mirror vertex is hidden too: own differential on the foundation F
};

// Vertices with a true mirror image. A vertex that is its own image is one of the plane of symmetry
// only if its neighbours are images of each other; tables of meshes that are not quite symmetric
// (Basel's) use the same entry for vertices that found no partner.
std::vector<std::uint8_t> paired_vertices(const EdgeRows& edges, View<const int> mirror);

// Of an unknown vertex i with the neighbours `ring`. It takes the differential of its mirror image
// if that is visible with its whole ring; a Laplacian across the border of what was observed would
// carry the border's step along.
E3D_HD inline Recovery recovery_of(View<const int> mirror, View<const std::uint8_t> paired,
                                   View<const std::uint8_t> visible, int i, View<const int> ring) {
  bool reflect = visible[mirror[i]] && paired[i];
  for (int k = 0; reflect && k < ring.n; ++k) reflect = visible[mirror[ring[k]]] && paired[ring[k]];
  return reflect ? Recovery::kMirrored : Recovery::kFoundation;
}

// Whose weight the edge from an unknown vertex has, that of R's mirror image or F's. One weight an
// edge, for both its rows and both sides of the equation: where the boundary agrees with the
// differentials, the solution is exactly the surface that they came from.
E3D_HD inline bool weight_is_mirrored(Recovery unknown, Recovery neighbor) {
  return unknown == Recovery::kMirrored && neighbor != Recovery::kFoundation;
}

struct SymmetrySolution {
  std::vector<Vec3> vertices;      // (V,) head frame
  std::vector<Recovery> recovery;  // (V,)
};

// Holds what depends on the topology alone: neighbours, opposite vertices and a fill-reducing
// elimination order of the region. The order stays valid on every subset of unknowns: dropping a
// vertex from an elimination order never adds fill.
class SoftSymmetrySolver {
 public:
  // mirror: (V,) involution over the plane x = 0 of the head frame; region: (V,) 1 where a vertex
  // may be recovered at all.
  SoftSymmetrySolver(View<const Tri> faces, View<const int> mirror,
                     View<const std::uint8_t> region);
  ~SoftSymmetrySolver();
  SoftSymmetrySolver(SoftSymmetrySolver&&) noexcept;

  // foundation F, detailed R: (V,) head frame, R = F where nothing was observed; visible: (V,) 1
  // where R was observed. Unknowns are the vertices of the region that are not visible; all others
  // are Dirichlet boundary. A region without any boundary keeps its vertices (nothing to blend to).
  // Throws std::invalid_argument on sizes that differ from the topology or values not finite.
  SymmetrySolution solve(View<const Vec3> foundation, View<const Vec3> detailed,
                         View<const std::uint8_t> visible, int threads) const;

  int n_vertices() const;

 private:
  struct Internals;
  std::unique_ptr<Internals> internals_;
};

}  // namespace e3d
