// components.h — connected components of a mask, as steps of a grid program (see grid.h).
//
// A label is the index of a pixel of the same component that is not behind the pixel itself; at the
// end it is that of the component's first pixel, in whatever order the threads came. Union-find
// with atomic minima: Komura, GPU-based cluster-labeling algorithm without the use of conventional
// iteration, 2015. Rows are cut into runs whose pixels need no union.
#pragma once

#include <cstdint>

#include "extreme3d/cuda/launch.h"

namespace e3d::cuda {

inline constexpr int kRun = 16;  // px

struct Components {
  int width, height;
  View<std::int32_t> label;  // (H W,) -1 outside the mask
  View<std::int32_t> size;   // (H W,) at first pixels; px, counted until it is enough
};

// Past the first level of cache, which does not see what other blocks write.
__device__ inline std::int32_t fresh(const std::int32_t* at) {
  return *static_cast<const volatile std::int32_t*>(at);
}

// First step: `inside(i)` tells whether pixel i is in the mask.
template <class Inside>
__device__ void start_labels(const Components& c, int i, const Inside& inside) {
  c.size[i] = 0;
  int first = -1;
  if (inside(i)) {
    const int begin = i - (i % c.width) % kRun;
    for (first = i; first > begin && inside(first - 1);) --first;
  }
  c.label[i] = first;
}

__device__ inline std::int32_t root(std::int32_t* label, std::int32_t i) {
  for (;;) {
    const std::int32_t parent = fresh(label + i);
    const std::int32_t above = fresh(label + parent);
    if (above == parent) return parent;
    atomic_min(label + i, above);  // halves the path for all who follow
    i = above;
  }
}

__device__ inline void unite(std::int32_t* label, std::int32_t a, std::int32_t b) {
  for (;;) {
    a = root(label, a), b = root(label, b);
    if (a == b) return;
    const std::int32_t low = a < b ? a : b, high = a < b ? b : a;
    const std::int32_t before = atomic_min(label + high, low);
    if (before == high) return;
    a = low, b = before;  // another thread had linked `high` already
  }
}

// Second step, after a sync: joins a pixel to its neighbours, diagonal ones too if so wished,
// unless they are joined by way of others.
__device__ inline void link_labels(const Components& c, int i, bool diagonal) {
  std::int32_t* label = c.label.data;
  const auto inside = [&](int k) { return fresh(label + k) >= 0; };
  if (!inside(i)) return;
  const int x = i % c.width, above = i - c.width;
  const bool left = x > 0 && inside(i - 1);
  if (left && x % kRun == 0) unite(label, i, i - 1);
  if (above < 0) return;
  if (inside(above)) {
    if (!(left && x % kRun && inside(above - 1))) unite(label, i, above);
  } else if (diagonal) {
    if (x > 0 && !left && inside(above - 1)) unite(label, i, above - 1);
    if (x + 1 < c.width && !inside(i + 1) && inside(above + 1)) unite(label, i, above + 1);
  }
}

// Third step, after a sync: final labels and sizes. Returns whether this pixel's run made its
// component large enough.
__device__ inline bool count_labels(const Components& c, int i, int enough) {
  std::int32_t* label = c.label.data;
  if (fresh(label + i) < 0) return false;
  const std::int32_t first = root(label, i);
  atomic_min(label + i, first);
  const int x = i % c.width;
  if (x % kRun && fresh(label + i - 1) >= 0) return false;
  int n = 1;
  while ((x + n) % kRun && x + n < c.width && fresh(label + i + n) >= 0) ++n;
  if (fresh(c.size.data + first) >= enough) return false;  // spares the atomics of large ones
  const std::int32_t before = atomic_add(c.size.data + first, n);
  return before < enough && before + n >= enough;
}

// After another sync: whether a pixel is in a component of enough pixels.
__device__ inline bool is_large(const Components& c, int i, int enough) {
  const std::int32_t first = c.label[i];
  return first >= 0 && c.size[first] >= enough;
}

}  // namespace e3d::cuda
