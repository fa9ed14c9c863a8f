// mesh.cpp — Python view of extreme3d/mesh.h.
#include "arrays.h"

namespace e3d::bind {

void bind_mesh(py::module_&) {}

}  // namespace e3d::bind
