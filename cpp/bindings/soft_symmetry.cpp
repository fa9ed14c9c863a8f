// soft_symmetry.cpp — Python view of extreme3d/soft_symmetry.h.
#include "arrays.h"

namespace e3d::bind {

void bind_soft_symmetry(py::module_&) {}

}  // namespace e3d::bind
