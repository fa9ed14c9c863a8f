// crop.cpp — Python view of extreme3d/cuda/crop.h.
#include "arrays.h"

namespace e3d::cuda::bind {

void bind_crop(nb::module_&) {}

}  // namespace e3d::cuda::bind
