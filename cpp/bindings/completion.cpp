// completion.cpp — Python view of extreme3d/completion.h.
#include "arrays.h"

namespace e3d::bind {

void bind_completion(py::module_&) {}

}  // namespace e3d::bind
