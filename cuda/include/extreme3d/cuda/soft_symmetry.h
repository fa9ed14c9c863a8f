// soft_symmetry.h — hidden vertices recovered from their mirror images on the device; see
// extreme3d/soft_symmetry.h.
//
// The system is that of the host. It is solved by conjugate gradients whose preconditioner is the
// sum of Jacobi on the mesh and on one coarse space: Bramble, Pasciak, Xu. Parallel multilevel
// preconditioners. 1990. Both sums and products of an iteration are arranged such that it takes two
// barriers: Chronopoulos, Gear. s-step iterative methods for symmetric linear systems. 1989.
#pragma once

#include <memory>

#include "extreme3d/cuda/launch.h"
#include "extreme3d/soft_symmetry.h"

namespace e3d::cuda {

struct SolveStatus {
  int iterations;
  double residual;  // mm, √(r · M r) about the error's energy norm; NaN where input is not finite
  bool converged;
};

// Tables of one topology and scratch of one photo at a time: one for each stream in use.
class SoftSymmetrySolver {
 public:
  // Arrays on the host, as for e3d::SoftSymmetrySolver.
  SoftSymmetrySolver(View<const Tri> faces, View<const int> mirror,
                     View<const std::uint8_t> region);
  ~SoftSymmetrySolver();
  SoftSymmetrySolver(SoftSymmetrySolver&&) noexcept;

  // foundation F, detailed R: (V,) mm, head frame; visible: (V,) 1 where R was observed.
  // out: (V,) the completed mesh, another array than the inputs; recovery: (V,) Recovery.
  // Values that are not finite where they matter make a status that has not converged.
  void solve(View<const Vec3> foundation, View<const Vec3> detailed,
             View<const std::uint8_t> visible, View<Vec3> out, View<std::uint8_t> recovery,
             Stream stream) const;

  // Of the last solve on the stream, which is waited for.
  SolveStatus status(Stream stream) const;

  int n_vertices() const;

 private:
  struct Internals;
  std::unique_ptr<Internals> internals_;
};

}  // namespace e3d::cuda
