// head_model.cpp — Python view of extreme3d/cuda/head_model.h.
#include "arrays.h"

namespace e3d::cuda::bind {

void bind_head_model(nb::module_&) {}

}  // namespace e3d::cuda::bind
