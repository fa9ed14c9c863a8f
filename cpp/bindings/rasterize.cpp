// rasterize.cpp — Python view of extreme3d/rasterize.h.
#include "arrays.h"

namespace e3d::bind {

void bind_rasterize(py::module_&) {}

}  // namespace e3d::bind
