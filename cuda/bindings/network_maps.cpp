// network_maps.cpp — Python view of extreme3d/cuda/network_maps.h.
#include "arrays.h"

namespace e3d::cuda::bind {

void bind_network_maps(nb::module_&) {}

}  // namespace e3d::cuda::bind
