// rasterize.cpp — Python view of extreme3d/cuda/rasterize.h.
#include "arrays.h"

namespace e3d::cuda::bind {

void bind_rasterize(nb::module_&) {}

}  // namespace e3d::cuda::bind
