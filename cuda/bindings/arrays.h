// arrays.h — device arrays of any library, by DLPack, seen as views; nothing is copied.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>

#include "extreme3d/cuda/launch.h"
#include "extreme3d/mesh.h"

namespace e3d::cuda::bind {

namespace nb = nanobind;
using namespace nb::literals;

#if defined(E3D_CUDA)
using Device = nb::device::cuda;
#else
using Device = nb::device::cpu;
#endif

// C-contiguous array on the device; `const T` where it is only read. Other dtypes are a TypeError.
template <class T>
using Array = nb::ndarray<T, nb::c_contig, Device>;
// NumPy array, for what is prepared once.
template <class T>
using HostArray = nb::ndarray<const T, nb::c_contig, nb::device::cpu>;

// Name of an array argument. Nothing is converted: an output would be written to a copy.
inline auto operator""_array(const char* name, std::size_t) { return nb::arg(name).noconvert(); }

// Address of a stream: `Stream.handle`, or another library's; 0 is the default stream.
inline Stream stream(std::uintptr_t handle) { return reinterpret_cast<Stream>(handle); }

template <class A>
void require_shape(const A& a, const char* name, std::initializer_list<std::int64_t> shape) {
  bool fits = a.ndim() == shape.size();
  std::size_t d = 0;
  for (const std::int64_t want : shape) {
    fits = fits && (want < 0 || static_cast<std::int64_t>(a.shape(d)) == want);
    ++d;
  }
  if (fits) return;
  std::string want = "(", have = "(";
  for (const std::int64_t n : shape) want += (n < 0 ? "*" : std::to_string(n)) + ", ";
  for (d = 0; d < a.ndim(); ++d) have += std::to_string(a.shape(d)) + ", ";
  throw std::invalid_argument(std::string(name) + " should have shape " + want + "), has " + have +
                              ")");
}

// (n,) scalars.
template <class A>
auto view(const A& a, const char* name, std::int64_t n = -1) {
  require_shape(a, name, {n});
  return View<std::remove_pointer_t<decltype(a.data())>>{a.data(), static_cast<int>(a.shape(0))};
}

// (n, ...) rows of `components` scalars as a struct T of as many: Vec2, Vec3, Tri, Rgb.
template <class T, class A>
View<T> rows(const A& a, const char* name, std::int64_t n = -1) {
  using Scalar = std::remove_cv_t<std::remove_pointer_t<decltype(a.data())>>;
  require_shape(a, name, {n, static_cast<std::int64_t>(sizeof(T) / sizeof(Scalar))});
  return {reinterpret_cast<T*>(a.data()), static_cast<int>(a.shape(0))};
}

// (H, W) image of scalars.
template <class A>
auto image(const A& a, const char* name, std::int64_t h = -1, std::int64_t w = -1) {
  require_shape(a, name, {h, w});
  return ImageView<std::remove_pointer_t<decltype(a.data())>>{
      a.data(), static_cast<int>(a.shape(1)), static_cast<int>(a.shape(0))};
}

// (H, W, C) image of structs of C scalars.
template <class T, class A>
ImageView<T> image_of(const A& a, const char* name, std::int64_t h = -1, std::int64_t w = -1) {
  using Scalar = std::remove_cv_t<std::remove_pointer_t<decltype(a.data())>>;
  require_shape(a, name, {h, w, static_cast<std::int64_t>(sizeof(T) / sizeof(Scalar))});
  return {reinterpret_cast<T*>(a.data()), static_cast<int>(a.shape(1)),
          static_cast<int>(a.shape(0))};
}

// (16,) row-major matrix of a (4, 4) array.
inline View<const float> matrix(const Array<const float>& a, const char* name) {
  require_shape(a, name, {4, 4});
  return {a.data(), 16};
}

inline CsrView csr(const Array<const std::int32_t>& offsets,
                   const Array<const std::int32_t>& indices, std::int64_t rows) {
  return {view(offsets, "offsets", rows + 1), view(indices, "indices")};
}

}  // namespace e3d::cuda::bind
