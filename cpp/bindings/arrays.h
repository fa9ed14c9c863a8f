// arrays.h — NumPy arrays seen as views: shape and dtype are checked here, nothing is copied.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "extreme3d/types.h"

namespace e3d::bind {

namespace py = pybind11;

// C-contiguous array of exactly this dtype; with .noconvert() anything else is a TypeError.
template <class T>
using Array = py::array_t<T, py::array::c_style>;

inline std::string shape_of(const py::array& a) {
  std::string s = "(";
  for (py::ssize_t d = 0; d < a.ndim(); ++d) s += (d ? ", " : "") + std::to_string(a.shape(d));
  return s + ")";
}

inline void require_shape(const py::array& a, const char* name,
                          const std::vector<py::ssize_t>& shape) {
  bool ok = a.ndim() == static_cast<py::ssize_t>(shape.size());
  for (py::ssize_t d = 0; ok && d < a.ndim(); ++d) ok = shape[d] < 0 || a.shape(d) == shape[d];
  if (ok) return;
  std::string want = "(";
  for (std::size_t d = 0; d < shape.size(); ++d)
    want += (d ? ", " : "") + (shape[d] < 0 ? std::string("*") : std::to_string(shape[d]));
  throw std::invalid_argument(std::string(name) + " should have shape " + want + "), has " +
                              shape_of(a));
}

// Smallest and largest of n > 0 values; one pass that compilers vectorise.
inline std::pair<std::int32_t, std::int32_t> range_of(const std::int32_t* values, py::ssize_t n) {
  std::int32_t least = values[0], most = values[0];
  for (py::ssize_t i = 1; i < n; ++i) {
    least = std::min(least, values[i]);
    most = std::max(most, values[i]);
  }
  return {least, most};
}

inline void require_range(const std::int32_t* values, py::ssize_t n, const char* name, int low,
                          int high) {
  if (n == 0) return;
  const auto [least, most] = range_of(values, n);
  if (least >= low && most < high) return;
  throw std::invalid_argument(std::string(name) + " has index " +
                              std::to_string(least < low ? least : most) + " outside [" +
                              std::to_string(low) + ", " + std::to_string(high) + ")");
}

// (n,) array as a view of scalars.
template <class T>
View<const T> view(const Array<T>& a, const char* name, py::ssize_t n = -1) {
  require_shape(a, name, {n});
  return {a.data(), static_cast<int>(a.shape(0))};
}

// (V, 3) float32 as vectors.
inline View<const Vec3> vec3_view(const Array<float>& a, const char* name, py::ssize_t n = -1) {
  require_shape(a, name, {n, 3});
  return {reinterpret_cast<const Vec3*>(a.data()), static_cast<int>(a.shape(0))};
}

// (n,) int32 of indices within [low, high); anything else is a ValueError.
inline View<const std::int32_t> index_view(const Array<std::int32_t>& a, const char* name,
                                           py::ssize_t n, int low, int high) {
  const auto values = view(a, name, n);
  require_range(values.data, a.size(), name, low, high);
  return values;
}

// (F, 3) int32 as triangles; indices are checked against n_vertices.
inline View<const Tri> tri_view(const Array<std::int32_t>& a, const char* name, int n_vertices) {
  require_shape(a, name, {-1, 3});
  require_range(a.data(), a.size(), name, 0, n_vertices);
  return {reinterpret_cast<const Tri*>(a.data()), static_cast<int>(a.shape(0))};
}

// (H, W) image.
template <class T>
ImageView<const T> image_view(const Array<T>& a, const char* name, py::ssize_t h = -1,
                              py::ssize_t w = -1) {
  require_shape(a, name, {h, w});
  return {a.data(), static_cast<int>(a.shape(1)), static_cast<int>(a.shape(0))};
}

// (4, 4) float32 rigid transform.
inline Rigid rigid(const Array<float>& a, const char* name) {
  require_shape(a, name, {4, 4});
  const float* m = a.data();
  return {{m[0], m[1], m[2], m[4], m[5], m[6], m[8], m[9], m[10]}, {m[3], m[7], m[11]}};
}

// Moves a vector into a NumPy array of the given shape without copying.
template <class T, class S = T>
py::array_t<T> take(std::vector<S>&& values, std::vector<py::ssize_t> shape) {
  auto* owner = new std::vector<S>(std::move(values));
  py::capsule free_owner(owner, [](void* p) { delete static_cast<std::vector<S>*>(p); });
  return py::array_t<T>(std::move(shape), reinterpret_cast<const T*>(owner->data()), free_owner);
}

}  // namespace e3d::bind
