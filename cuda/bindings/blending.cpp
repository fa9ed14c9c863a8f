// blending.cpp — Python view of extreme3d/cuda/blending.h.
#include "arrays.h"

namespace e3d::cuda::bind {

void bind_blending(nb::module_&) {}

}  // namespace e3d::cuda::bind
