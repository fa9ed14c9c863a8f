// landmark_fit.cpp — Python view of extreme3d/landmark_fit.h.
#include "arrays.h"

namespace e3d::bind {

void bind_landmark_fit(py::module_&) {}

}  // namespace e3d::bind
