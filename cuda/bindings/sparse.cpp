// sparse.cpp — Python view of extreme3d/cuda/sparse.h.
#include "arrays.h"

namespace e3d::cuda::bind {

void bind_sparse(nb::module_&) {}

}  // namespace e3d::cuda::bind
