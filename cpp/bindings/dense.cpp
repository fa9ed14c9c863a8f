// dense.cpp — Python view of extreme3d/dense.h.
#include "arrays.h"

namespace e3d::bind {

void bind_dense(py::module_&) {}

}  // namespace e3d::bind
