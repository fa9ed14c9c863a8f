// soft_symmetry.cpp — Python view of extreme3d/cuda/soft_symmetry.h.
#include "arrays.h"

namespace e3d::cuda::bind {

void bind_soft_symmetry(nb::module_&) {}

}  // namespace e3d::cuda::bind
