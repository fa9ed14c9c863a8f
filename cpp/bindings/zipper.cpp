// zipper.cpp — Python view of extreme3d/zipper.h.
#include "arrays.h"

namespace e3d::bind {

void bind_zipper(py::module_&) {}

}  // namespace e3d::bind
