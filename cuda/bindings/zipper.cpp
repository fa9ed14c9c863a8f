// zipper.cpp — Python view of extreme3d/cuda/zipper.h.
#include "arrays.h"

namespace e3d::cuda::bind {

void bind_zipper(nb::module_&) {}

}  // namespace e3d::cuda::bind
