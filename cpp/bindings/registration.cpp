// registration.cpp — Python view of extreme3d/registration.h.
#include "arrays.h"

namespace e3d::bind {

void bind_registration(py::module_&) {}

}  // namespace e3d::bind
