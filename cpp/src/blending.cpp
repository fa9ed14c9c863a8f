// blending.cpp — one multigrid solve for each hole, or for all holes where they lie together.
#include "extreme3d/blending.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "extreme3d/runs.h"

namespace e3d {
namespace {

constexpr long kBoxOverhead = 1024;  // setting up a solve costs about as much as these pixels

struct Box {
  int x0, y0, x1, y1;  // half open
  long area() const { return static_cast<long>(x1 - x0) * (y1 - y0); }
  void include(const Box& b) {
    *this = {std::min(x0, b.x0), std::min(y0, b.y0), std::max(x1, b.x1), std::max(y1, b.y1)};
  }
};

struct Range {
  float low = std::numeric_limits<float>::max(), high = std::numeric_limits<float>::lowest();
  void include(float v) {
    low = std::min(low, v);
    high = std::max(high, v);
  }
  bool empty() const { return low > high; }
  float width() const { return empty() ? 0.f : high - low; }
};

struct Component {
  int first;  // run
  Box box;
  bool anchored;  // meets known pixels
  float base;     // solved for the difference from this
};

std::vector<Run> unknown_runs(const BlendMaps& m) {
  const int width = m.region.width;
  return find_runs(width, m.region.height, Connectivity::kFour, [&](int y, std::uint8_t* row) {
    const std::size_t first = static_cast<std::size_t>(y) * width;
    const std::uint8_t* region = m.region.data + first;
    const std::uint8_t* known = m.known.data + first;
    int any = 0;
    for (int x = 0; x < width; ++x) {
      row[x] = (region[x] != 0) & !known[x];
      any |= row[x];
    }
    return any != 0;
  });
}

class Blender {
 public:
  Blender(const BlendMaps& maps, float tolerance, ImageView<float> out)
      : m_(maps), tolerance_(tolerance), out_(out), runs_(unknown_runs(maps)) {}

  SolveStats run() {
    std::copy_n(m_.values.data, static_cast<std::size_t>(out_.width) * out_.height, out_.data);
    if (runs_.empty()) return {0, 0.f};
    survey();
    Box all = components_.front().box;
    long apart = 0;
    for (const Component& c : components_) {
      all.include(c.box);
      apart += c.box.area() + kBoxOverhead;
    }
    if (apart >= all.area() + kBoxOverhead) return solve(all, 0, static_cast<int>(runs_.size()));
    SolveStats worst{0, 0.f};
    for_components(0, static_cast<int>(runs_.size()), [&](Component& c, int begin, int end) {
      const SolveStats stats = solve(c.box, begin, end);
      worst = {std::max(worst.iterations, stats.iterations),
               std::max(worst.residual, stats.residual)};
    });
    return worst;
  }

 private:
  // Components, base and range; runs sorted by component, whose index replaces their parent.
  void survey() {
    const int width = m_.region.width, height = m_.region.height;
    Range values, guidance;
    std::vector<int> component(runs_.size());
    for (int r = 0; r < static_cast<int>(runs_.size()); ++r) {
      const Run& run = runs_[r];
      const int root = find_root(runs_, r);
      const Box box{run.x0, run.y, run.x1, run.y + 1};
      if (root == r) {
        component[r] = static_cast<int>(components_.size());
        components_.push_back({r, box, false, 0.f});
      }
      component[r] = component[root];
      Component& c = components_[component[r]];
      c.box.include(box);
      const auto meet = [&](int i) {
        if (!m_.region[i] || !m_.known[i]) return;
        c.anchored = true;
        values.include(m_.values[i]);
        if (m_.guided[i]) guidance.include(m_.guidance[i]);
      };
      const int row = run.y * width;
      if (run.x0 > 0) meet(row + run.x0 - 1);
      if (run.x1 < width) meet(row + run.x1);
      for (int i = row + run.x0; i < row + run.x1; ++i) {
        if (run.y > 0) meet(i - width);
        if (run.y + 1 < height) meet(i + width);
        if (m_.guided[i]) guidance.include(m_.guidance[i]);
      }
    }
    for (std::size_t r = 0; r < runs_.size(); ++r) runs_[r].parent = component[r];
    std::stable_sort(runs_.begin(), runs_.end(),
                     [](const Run& a, const Run& b) { return a.parent < b.parent; });
    range_ = std::max(values.width(), guidance.width());
    for_components(0, static_cast<int>(runs_.size()), [&](Component& c, int begin, int end) {
      c.base = c.anchored ? 0.5f * values.low + 0.5f * values.high
                          : mean(begin, end, [&](int i) { return target(i); });
    });
  }

  // What a pixel is pulled to where nothing is known.
  float target(int i) const { return m_.guided[i] ? m_.guidance[i] : 0.f; }

  template <class Body>
  void for_components(int begin, int end, const Body& body) {
    while (begin < end) {
      int next = begin;
      while (next < end && runs_[next].parent == runs_[begin].parent) ++next;
      body(components_[runs_[begin].parent], begin, next);
      begin = next;
    }
  }

  // Mean of read(i) over the pixels of some runs.
  template <class Read>
  float mean(int begin, int end, const Read& read) const {
    double sum = 0.0;
    long n = 0;
    for (int r = begin; r < end; ++r)
      for (int x = runs_[r].x0; x < runs_[r].x1; ++x, ++n) sum += read(runs_[r].y * out_.width + x);
    return static_cast<float>(sum / static_cast<double>(n));
  }

  SolveStats solve(const Box& box, int begin, int end) {
    Multigrid solver(box.x1 - box.x0, box.y1 - box.y0, Transfer::kBilinear);
    GridLevel& g = solver.finest();
    std::vector<float> b(g.x.size(), 0.f), solved;
    for (int r = begin; r < end; ++r) {
      const Run& run = runs_[r];
      const Component& c = components_[run.parent];
      int i = g.at(run.x0 - box.x0, run.y - box.y0);
      for (int x = run.x0; x < run.x1; ++x, ++i) {
        const BlendRow row = blend_row(m_, x, run.y, c.base);
        b[i] = row.source;
        g.fixed[i] = row.fixed;
        g.right[i] = row.right ? 1.f : 0.f;
        g.below[i] = row.below ? 1.f : 0.f;
        if (c.anchored) continue;
        g.mass[i] = kFreePull;
        b[i] += kFreePull * (target(run.y * out_.width + x) - c.base);
      }
    }
    for (int y = std::max(box.y0 - 1, 0); y < std::min(box.y1 + 1, out_.height); ++y)
      for (int x = std::max(box.x0 - 1, 0); x < std::min(box.x1 + 1, out_.width); ++x)
        g.held[g.at(x - box.x0, y - box.y0)] = m_.region(x, y) && m_.known(x, y);
    solver.prepare();
    const SolveStats stats = solver.solve(b, 0.1f * tolerance_, kBlendIterations, solved,
                                          kLastGain * tolerance_ * range_);
    for (int r = begin; r < end; ++r) {
      const Run& run = runs_[r];
      const float* f = solved.data() + g.at(run.x0 - box.x0, run.y - box.y0);
      const float base = components_[run.parent].base;
      for (int x = run.x0; x < run.x1; ++x) out_(x, run.y) = base + *f++;
    }
    // The pull sets the mean, exactly; the energy hardly sees it.
    for_components(begin, end, [&](const Component& c, int first, int last) {
      if (c.anchored) return;
      const float shift = c.base - mean(first, last, [&](int i) { return out_[i]; });
      for (int r = first; r < last; ++r)
        for (int x = runs_[r].x0; x < runs_[r].x1; ++x) out_(x, runs_[r].y) += shift;
    });
    return stats;
  }

  const BlendMaps& m_;
  float tolerance_;
  ImageView<float> out_;
  std::vector<Run> runs_;
  std::vector<Component> components_;
  float range_ = 0.f;  // of the values met or of the guidance
};

}  // namespace

SolveStats blend_gradients(const BlendMaps& maps, float tolerance, ImageView<float> out) {
  return Blender(maps, tolerance, out).run();
}

}  // namespace e3d
