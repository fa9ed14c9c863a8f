// render.cpp — Python view of extreme3d/cuda/render.h.
#include "arrays.h"

namespace e3d::cuda::bind {

void bind_render(nb::module_&) {}

}  // namespace e3d::cuda::bind
