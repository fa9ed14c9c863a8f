// runs.h — connected components of a mask, as runs of pixels along its rows.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

namespace e3d {

// Pixels [x0, x1) of a row; runs that touch hang, over their parents, on the first of their
// component.
struct Run {
  int y, x0, x1;
  int parent;
};

inline int find_root(std::vector<Run>& runs, int r) {
  while (runs[r].parent != r) r = runs[r].parent = runs[runs[r].parent].parent;
  return r;
}

enum class Connectivity { kFour, kEight };

// Runs of a mask of width × height, row by row. fill_row(y, mask) writes a row of 0 and 1, and says
// whether there is a 1 in it.
template <class FillRow>
std::vector<Run> find_runs(int width, int height, Connectivity connectivity,
                           const FillRow& fill_row) {
  const int reach = connectivity == Connectivity::kEight;  // how far runs may lie apart in x
  std::vector<Run> runs;
  std::vector<std::uint8_t> row(width + 1);  // ends in a 0
  int above = 0, row_begin = 0;              // first runs of the row above, and of this one
  for (int y = 0; y < height; ++y) {
    above = row_begin;
    row_begin = static_cast<int>(runs.size());
    if (!fill_row(y, row.data())) continue;
    int touching = above;  // first run of the row above that may touch
    for (int x = 0; x < width; ++x) {
      const void* next = std::memchr(row.data() + x, 1, width - x);
      if (!next) break;
      const int x0 = static_cast<int>(static_cast<const std::uint8_t*>(next) - row.data());
      x = x0 + static_cast<int>(std::strlen(reinterpret_cast<const char*>(row.data() + x0)));
      const int r = static_cast<int>(runs.size());
      runs.push_back({y, x0, x, r});
      while (touching < row_begin && runs[touching].x1 + reach <= x0) ++touching;
      for (int a = touching; a < row_begin && runs[a].x0 < x + reach; ++a) {
        const int p = find_root(runs, a), q = find_root(runs, r);
        runs[std::max(p, q)].parent = std::min(p, q);
      }
    }
  }
  return runs;
}

}  // namespace e3d
