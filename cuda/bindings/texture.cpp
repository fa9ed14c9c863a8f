// texture.cpp — Python view of extreme3d/cuda/texture.h.
#include "arrays.h"

namespace e3d::cuda::bind {

void bind_texture(nb::module_&) {}

}  // namespace e3d::cuda::bind
