// blending.cu — gradient-domain blending as one program: components, grids, conjugate gradients.
#include <bit>
#include <climits>
#include <cmath>
#include <vector>

#include "extreme3d/cuda/blending.h"
#include "extreme3d/cuda/multigrid.h"
#include "extreme3d/occlusion.h"

namespace e3d::cuda {
namespace {

// === Bump maps ===

E3D_KERNEL unfade_kernel(ImageView<const float> bump, ImageView<const float> weight,
                         ImageView<const std::uint8_t> hole, ImageView<float> out,
                         ImageView<std::uint8_t> known) {
  const int i = thread_index();
  if (i >= out.width * out.height) return;
  known[i] = is_told(weight[i], hole[i]);
  out[i] = known[i] ? bump[i] / weight[i] : 0.f;
}

// === Extent of what is unknown, and ranges of what it meets ===

// Least of x, ~x, y, ~y, values and guidance, as integers of the same order, and their complements.
constexpr int kBounds = 8;

E3D_HD inline int ordered(float v) {
  const int bits = std::bit_cast<int>(v);
  return bits < 0 ? bits ^ INT_MAX : bits;
}
E3D_HD inline float from_ordered(int i) { return std::bit_cast<float>(i < 0 ? i ^ INT_MAX : i); }

struct Range {
  float low, high;
  E3D_HD float width() const { return high - low; }
};
E3D_HD inline Range range(const int* bounds) {
  if (bounds[0] == INT_MAX) return {0.f, 0.f};
  return {from_ordered(bounds[0]), from_ordered(~bounds[1])};
}

// === Components of unknown pixels ===
//
// A forest whose roots have the least number of their component. Numbers are those of the pixels
// scattered at random, which keeps the trees shallow when all are joined at once.

struct Component {
  unsigned long long sum;  // of corrections, fixed point
  std::int32_t n;
  std::int32_t anchored;  // meets known pixels
};

struct Forest {
  std::int32_t* parent;
  Component* components;  // of roots
  unsigned mask;          // one less than a power of 2, as many as there are pixels or more

  // One to one, since the factor is odd: 2^32 over the golden ratio.
  E3D_HD int number(int pixel) const { return static_cast<int>(pixel * 2654435769u & mask); }
};

__device__ inline int find_root(const Forest& forest, int k) {
  const volatile std::int32_t* parent = forest.parent;
  for (int up = parent[k]; up != k; up = parent[k]) k = up;
  return k;
}

__device__ inline void join(const Forest& forest, int a, int b) {
  for (;;) {
    a = find_root(forest, a);
    b = find_root(forest, b);
    if (a == b) return;
    const int high = std::max(a, b), low = std::min(a, b);
    const int before = atomic_min(forest.parent + high, low);
    if (before == high) return;
    a = before;  // no root any more: what it hung on has to be joined too
    b = low;
  }
}

// === The program ===

// Of conjugate gradients, on the first grid. The residual is the right-hand side of the grid.
struct Vectors {
  float *x, *p;
  float *r_before, *s_before, *s;  // s = A p
  float *z, *az;                   // of the last cycle
};

struct BlendProgram {
  BumpMaps faded;  // to be filled; null where the maps are given
  float* values;   // of the maps, to be written if so
  std::uint8_t *known, *region;
  BlendMaps m;
  float tolerance;
  ImageView<float> out;
  float* status;

  const GridArrays* grids;
  Vectors v;
  Forest forest;
  int* bounds;  // (kBounds,)

  __device__ void run(Grid& grid) const {
    grid.for_each(kBounds, [&](int k) { bounds[k] = INT_MAX; });
    grid.for_each(2, [&](int k) { status[k] = 0.f; });
    const double unknown = grid.sum(pixels(), [&](int i) { return begin(i); });
    if (unknown == 0.0) return;
    for_blocks(((out.width + kTileX - 1) / kTileX) * ((out.height + kTileY - 1) / kTileY),
               [&](Block& block, int t) { survey(block, t); });
    grid.sync();
    const CellBox box{bounds[0], bounds[2], ~bounds[1] + 1, ~bounds[3] + 1};
    const Range met = range(bounds + 4), guide = range(bounds + 6);
    const float base = 0.5f * met.low + 0.5f * met.high;
    grid.for_each(box.count(), [&](int k) { join_neighbours(pixel(box, k)); });
    grid.sync();
    grid.for_each(box.count(), [&](int k) { anchor(pixel(box, k)); });
    grid.sync();
    const Hierarchy hierarchy(grids, box);
    const CellBox reach = hierarchy.reach(0);
    const Sum3 start =
        grid.sum3(reach.count(), [&](int k) { return set_up(pixel(reach, k), base); });
    const float width = std::max(met.width(), guide.width());
    if (!(start.x == 0.0)) {  // a status that is not a number tells of such input
      hierarchy.prepare(grid);
      solve(grid, hierarchy, start.x, width);
    }
    const float span = std::max(std::max(std::abs(guide.low), std::abs(guide.high)), width);
    // Sums of corrections of 2^18 pixels, each 2^15 times as large as this, stay in 64 bits.
    const float unit = span > 0.f ? span / (1 << 30) : 0.f;
    if (start.y > 0.0 && unit > 0.f) {
      const int segments = (box.width() + kSegment - 1) / kSegment;
      grid.for_each(segments * box.height(), [&](int k) {
        const int x = box.x0 + k % segments * kSegment;
        sum_corrections(x, std::min(x + kSegment, box.x1), box.y0 + k / segments, 1.f / unit);
      });
      grid.sync();
    }
    grid.for_each(box.count(), [&](int k) { finish(pixel(box, k), base, unit); });
  }

 private:
  static constexpr int kSegment = 16;  // pixels of a row, summed before the others hear of it

  E3D_HD int pixels() const { return out.width * out.height; }
  E3D_HD int pixel(const CellBox& area, int k) const {
    return (area.y0 + k / area.width()) * out.width + area.x0 + k % area.width();
  }
  // What a pixel is pulled to where nothing is known.
  E3D_HD float target(int i) const { return m.guided[i] ? m.guidance[i] : 0.f; }

  // meet(j) for each neighbour in the region.
  template <class Meet>
  E3D_HD void for_neighbours(int i, const Meet& meet) const {
    const int x = i % out.width, y = i / out.width;
    if (x > 0 && m.region[i - 1]) meet(i - 1);
    if (y > 0 && m.region[i - out.width]) meet(i - out.width);
    if (x + 1 < out.width && m.region[i + 1]) meet(i + 1);
    if (y + 1 < out.height && m.region[i + out.width]) meet(i + out.width);
  }

  // Maps and the output of a pixel; whether it is unknown.
  __device__ double begin(int i) const {
    if (faded.bump.data) {
      const float w = faded.weight[i];
      const bool hidden = faded.hole[i] && w > 0.f, told = is_told(w, hidden);
      values[i] = told ? faded.bump[i] / w : 0.f;
      known[i] = told;
      region[i] = told || hidden;
      out[i] = faded.bump[i];
      return hidden;
    }
    out[i] = m.values[i];
    return is_unknown(m, i);
  }

  // Bounds over a tile of the image, first in the block's memory; every pixel a tree of its own.
  __device__ void survey(Block& block, int t) const {
    const int tiles_x = (out.width + kTileX - 1) / kTileX;
    const int x0 = t % tiles_x * kTileX, y0 = t / tiles_x * kTileY;
    int* least = block.memory<int>();
    block.for_each(kBounds, [&](int k) { least[k] = INT_MAX; });
    block.sync();
    const auto include = [&](int k, int v) {
      if (v < least[k]) atomic_min(least + k, v);
      if (~v < least[k + 1]) atomic_min(least + k + 1, ~v);
    };
    block.for_each(kTileX * kTileY, [&](int k) {
      const int x = x0 + k % kTileX, y = y0 + k / kTileX, i = y * out.width + x;
      if (x >= out.width || y >= out.height || !is_unknown(m, i)) return;
      const int number = forest.number(i);
      forest.parent[number] = number;
      forest.components[number] = {0, 0, 0};
      include(0, x);
      include(2, y);
      if (m.guided[i]) include(6, ordered(m.guidance[i]));
      for_neighbours(i, [&](int j) {
        if (!m.known[j]) return;
        include(4, ordered(m.values[j]));
        if (m.guided[j]) include(6, ordered(m.guidance[j]));
      });
    });
    block.sync();
    block.for_each(kBounds, [&](int k) {
      if (least[k] != INT_MAX) atomic_min(bounds + k, least[k]);
    });
  }

  __device__ void join_neighbours(int i) const {
    if (!is_unknown(m, i)) return;
    const int x = i % out.width, above = i - out.width;
    const bool left = x > 0 && is_unknown(m, i - 1);
    if (left) join(forest, forest.number(i), forest.number(i - 1));
    if (above < 0 || !is_unknown(m, above)) return;
    if (left && is_unknown(m, above - 1)) return;  // joined around the corner
    join(forest, forest.number(i), forest.number(above));
  }

  __device__ void anchor(int i) const {
    if (!is_unknown(m, i)) return;
    bool meets = false;
    for_neighbours(i, [&](int j) { meets = meets || m.known[j]; });
    if (meets) atomic_or(&component(i).anchored, 1);
  }

  __device__ Component& component(int i) const {
    return forest.components[find_root(forest, forest.number(i))];
  }

  // A pixel's row, and what is to be solved for: the difference from `base` where its component
  // meets what is known, else from `target`. Returns the square of its right-hand side, and whether
  // it is of the second kind.
  __device__ Sum3 set_up(int i, float base) const {
    const GridArrays& g = grids[0];
    g.held[i] = m.region[i] && m.known[i];
    g.z[i] = 0.f;
    GridCell c{0.f, 0.f, 0.f, 0.f, 0.f, 0.f, 0.f, 0.f};
    if (!is_unknown(m, i)) {
      g.cells[i] = c;
      return {0.0, 0.0, 0.0};
    }
    const int x = i % out.width, y = i / out.width;
    const BlendRow row = blend_row(m, x, y, base);
    c.right = row.right ? 1.f : 0.f;
    c.below = row.below ? 1.f : 0.f;
    c.left = x > 0 && is_unknown(m, i - 1) ? 1.f : 0.f;
    c.above = y > 0 && is_unknown(m, i - out.width) ? 1.f : 0.f;
    float steps = 0.f;  // between the targets, in the row's order: guidance everywhere cancels
    for_neighbours(i, [&](int j) { steps += target(i) - target(j); });
    const bool anchored = component(i).anchored;
    c.mass = anchored ? 0.f : kFreePull;
    c.anchor = row.fixed + c.mass;
    c.inverse = 1.f / (c.anchor + c.right + c.left + c.below + c.above);
    g.cells[i] = c;
    const float b = anchored ? row.source : row.source - steps;
    v.r_before[i] = b;
    v.x[i] = v.p[i] = v.s_before[i] = v.z[i] = v.az[i] = 0.f;
    return {static_cast<double>(b) * b, anchored ? 0.0 : 1.0, 0.0};
  }

  // Conjugate gradients as in e3d::conjugate_gradients, with A p by recurrence (Chronopoulos and
  // Gear, s-step iterative methods, 1989): the sums of a step are taken together.
  __device__ void solve(Grid& grid, const Hierarchy& hierarchy, double start, float width) const {
    const GridArrays g = grids[0];
    const double share = 0.1f * tolerance, target = start * share * share;
    const double energy = kLastGain * tolerance * width;
    double rz = 0.0, rz_first = 0.0, rr = start;
    float step = 0.f, beta = 0.f;
    bool settled = !(energy > 0.0), stuck = false;
    int iterations = 0;
    for (;;) {
      rr = hierarchy
               .descend(grid,
                        [&](Block& block, int i, bool own) {
                          const float s = v.az[i] + beta * v.s_before[i];
                          const float r = v.r_before[i] - step * s;
                          if (!own) return r;
                          g.b[i] = r;
                          v.s[i] = s;
                          v.p[i] = v.z[i] + beta * v.p[i];
                          v.x[i] += step * v.p[i];
                          block.add({static_cast<double>(r) * r, 0.0, 0.0});
                          return r;
                        })
               .x;
      const bool goes_on = (rr > target || !settled) && rr > 0.0;
      if (!goes_on || stuck || iterations == kBlendIterations) break;
      ++iterations;
      const Sum3 sums = hierarchy.ascend(grid, [&](Block& block, int i, float z, float az) {
        const double r = g.b[i];
        v.z[i] = z;
        v.az[i] = az;
        v.r_before[i] = g.b[i];
        v.s_before[i] = v.s[i];
        block.add({r * z, static_cast<double>(z) * az, 0.0});
      });
      const double ratio = iterations > 1 ? sums.x / rz : 0.0;
      const double curvature = iterations > 1 ? sums.y - ratio * sums.x / step : sums.y;
      stuck = !(curvature > 0.0);
      rz = sums.x;
      beta = static_cast<float>(ratio);
      step = stuck ? 0.f : static_cast<float>(rz / curvature);
      if (iterations == 1) {
        rz_first = rz;
      } else if (energy > 0.0) {
        settled = is_settled(rz, rz_first, iterations, energy);
      }
    }
    grid.for_each(1, [&](int) {
      status[0] = static_cast<float>(iterations);
      status[1] = static_cast<float>(std::sqrt(rr / start));
    });
  }

  // Of pixels [x, end) of a row whose component meets nothing known.
  __device__ void sum_corrections(int x, int end, int y, float per_unit) const {
    constexpr float kLargest = 1.8e13f;  // 2^44
    while (x < end) {
      const int first = y * out.width + x;
      long long sum = 0;
      int n = 0;
      for (; x < end && grids[0].cells[y * out.width + x].mass > 0.f; ++x, ++n) {
        const float units = v.x[y * out.width + x] * per_unit;
        if (std::abs(units) < kLargest) sum += static_cast<long long>(units);
      }
      ++x;
      if (!n) continue;
      Component& c = component(first);
      atomic_add(&c.sum, static_cast<unsigned long long>(sum));
      atomic_add(&c.n, n);
    }
  }

  __device__ void finish(int i, float base, float unit) const {
    if (!is_unknown(m, i)) return;
    float value = base + v.x[i];
    if (grids[0].cells[i].mass > 0.f) {
      value = target(i) + v.x[i];
      // The pull sets the mean, exactly; the energy hardly sees it.
      const Component& c = component(i);
      if (unit > 0.f)
        value -=
            static_cast<float>(static_cast<double>(static_cast<long long>(c.sum)) / c.n * unit);
    }
    out[i] = faded.bump.data ? value * faded.weight[i] : value;
  }
};

}  // namespace

void unfade(ImageView<const float> bump, ImageView<const float> weight,
            ImageView<const std::uint8_t> hole, ImageView<float> out, ImageView<std::uint8_t> known,
            Stream s) {
  launch(unfade_kernel, out.width * out.height, s, bump, weight, hole, out, known);
}

struct Blender::Internals {
  Internals(int w, int h) : width(w), height(h), values(pixels()), bounds(kBounds) {
    std::vector<GridArrays> views;
    for (int x = w, y = h;; x = (x + 1) / 2, y = (y + 1) / 2) {
      const std::size_t n = static_cast<std::size_t>(x) * y;
      cells.emplace_back(n);
      for (int k = 0; k < 3; ++k) numbers.emplace_back(n);
      flags.emplace_back(n);
      const auto last = numbers.end();
      views.push_back({x, y, cells.back().data(), flags.back().data(), last[-3].data(),
                       last[-2].data(), last[-1].data()});
      if (views.size() > 1 && x <= kCoarsestSide && y <= kCoarsestSide) break;
    }
    grids = DeviceArray<GridArrays>(views);
    for (float** p : {&vectors.x, &vectors.p, &vectors.r_before, &vectors.s_before, &vectors.s,
                      &vectors.z, &vectors.az})
      *p = numbers.emplace_back(pixels()).data();
    for (std::uint8_t** p : {&known, &region}) *p = flags.emplace_back(pixels()).data();
    unsigned mask = 1;
    while (mask < pixels()) mask = 2 * mask + 1;
    parents = DeviceArray<std::int32_t>(mask + std::size_t{1});
    components = DeviceArray<Component>(mask + std::size_t{1});
    forest = {parents.data(), components.data(), mask};
  }

  std::size_t pixels() const { return static_cast<std::size_t>(width) * height; }

  void run(const BumpMaps& faded, const BlendMaps& maps, float tolerance, ImageView<float> out,
           View<float> status, Stream s) const {
    launch_grid(BlendProgram{faded, values.data(), known, region, maps, tolerance, out, status.data,
                             grids.data(), vectors, forest, bounds.data()},
                static_cast<int>(pixels()), scratch, s);
  }

  int width, height;
  std::vector<DeviceArray<GridCell>> cells;
  std::vector<DeviceArray<float>> numbers;
  std::vector<DeviceArray<std::uint8_t>> flags;
  DeviceArray<GridArrays> grids;
  Vectors vectors{};
  DeviceArray<float> values;
  std::uint8_t *known, *region;
  DeviceArray<std::int32_t> parents;
  DeviceArray<Component> components;
  Forest forest{};
  DeviceArray<int> bounds;
  GridScratch scratch;
};

Blender::Blender(int width, int height) : internals_(std::make_unique<Internals>(width, height)) {}
Blender::~Blender() = default;
int Blender::width() const { return internals_->width; }
int Blender::height() const { return internals_->height; }

void Blender::blend_gradients(const BlendMaps& maps, float tolerance, ImageView<float> out,
                              View<float> status, Stream s) {
  internals_->run({}, maps, tolerance, out, status, s);
}

void Blender::fill_bump(const BumpMaps& maps, ImageView<float> out, View<float> status, Stream s) {
  const Internals& in = *internals_;
  const int w = in.width, h = in.height;
  in.run(maps,
         {{in.values.data(), w, h}, {in.known, w, h}, {in.region, w, h}, maps.borrowed, maps.valid},
         kFillTolerance, out, status, s);
}

}  // namespace e3d::cuda
