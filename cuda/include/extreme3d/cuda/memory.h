// memory.h — device memory owned by operations that keep scratch or tables between calls.
#pragma once

#include <cstring>
#include <new>
#include <type_traits>
#include <utility>
#include <vector>

#include "extreme3d/cuda/launch.h"

namespace e3d::cuda {

// === Raw memory; in the host twin the device is the host ===

inline void* allocate(std::size_t bytes) {
  void* p = nullptr;
#if defined(E3D_CUDA)
  const cudaError_t status = cudaMalloc(&p, bytes ? bytes : 1);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // or the next launch would report it
    throw std::bad_alloc();
  }
  check(status, "cudaMalloc");
#else
  p = ::operator new(bytes ? bytes : 1);
#endif
  return p;
}

inline void release(void* p) {
#if defined(E3D_CUDA)
  cudaFree(p);  // of a process that ends the driver may be gone already
#else
  ::operator delete(p);
#endif
}

inline void copy_to_device(void* to, const void* from, std::size_t bytes, Stream stream) {
#if defined(E3D_CUDA)
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream), "copy to device");
#else
  (void)stream;
  if (bytes) std::memcpy(to, from, bytes);
#endif
}

// Complete only after the stream has been waited for.
inline void copy_to_host(void* to, const void* from, std::size_t bytes, Stream stream) {
#if defined(E3D_CUDA)
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream), "copy to host");
#else
  (void)stream;
  if (bytes) std::memcpy(to, from, bytes);
#endif
}

inline void copy_on_device(void* to, const void* from, std::size_t bytes, Stream stream) {
#if defined(E3D_CUDA)
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream), "copy on device");
#else
  (void)stream;
  if (bytes) std::memmove(to, from, bytes);
#endif
}

// Every byte of n elements set to `byte`: 0 for zeros, 0xff for -1.
template <class T>
void fill_bytes(View<T> to, int byte, Stream stream) {
  const std::size_t bytes = sizeof(T) * static_cast<std::size_t>(to.n);
#if defined(E3D_CUDA)
  check(cudaMemsetAsync(to.data, byte, bytes, stream), "memset");
#else
  (void)stream;
  if (bytes) std::memset(static_cast<void*>(to.data), byte, bytes);
#endif
}

inline void wait(Stream stream) {
#if defined(E3D_CUDA)
  check(cudaStreamSynchronize(stream), "wait for the stream");
#else
  (void)stream;
#endif
}

// === Owned arrays ===

// n elements in device memory, not initialised. Moves, does not copy.
template <class T>
class DeviceArray {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  DeviceArray() = default;
  explicit DeviceArray(std::size_t n) : data_(static_cast<T*>(allocate(n * sizeof(T)))), n_(n) {}
  // A copy of host values; complete on return.
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.data(), values.size()) {}
  DeviceArray(const T* values, std::size_t n) : DeviceArray(n) {
    copy_to_device(data_, values, n * sizeof(T), nullptr);
    wait(nullptr);
  }
  ~DeviceArray() {
    if (data_) release(data_);
  }
  DeviceArray(DeviceArray&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), n_(std::exchange(other.n_, 0)) {}
  DeviceArray& operator=(DeviceArray&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(n_, other.n_);
    return *this;
  }

  T* data() const { return data_; }
  std::size_t size() const { return n_; }
  View<T> view() const { return {data_, static_cast<int>(n_)}; }
  View<const T> cview() const { return {data_, static_cast<int>(n_)}; }

 private:
  T* data_ = nullptr;
  std::size_t n_ = 0;
};

}  // namespace e3d::cuda
