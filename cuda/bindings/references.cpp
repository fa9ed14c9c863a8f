// references.cpp — Python view of extreme3d/cuda/references.h.
#include "arrays.h"

namespace e3d::cuda::bind {

void bind_references(nb::module_&) {}

}  // namespace e3d::cuda::bind
