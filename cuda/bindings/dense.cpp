// dense.cpp — Python view of extreme3d/cuda/dense.h.
#include "arrays.h"

namespace e3d::cuda::bind {

void bind_dense(nb::module_&) {}

}  // namespace e3d::cuda::bind
