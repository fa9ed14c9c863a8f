// blocks.h — parts of a grid program that a block does by itself, with its own barrier and memory.
//
// A barrier of one block costs a hundredth of one of the grid: work on one tile of an image, and
// iterations on little data, are done by a block. As in grid.h the code is written as if by one
// thread: for_each does items in parallel, sync makes what the block wrote visible to it.
// For sources with kernels alone, like grid.h.
#pragma once

#include <cstring>

#include "extreme3d/cuda/grid.h"

namespace e3d::cuda {

inline constexpr int kBlockBytes = 12 * 1024;  // memory of a block

#if defined(__CUDACC__)

class Block {
 public:
  __device__ explicit Block(void* memory) : memory_(memory) {}

  template <class Body>
  __device__ void for_each(int n, const Body& body) const {
    for (int i = threadIdx.x; i < n; i += blockDim.x) body(i);
  }
  __device__ void sync() const { __syncthreads(); }
  // Not initialised; the next item of the same block has it again.
  template <class T>
  __device__ T* memory() const {
    return static_cast<T*>(memory_);
  }
  // Adds to what sum_blocks returns.
  __device__ void add(Sum3 term) { sum_ = sum_ + term; }
  __device__ Sum3 sum() const { return sum_; }

 private:
  void* memory_;
  Sum3 sum_{0.0, 0.0, 0.0};  // of this thread
};

__device__ inline void* block_memory() {
  __shared__ alignas(16) unsigned char memory[kBlockBytes];  // one for all of a program
  return memory;
}

// body(block, i) for each i < n, by one block each. Does not sync the grid.
template <class Body>
__device__ Sum3 for_blocks(int n, const Body& body) {
  Block block(block_memory());
  for (int i = blockIdx.x; i < n; i += gridDim.x) {
    body(block, i);
    __syncthreads();
  }
  return block.sum();
}

// for_blocks, and the sum of what it added, the same in every thread and every run. Syncs.
template <class Body>
__device__ Sum3 sum_blocks(Grid& grid, int n, const Body& body) {
  const Sum3 mine = for_blocks(n, body);
  return grid.sum3(gridDim.x * blockDim.x, [mine](int) { return mine; });
}

#else

class Block {
 public:
  explicit Block(void* memory) : memory_(memory) {}

  template <class Body>
  void for_each(int n, const Body& body) const {
    for (int i = 0; i < n; ++i) body(host_reversed ? n - 1 - i : i);
  }
  void sync() const {}
  template <class T>
  T* memory() const {
    return static_cast<T*>(memory_);
  }
  void add(Sum3 term) { sum_ = sum_ + term; }
  Sum3 sum() const { return sum_; }

 private:
  void* memory_;
  Sum3 sum_{0.0, 0.0, 0.0};
};

template <class Body>
Sum3 for_blocks(int n, const Body& body) {
  alignas(16) unsigned char memory[kBlockBytes];
  Block block(memory);
  for (int i = 0; i < n; ++i) {
    std::memset(memory, 0xff, kBlockBytes);  // not a number: tests see what is read too early
    body(block, host_reversed ? n - 1 - i : i);
  }
  return block.sum();
}

template <class Body>
Sum3 sum_blocks(Grid&, int n, const Body& body) {
  return for_blocks(n, body);
}

#endif

}  // namespace e3d::cuda
