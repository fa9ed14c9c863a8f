// occlusion.cpp — Python view of extreme3d/cuda/occlusion.h.
#include "arrays.h"

namespace e3d::cuda::bind {

void bind_occlusion(nb::module_&) {}

}  // namespace e3d::cuda::bind
