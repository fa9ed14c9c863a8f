// grid.h — programs that all threads of a launch run in step: for iterations that end by a test.
//
// A program is a struct of views with `__device__ void run(Grid& grid) const`. It is written once
// as if by one thread that owns everything: for_each does a loop's items in parallel, sync makes
// what was written before visible to all, sum adds up terms in a fixed order. On the device it is
// one cooperative launch, in the host twin plain loops.
//
// Every thread must reach every sync and sum: decide branches and loop ends on what `sum` returned
// or on memory that was last written before a sync. For sources with kernels alone: classes of
// theirs stay behind a pointer in headers.
#pragma once

#include <cstdint>

#include "extreme3d/cuda/launch.h"
#include "extreme3d/cuda/memory.h"

#if defined(__CUDACC__)
#include <cuda/atomic>
#endif

namespace e3d::cuda {

struct Sum3 {
  double x, y, z;
};
__host__ __device__ inline Sum3 operator+(Sum3 a, Sum3 b) {
  return {a.x + b.x, a.y + b.y, a.z + b.z};
}

inline constexpr int kGridThreads = 512;  // of a block
inline constexpr int kMaxGridBlocks = 256;

// What a grid needs in memory of its device between its blocks; one for each stream in use.
class GridScratch {
 public:
  GridScratch() : partials_(2 * kMaxGridBlocks), barrier_(1) {
    fill_bytes(barrier_.view(), 0, nullptr);
    wait(nullptr);  // other streams do not wait for the default one
#if defined(E3D_CUDA)
    int device = 0;
    check(cudaGetDevice(&device), "cudaGetDevice");
    check(cudaDeviceGetAttribute(&processors_, cudaDevAttrMultiProcessorCount, device),
          "cudaDeviceGetAttribute");
#endif
  }
  Sum3* partials() const { return partials_.data(); }
  unsigned* barrier() const { return barrier_.data(); }
  int processors() const { return processors_; }

 private:
  DeviceArray<Sum3> partials_;     // of each block; two sets in turn, so that one sync a sum does
  DeviceArray<unsigned> barrier_;  // arrivals; the highest bit turns when all have come
  int processors_ = 1;
};

#if defined(__CUDACC__)

class Grid {
 public:
  __device__ Grid(Sum3* partials, unsigned* barrier)
      : partials_(partials), barrier_(barrier), turn_(0) {}

  template <class Body>
  __device__ void for_each(int n, const Body& body) const {
    const int step = gridDim.x * blockDim.x;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) body(i);
  }

  // done(k, total) for each row k with the sum of term(e) over offsets[k] <= e < offsets[k + 1] in
  // a fixed order, by a warp each. Warps are counted from the grid's last one, so that rows beside
  // a for_each over few items get threads of their own.
  template <class Term, class Done>
  __device__ void for_each_row(View<const std::int32_t> offsets, const Term& term,
                               const Done& done) const {
    const int warps = gridDim.x * (blockDim.x / 32), lane = threadIdx.x % 32;
    const int warp = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    for (int k = warps - 1 - warp; k < offsets.n - 1; k += warps) {
      Sum3 total{0.0, 0.0, 0.0};
      for (int e = offsets[k] + lane; e < offsets[k + 1]; e += 32) total = total + term(e);
      warp_sum(total);
      if (lane == 0) done(k, total);
    }
  }

  // A barrier of all threads. The launch is cooperative: all blocks are resident.
  __device__ void sync() {
    __syncthreads();
    if (threadIdx.x == 0 && gridDim.x > 1) {
      // As cooperative_groups has it: all that is added comes to kTurn, so that the last block to
      // come turns the bit, and the rest is 0 again. Released and acquired is also what the other
      // threads of a block wrote and will read.
      constexpr unsigned kTurn = 1u << 31;
      const unsigned own = blockIdx.x == 0 ? kTurn - (gridDim.x - 1) : 1u;
      const ::cuda::atomic_ref<unsigned, ::cuda::thread_scope_device> arrivals(*barrier_);
      const unsigned before = arrivals.fetch_add(own, ::cuda::memory_order_release);
      while (((before ^ arrivals.load(::cuda::memory_order_acquire)) & kTurn) == 0) {
      }
    }
    __syncthreads();
  }

  // The sum of term(i) over i < n, the same in every thread and every run. Syncs.
  template <class Term>
  __device__ Sum3 sum3(int n, const Term& term) {
    __shared__ Sum3 of_warp[kGridThreads / 32];
    __shared__ Sum3 total;
    Sum3 mine{0.0, 0.0, 0.0};
    for_each(n, [&](int i) { mine = mine + term(i); });
    block_sum(mine, of_warp);
    Sum3* set = partials_ + turn_ * kMaxGridBlocks;
    turn_ ^= 1;
    if (threadIdx.x == 0) set[blockIdx.x] = mine;
    sync();
    Sum3 all{0.0, 0.0, 0.0};
    for (int b = threadIdx.x; b < static_cast<int>(gridDim.x); b += blockDim.x) all = all + set[b];
    block_sum(all, of_warp);
    if (threadIdx.x == 0) total = all;
    __syncthreads();
    return total;  // the next sum has barriers before it writes
  }

  template <class Term>
  __device__ double sum(int n, const Term& term) {
    return sum3(n, [&](int i) { return Sum3{term(i), 0.0, 0.0}; }).x;
  }

 private:
  // The warp's sum in its first lane; others keep rubbish.
  __device__ static void warp_sum(Sum3& s) {
    for (int step = 16; step > 0; step /= 2) {
      s.x += __shfl_down_sync(0xffffffffu, s.x, step);
      s.y += __shfl_down_sync(0xffffffffu, s.y, step);
      s.z += __shfl_down_sync(0xffffffffu, s.z, step);
    }
  }

  // The block's sum in its first thread; others keep rubbish. A barrier has to follow before
  // of_warp is used again.
  __device__ static void block_sum(Sum3& mine, Sum3* of_warp) {
    warp_sum(mine);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    if (lane == 0) of_warp[warp] = mine;
    __syncthreads();
    if (warp == 0) {
      mine = lane < kGridThreads / 32 ? of_warp[lane] : Sum3{0.0, 0.0, 0.0};
      warp_sum(mine);
    }
  }

  Sum3* partials_;
  unsigned* barrier_;
  int turn_;
};

template <class Program>
__global__ void __launch_bounds__(kGridThreads, 1)
    grid_kernel(Program program, Sum3* partials, unsigned* barrier) {
  Grid grid(partials, barrier);
  program.run(grid);
}

// Runs a program whose loops have about n items on as many blocks as help, all of them resident.
// n = 1 asks for a single block.
template <class Program>
void launch_grid(const Program& program, int n, const GridScratch& scratch, Stream stream) {
  const int processors = scratch.processors();
  const int most = processors < kMaxGridBlocks ? processors : kMaxGridBlocks;  // one a processor
  const int wanted = n > 1 && grid_blocks > 0 ? grid_blocks : (n + kGridThreads - 1) / kGridThreads;
  const int blocks = wanted < 1 ? 1 : wanted < most ? wanted : most;
  Sum3* partials = scratch.partials();
  unsigned* barrier = scratch.barrier();
  Program copy = program;
  void* args[] = {&copy, &partials, &barrier};
  check(cudaLaunchCooperativeKernel(reinterpret_cast<void*>(grid_kernel<Program>), dim3(blocks),
                                    dim3(kGridThreads), args, 0, stream),
        "cooperative launch");
}

#else

class Grid {
 public:
  template <class Body>
  void for_each(int n, const Body& body) const {
    for (int i = 0; i < n; ++i) body(host_reversed ? n - 1 - i : i);
  }
  template <class Term, class Done>
  void for_each_row(View<const std::int32_t> offsets, const Term& term, const Done& done) const {
    for_each(offsets.n - 1, [&](int k) {
      Sum3 total{0.0, 0.0, 0.0};
      for (int e = offsets[k]; e < offsets[k + 1]; ++e) total = total + term(e);
      done(k, total);
    });
  }
  void sync() {}
  template <class Term>
  Sum3 sum3(int n, const Term& term) {
    Sum3 total{0.0, 0.0, 0.0};
    for (int i = 0; i < n; ++i) total = total + term(i);
    return total;
  }
  template <class Term>
  double sum(int n, const Term& term) {
    double total = 0.0;
    for (int i = 0; i < n; ++i) total += term(i);
    return total;
  }
};

template <class Program>
void launch_grid(const Program& program, int, const GridScratch&, Stream) {
  Grid grid;
  program.run(grid);
}

#endif

}  // namespace e3d::cuda
