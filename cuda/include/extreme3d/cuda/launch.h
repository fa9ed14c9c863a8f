// launch.h — the one place where kernels are started: on the device, or as loops on the host.
//
// Sources in cuda/ are compiled twice. With nvcc, `launch` starts a kernel. Without (the host
// twin), it runs the kernel for each block and thread in turn, so that tests cover the indexing of
// every kernel on machines without a GPU.
#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>

#include "extreme3d/types.h"

// E3D_CUDA: this file is part of the module for the device, whether nvcc or the host compiler reads
// it.
#if defined(E3D_CUDA)
#include <cuda_runtime.h>
#endif

namespace e3d::cuda {

#if defined(E3D_CUDA)
using Stream = cudaStream_t;
inline constexpr bool kOnDevice = true;
#else
using Stream = void*;
inline constexpr bool kOnDevice = false;
#endif

inline constexpr int kBlock = 256;  // threads of a block

// Blocks that programs of grid.h run on, as far as they are all resident; 0 leaves it to
// launch_grid. For measurements alone.
inline int grid_blocks = 0;

// What the driver or the runtime refuses; Python sees a RuntimeError.
struct DeviceError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

#if defined(E3D_CUDA)
inline void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // else the next launch would find this error, and take it for its own
  throw DeviceError(std::string(what) + ": " + cudaGetErrorString(status));
}
#endif

#if defined(__CUDACC__)

#define E3D_KERNEL __global__ void

// Of this thread, among all of the launch.
__device__ inline int thread_index() { return blockIdx.x * blockDim.x + threadIdx.x; }

// Runs kernel(args...) on at least n threads; a kernel returns where thread_index() is beyond.
template <class... P, class... A>
void launch(void (*kernel)(P...), int n, Stream stream, A... args) {
  if (n <= 0) return;
  kernel<<<(n + kBlock - 1) / kBlock, kBlock, 0, stream>>>(static_cast<P>(args)...);
  check(cudaGetLastError(), "launch");
}

#elif !defined(E3D_CUDA)

#define E3D_KERNEL void
#define __device__
#define __host__

// Of the thread that the host plays at the moment.
inline thread_local int host_thread_index = 0;
inline int thread_index() { return host_thread_index; }

// Tests run threads in either order: a kernel whose result differs has a race.
inline bool host_reversed = false;

template <class... P, class... A>
void launch(void (*kernel)(P...), int n, Stream, A... args) {
  const int threads = (n + kBlock - 1) / kBlock * kBlock;
  for (int i = 0; i < threads; ++i) {
    host_thread_index = host_reversed ? threads - 1 - i : i;
    kernel(static_cast<P>(args)...);
  }
}

#endif

#if defined(__CUDACC__) || !defined(E3D_CUDA)

// === Atomics ===
// Only where a gather is not possible; on integers, so that the order does not matter.

template <class T>
__device__ inline T atomic_min(T* at, T value) {
#if defined(__CUDACC__)
  return ::atomicMin(at, value);
#else
  const T before = *at;
  if (value < before) *at = value;
  return before;
#endif
}

template <class T>
__device__ inline T atomic_max(T* at, T value) {
#if defined(__CUDACC__)
  return ::atomicMax(at, value);
#else
  const T before = *at;
  if (value > before) *at = value;
  return before;
#endif
}

template <class T>
__device__ inline T atomic_add(T* at, T value) {
#if defined(__CUDACC__)
  return ::atomicAdd(at, value);
#else
  const T before = *at;
  *at = before + value;
  return before;
#endif
}

template <class T>
__device__ inline T atomic_or(T* at, T value) {
#if defined(__CUDACC__)
  return ::atomicOr(at, value);
#else
  const T before = *at;
  *at = before | value;
  return before;
#endif
}

#endif

}  // namespace e3d::cuda
