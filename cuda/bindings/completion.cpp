// completion.cpp — Python view of extreme3d/cuda/completion.h.
#include "arrays.h"

namespace e3d::cuda::bind {

void bind_completion(nb::module_&) {}

}  // namespace e3d::cuda::bind
