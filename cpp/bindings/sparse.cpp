// sparse.cpp — Python view of extreme3d/sparse.h.
#include "arrays.h"

namespace e3d::bind {

void bind_sparse(py::module_&) {}

}  // namespace e3d::bind
