// registration.cpp — Python view of extreme3d/cuda/registration.h.
#include "arrays.h"

namespace e3d::cuda::bind {

void bind_registration(nb::module_&) {}

}  // namespace e3d::cuda::bind
