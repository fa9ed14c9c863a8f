// scan.h — running sums on the device: numbers for what is kept of a list.
// For sources with kernels alone: classes of theirs stay behind a pointer in headers.
#pragma once

#include <cstdint>

#include "extreme3d/cuda/memory.h"

#if defined(__CUDACC__)
#include <cub/device/device_scan.cuh>
#endif

namespace e3d::cuda {

// out[i] = in[0] + ... + in[i - 1]; in and out may be one array. Scratch is kept for a capacity.
class ExclusiveSum {
 public:
  explicit ExclusiveSum(int capacity) {
#if defined(__CUDACC__)
    std::size_t bytes = 0;
    check(cub::DeviceScan::ExclusiveSum(nullptr, bytes, static_cast<const std::int32_t*>(nullptr),
                                        static_cast<std::int32_t*>(nullptr), capacity),
          "scan");
    scratch_ = DeviceArray<std::uint8_t>(bytes);
#else
    (void)capacity;
#endif
  }

  void operator()(View<const std::int32_t> in, View<std::int32_t> out, Stream stream) const {
#if defined(__CUDACC__)
    std::size_t bytes = scratch_.size();
    check(cub::DeviceScan::ExclusiveSum(scratch_.data(), bytes, in.data, out.data, in.n, stream),
          "scan");
#else
    (void)stream;
    std::int32_t sum = 0;
    for (int i = 0; i < in.n; ++i) {
      const std::int32_t value = in[i];
      out[i] = sum;
      sum += value;
    }
#endif
  }

 private:
  DeviceArray<std::uint8_t> scratch_;
};

}  // namespace e3d::cuda
