// head_model.cpp — Python view of extreme3d/head_model.h.
#include "arrays.h"

namespace e3d::bind {

void bind_head_model(py::module_&) {}

}  // namespace e3d::bind
