// multigrid.h — V-cycles on grids of pixels, as parts of a grid program; see extreme3d/multigrid.h.
//
// Grids lie on the whole image, work is done only in the box of what is unknown. Fine grids are
// smoothed in tiles, one barrier of the grid each way; the coarse ones by the first block alone.
// Interpolation leaves out cells beyond a free border and gives their weight to the others.
// For sources with kernels alone: classes of theirs stay behind a pointer in headers.
#pragma once

#include <algorithm>
#include <cstdint>

#include "extreme3d/cuda/blocks.h"
#include "extreme3d/multigrid.h"

namespace e3d::cuda {

// Row of the matrix: anchor x_i + Σ edge (x_i - x_j). All zero where not unknown.
struct alignas(16) GridCell {
  float right, left, below, above;  // weights of the edges
  float anchor;                     // mass, and weights of edges to cells that are held
  float mass;
  float inverse;  // of the diagonal; positive where unknown
  float share;    // 1 / weights of the coarse cells that interpolation uses
};

struct GridArrays {
  int width, height;
  GridCell* cells;
  std::uint8_t* held;  // some of it is known; what is neither held nor unknown is free
  float *b, *x;        // right-hand side; iterate before the coarse correction
  float* z;            // result of the cycle; 0 where not unknown
};

struct CellBox {
  int x0, y0, x1, y1;  // half open
  E3D_HD int width() const { return x1 - x0; }
  E3D_HD int height() const { return y1 - y0; }
  E3D_HD int count() const { return width() * height(); }
  E3D_HD bool contains(int x, int y) const { return x >= x0 && y >= y0 && x < x1 && y < y1; }
};

// A x at a cell; read(j) is asked for unknown cells alone.
template <class Read>
E3D_HD inline float apply(const GridCell& c, int i, int stride, const Read& read) {
  const float x = read(i);
  float sum = c.anchor * x;
  if (c.right > 0.f) sum += c.right * (x - read(i + 1));
  if (c.left > 0.f) sum += c.left * (x - read(i - 1));
  if (c.below > 0.f) sum += c.below * (x - read(i + stride));
  if (c.above > 0.f) sum += c.above * (x - read(i - stride));
  return sum;
}

// A tile of a fine grid in a block's memory: the cells that it gives results for, and those around
// that they depend on.
inline constexpr int kTileX = 32, kTileY = 16, kHalo = 3;
inline constexpr int kSpanX = kTileX + 2 * kHalo, kSpanY = kTileY + 2 * kHalo;
inline constexpr int kSpan = kSpanX * kSpanY;
static_assert(3 * kSpan * sizeof(float) <= kBlockBytes);

// Which of the grids are used, for one box of unknown cells. Every thread has its own copy.
class Hierarchy {
 public:
  // unknown: box of such cells of grids[0]. Coarser grids follow until one has 4 x 4 cells.
  __device__ Hierarchy(const GridArrays* grids, CellBox unknown) : grids_(grids), box_(unknown) {
    while (box(first_by_block_).count() > kBlockCells) ++first_by_block_;
    coarsest_ = first_by_block_;
    while (box(coarsest_).width() > kCoarsestSide || box(coarsest_).height() > kCoarsestSide)
      ++coarsest_;
  }

  // Sets up all grids from what is in the first, its `share` apart. Ends with a sync.
  __device__ void prepare(Grid& grid) const {
    for (int l = 1; l <= first_by_block_; ++l) {
      grid.for_each(reach(l).count(), [&](int k) { coarsen(l, k); });
      if (l > 1) grid.for_each(box(l - 2).count(), [&](int k) { set_share(l - 2, k); });
      grid.sync();
    }
    const int last = first_by_block_ - 1;
    grid.for_each(box(last).count(), [&](int k) { set_share(last, k); });
    for_blocks(1, [&](Block& block, int) {
      for (int l = first_by_block_ + 1; l <= coarsest_; ++l) {
        block.for_each(reach(l).count(), [&](int k) { coarsen(l, k); });
        block.sync();
      }
      for (int l = first_by_block_; l < coarsest_; ++l)
        block.for_each(box(l).count(), [&](int k) { set_share(l, k); });
    });
    grid.sync();
  }

  // First half of a V-cycle, a symmetric positive approximation z of A⁻¹ b on the first grid: down
  // from there. first(block, i, own) gives b of a cell. Tiles overlap: a cell is own once, and in
  // what others ask for its neighbours' sake nothing is to be written. Returns the sum of what
  // `first` added to its blocks.
  template <class First>
  __device__ Sum3 descend(Grid& grid, const First& first) const {
    return sum_blocks(grid, tiles(0),
                      [&](Block& block, int t) { descend_tile(block, 0, t, first); });
  }

  // Second half: all below, and up again. finished(block, i, z, a_z) takes a cell's results, once.
  // Returns the sum of what it added to its blocks.
  template <class Finished>
  __device__ Sum3 ascend(Grid& grid, const Finished& finished) const {
    for (int l = 1; l < first_by_block_; ++l) {
      const float* b = grids_[l].b;
      for_blocks(tiles(l), [&](Block& block, int t) {
        descend_tile(block, l, t, [b](Block&, int i, bool) { return b[i]; });
      });
      grid.sync();
    }
    for_blocks(1, [&](Block& block, int) { cycle_in_block(block); });
    grid.sync();
    for (int l = first_by_block_; l-- > 1;) {
      for_blocks(tiles(l), [&](Block& block, int t) { ascend_tile(block, l, t); });
      grid.sync();
    }
    return sum_blocks(grid, tiles(0),
                      [&](Block& block, int t) { finish_tile(block, t, finished); });
  }

  // The cells of a grid that may be unknown.
  __device__ CellBox box(int l) const {
    return {box_.x0 >> l, box_.y0 >> l, ((box_.x1 - 1) >> l) + 1, ((box_.y1 - 1) >> l) + 1};
  }
  // The cells that are set up: interpolation asks for their neighbours, tiles for their halo.
  __device__ CellBox reach(int l) const {
    const CellBox b = box(l);
    return {std::max(b.x0 - kMargin, 0), std::max(b.y0 - kMargin, 0),
            std::min(b.x1 + kMargin, grids_[l].width), std::min(b.y1 + kMargin, grids_[l].height)};
  }

 private:
  static constexpr int kBlockCells = 64 * 64;  // grids of at most so many are left to one block
  static constexpr int kMargin = 4;
  static constexpr int kCoarseX = kTileX / 2, kCoarseY = kTileY / 2;

  // === Set-up ===

  // Edges of 2 x 2 cells summed and halved, mass summed; the finer grid is complete but for shares.
  __device__ void coarsen(int l, int k) const {
    const CellBox area = reach(l), finer = reach(l - 1);
    const GridArrays g = grids_[l], fine = grids_[l - 1];
    const int cx = area.x0 + k % area.width(), cy = area.y0 + k / area.width();
    const int i = cy * g.width + cx;
    GridCell c{0.f, 0.f, 0.f, 0.f, 0.f, 0.f, 0.f, 0.f};
    std::uint8_t held = 0;
    float fixed = 0.f;
    for (int dy = 0; dy < 2; ++dy)
      for (int dx = 0; dx < 2; ++dx) {
        const int x = 2 * cx + dx, y = 2 * cy + dy;
        if (!finer.contains(x, y)) continue;
        const GridCell f = fine.cells[y * fine.width + x];
        (dx ? c.right : c.left) += 0.5f * (dx ? f.right : f.left);
        (dy ? c.below : c.above) += 0.5f * (dy ? f.below : f.above);
        c.mass += f.mass;
        fixed += f.anchor - f.mass;
        held |= fine.held[y * fine.width + x];
      }
    c.anchor = c.mass + 0.5f * fixed;
    const float diagonal = c.anchor + c.right + c.left + c.below + c.above;
    c.inverse = diagonal > 0.f ? 1.f / diagonal : 0.f;
    g.cells[i] = c;
    g.held[i] = held;
    g.z[i] = 0.f;
  }

  __device__ void set_share(int l, int k) const {
    const CellBox area = box(l);
    const GridArrays g = grids_[l], coarse = grids_[l + 1];
    const int x = area.x0 + k % area.width(), y = area.y0 + k / area.width();
    const float weight = interpolate(coarse, x, y, [&](int j) {
      return coarse.held[j] || coarse.cells[j].inverse > 0.f ? 1.f : 0.f;
    });
    GridCell& c = g.cells[y * g.width + x];
    if (c.inverse > 0.f) c.share = 1.f / weight;
  }

  // === Between grids ===

  // Bilinear, of what read(j) says of coarse cells; 0 beyond the image.
  template <class Read>
  __device__ static float interpolate(const GridArrays& coarse, int x, int y, const Read& read) {
    const int cx = x / 2, cy = y / 2, nx = x % 2 ? cx + 1 : cx - 1, ny = y % 2 ? cy + 1 : cy - 1;
    const bool in_x = nx >= 0 && nx < coarse.width, in_y = ny >= 0 && ny < coarse.height;
    const int row = cy * coarse.width, next = ny * coarse.width;
    float sum = kNear * kNear * read(row + cx);
    if (in_x) sum += kNear * kFar * read(row + nx);
    if (in_y) sum += kNear * kFar * read(next + cx);
    if (in_x && in_y) sum += kFar * kFar * read(next + nx);
    return sum;
  }

  // Its transpose, of what read(kx, ky) says of the 4 x 4 fine cells around a coarse cell.
  template <class Read>
  __device__ static float gather(const Read& read) {
    float sum = 0.f;
    for (int ky = 0; ky < 4; ++ky) {
      const float row = kFar * (read(0, ky) + read(3, ky)) + kNear * (read(1, ky) + read(2, ky));
      sum += (ky == 0 || ky == 3 ? kFar : kNear) * row;
    }
    return sum;
  }

  __device__ static float corrected(const GridArrays& g, const GridArrays& coarse,
                                    const GridCell& c, int x, int y) {
    return g.x[y * g.width + x] +
           c.share * interpolate(coarse, x, y, [&](int j) { return coarse.z[j]; });
  }

  // === Tiles of fine grids ===

  struct Tile {
    int x0, y0;  // of the span
    CellBox reach;
    GridArrays grid;
  };

  __device__ int tiles_x(int l) const { return (box(l + 1).width() + kCoarseX - 1) / kCoarseX; }
  __device__ int tiles(int l) const {
    return tiles_x(l) * ((box(l + 1).height() + kCoarseY - 1) / kCoarseY);
  }
  __device__ Tile tile(int l, int t) const {
    const CellBox coarse = box(l + 1);
    const int nx = tiles_x(l);
    return {2 * (coarse.x0 + t % nx * kCoarseX) - kHalo,
            2 * (coarse.y0 + t / nx * kCoarseY) - kHalo, reach(l), grids_[l]};
  }

  // to[k] = value(k, i, cell, x, y) for the cells of the span less `Margin`; 0 where not unknown.
  template <int Margin, class Value>
  __device__ static void fill(Block& block, const Tile& tile, float* to, const Value& value) {
    constexpr int kWidth = kSpanX - 2 * Margin, kHeight = kSpanY - 2 * Margin;
    block.for_each(kWidth * kHeight, [&](int n) {
      const int lx = Margin + n % kWidth, ly = Margin + n / kWidth, k = ly * kSpanX + lx;
      const int x = tile.x0 + lx, y = tile.y0 + ly, i = y * tile.grid.width + x;
      float result = 0.f;
      if (tile.reach.contains(x, y)) {
        const GridCell c = tile.grid.cells[i];
        if (c.inverse > 0.f) result = value(k, i, c, x, y);
      }
      to[k] = result;
    });
  }

  __device__ static bool is_own(int k) {
    const int lx = k % kSpanX, ly = k / kSpanX;
    return lx >= kHalo && lx < kHalo + kTileX && ly >= kHalo && ly < kHalo + kTileY;
  }

  __device__ static float swept(const GridCell& c, const float* x, float b, int k, float damping) {
    return x[k] + damping * c.inverse * (b - apply(c, k, kSpanX, [x](int j) { return x[j]; }));
  }

  // Two sweeps from 0, and the residual for the coarse grid.
  template <class First>
  __device__ void descend_tile(Block& block, int l, int t, const First& first) const {
    const Tile tile = this->tile(l, t);
    float *b = block.memory<float>(), *one = b + kSpan, *two = one + kSpan;
    fill<0>(block, tile, b, [&](int k, int i, const GridCell& c, int, int) {
      const float value = first(block, i, is_own(k));
      one[k] = kFirstDamping * c.inverse * value;
      return value;
    });
    block.sync();
    fill<1>(block, tile, two, [&](int k, int i, const GridCell& c, int, int) {
      const float x = swept(c, one, b[k], k, kSecondDamping);
      if (is_own(k)) tile.grid.x[i] = x;
      return x;
    });
    block.sync();
    fill<2>(block, tile, one, [&](int k, int, const GridCell& c, int, int) {
      return c.share * (b[k] - apply(c, k, kSpanX, [two](int j) { return two[j]; }));
    });
    block.sync();
    const GridArrays coarse = grids_[l + 1];
    const CellBox area = box(l + 1);
    block.for_each(kCoarseX * kCoarseY, [&](int n) {
      const int lx = n % kCoarseX, ly = n / kCoarseX;
      const int cx = (tile.x0 + kHalo) / 2 + lx, cy = (tile.y0 + kHalo) / 2 + ly;
      const int j = cy * coarse.width + cx;
      if (!area.contains(cx, cy) || !(coarse.cells[j].inverse > 0.f)) return;
      const float* corner = one + (2 * ly + kHalo - 1) * kSpanX + 2 * lx + kHalo - 1;
      coarse.b[j] = gather([corner](int kx, int ky) { return corner[ky * kSpanX + kx]; });
    });
  }

  // The coarse correction, and two sweeps.
  __device__ void ascend_tile(Block& block, int l, int t) const {
    const Tile tile = this->tile(l, t);
    const GridArrays coarse = grids_[l + 1];
    const float* b = tile.grid.b;
    float *one = block.memory<float>(), *two = one + kSpan;
    fill<1>(block, tile, one, [&](int, int, const GridCell& c, int x, int y) {
      return corrected(tile.grid, coarse, c, x, y);
    });
    block.sync();
    fill<2>(block, tile, two, [&](int k, int i, const GridCell& c, int, int) {
      return swept(c, one, b[i], k, kSecondDamping);
    });
    block.sync();
    fill<3>(block, tile, one, [&](int k, int i, const GridCell& c, int, int) {
      return tile.grid.z[i] = swept(c, two, b[i], k, kFirstDamping);
    });
  }

  // The same on the first grid, one ring further for A z.
  template <class Finished>
  __device__ void finish_tile(Block& block, int t, const Finished& finished) const {
    const Tile tile = this->tile(0, t);
    const GridArrays coarse = grids_[1];
    const float* b = tile.grid.b;
    float *one = block.memory<float>(), *two = one + kSpan;
    fill<0>(block, tile, one, [&](int, int, const GridCell& c, int x, int y) {
      return corrected(tile.grid, coarse, c, x, y);
    });
    block.sync();
    fill<1>(block, tile, two, [&](int k, int i, const GridCell& c, int, int) {
      return swept(c, one, b[i], k, kSecondDamping);
    });
    block.sync();
    fill<2>(block, tile, one, [&](int k, int i, const GridCell& c, int, int) {
      return swept(c, two, b[i], k, kFirstDamping);
    });
    block.sync();
    fill<3>(block, tile, two, [&](int k, int i, const GridCell& c, int, int) {
      finished(block, i, one[k], apply(c, k, kSpanX, [one](int j) { return one[j]; }));
      return 0.f;
    });
  }

  // === Coarse grids, by one block ===

  // value(i, cell) for the unknown cells of a grid; then a sync.
  template <class Value>
  __device__ void in_box(Block& block, int l, const Value& value) const {
    const CellBox area = box(l);
    const GridArrays g = grids_[l];
    block.for_each(area.count(), [&](int k) {
      const int x = area.x0 + k % area.width(), y = area.y0 + k / area.width();
      const int i = y * g.width + x;
      const GridCell c = g.cells[i];
      if (c.inverse > 0.f) value(i, c, x, y);
    });
    block.sync();
  }

  __device__ void sweep(Block& block, int l, const float* from, float* to, float damping) const {
    const GridArrays g = grids_[l];
    in_box(block, l, [&](int i, const GridCell& c, int, int) {
      const float ax = apply(c, i, g.width, [from](int j) { return from[j]; });
      to[i] = from[i] + damping * c.inverse * (g.b[i] - ax);
    });
  }

  __device__ void cycle_in_block(Block& block) const {
    for (int l = first_by_block_; l < coarsest_; ++l) {
      const GridArrays g = grids_[l], coarse = grids_[l + 1];
      in_box(block, l, [&](int i, const GridCell& c, int, int) {
        const auto first = [&](int j) { return kFirstDamping * g.cells[j].inverse * g.b[j]; };
        g.x[i] = first(i) + kSecondDamping * c.inverse * (g.b[i] - apply(c, i, g.width, first));
      });
      in_box(block, l, [&](int i, const GridCell& c, int, int) {
        g.z[i] = c.share * (g.b[i] - apply(c, i, g.width, [&](int j) { return g.x[j]; }));
      });
      in_box(block, l + 1, [&](int j, const GridCell&, int cx, int cy) {
        coarse.b[j] = gather([&](int kx, int ky) {
          const int x = 2 * cx - 1 + kx, y = 2 * cy - 1 + ky;
          if (x < 0 || y < 0 || x >= g.width || y >= g.height) return 0.f;
          return g.z[y * g.width + x];
        });
      });
    }
    const GridArrays g = grids_[coarsest_];
    in_box(block, coarsest_, [&](int i, const GridCell& c, int, int) {
      g.x[i] = kJacobiDamping * c.inverse * g.b[i];
    });
    static_assert(kCoarsestSweeps % 2 == 0, "the last sweep should end in z");
    for (int k = 1; k < kCoarsestSweeps; ++k)
      sweep(block, coarsest_, k % 2 ? g.x : g.z, k % 2 ? g.z : g.x, kJacobiDamping);
    for (int l = coarsest_; l-- > first_by_block_;) {
      const GridArrays fine = grids_[l], coarse = grids_[l + 1];
      in_box(block, l, [&](int i, const GridCell& c, int x, int y) {
        fine.z[i] = corrected(fine, coarse, c, x, y);
      });
      sweep(block, l, fine.z, fine.x, kSecondDamping);
      sweep(block, l, fine.x, fine.z, kFirstDamping);
    }
  }

  const GridArrays* grids_;
  CellBox box_;
  int first_by_block_ = 1, coarsest_;
};

}  // namespace e3d::cuda
