// references.cpp — expected relief in three passes over strips of the chart: mean, slopes, sum.
#include "extreme3d/references.h"

#include <Eigen/Cholesky>
#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "extreme3d/parallel.h"

namespace e3d {
namespace {

constexpr int kWidth = kChartWidth, kHeight = kChartHeight;
constexpr int kHalfWidth = kWidth / 2, kHalfHeight = kHeight / 2;  // slopes are compared there
constexpr int kHalfPixels = kHalfWidth * kHalfHeight;
constexpr int kBlocks = kWidth / kSeenBlock;   // in a row
constexpr int kStrips = kHeight / kSeenBlock;  // rows of blocks
constexpr int kStripPixels = kWidth * kSeenBlock;
constexpr int kStripGrain = 2;
constexpr int kSlopeRows = 6;  // rows whose slopes are multiplied at a time
constexpr int kTaps = 2 * kRimReach + 1;
static_assert(kSeenBlock == 4 && kBlocks * kStrips == 8 * kSeenBytes);

using SlopeMatrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// Rows of pixels along a strip of blocks, as they are and turned over.
struct Strip {
  float mm[2][kStripPixels];
};

class Expectation {
 public:
  Expectation(const ReliefsView& references, ImageView<const float> own,
              ImageView<const std::uint8_t> seen, int threads)
      : stored_(references.stored),
        chosen_(references.chosen),
        own_(own),
        seen_(seen),
        threads_(threads),
        shows_(static_cast<std::size_t>(chosen_.n) * kStrips * kBlocks),
        mean_(kChartPixels),
        known_(kStrips * kBlocks),
        deviation_(std::make_unique_for_overwrite<float[]>(static_cast<std::size_t>(chosen_.n + 1) *
                                                           kHalfPixels)),
        used_(kHalfPixels) {}

  void run(ImageView<float> out, ImageView<std::uint8_t> valid) {
    for (int k = 0; k < chosen_.n; ++k) read_blocks(k);
    parallel_for(kStrips, threads_, kStripGrain, [&](int begin, int end) {
      for (int strip = begin; strip < end; ++strip) {
        average(strip);
        const Strip mean = mean_along(strip);
        for (int row = 0; row < kSeenBlock; row += 2) {
          const Range used = deviate_own(strip, row);
          for (int k = 0; k < chosen_.n; ++k) deviate(strip, row, k, mean, used);
        }
      }
    });
    const std::vector<float> coefficients = regression();
    const std::vector<std::uint8_t> rim = own_counts();
    parallel_for(kStrips, threads_, kStripGrain, [&](int begin, int end) {
      for (int strip = begin; strip < end; ++strip) combine(strip, coefficients, rim, out, valid);
    });
  }

 private:
  const StoredRelief& reference(int k) const { return stored_[chosen_[k] >> 1]; }
  bool is_mirrored(int k) const { return chosen_[k] & 1; }

  // (kBlocks,) whether a reference, not mirrored, shows the blocks of a strip.
  const std::uint8_t* shows(int k, int strip) const {
    return shows_.data() + (static_cast<std::size_t>(k) * kStrips + strip) * kBlocks;
  }

  void read_blocks(int k) {
    std::uint8_t* to = shows_.data() + static_cast<std::size_t>(k) * kStrips * kBlocks;
    for (const std::uint8_t byte : reference(k).seen)
      for (int bit = 7; bit >= 0; --bit) *to++ = byte >> bit & 1;
  }

  // mm of a reference; rounded as in the sums of `average`, so that what a single one differs by
  // from its mean is 0. The fma with 0 rounds the product by itself.
  static float mm(const StoredRelief& r, std::uint8_t level) {
    return std::fma(r.step, static_cast<float>(level), 0.f) + r.zero;
  }

  // Those that are mirrored are summed up as they are stored, then turned over.
  void average(int strip) {
    Strip total = {};
    float zeros[2][kBlocks] = {};
    int counts[2][kBlocks] = {};
    for (int k = 0; k < chosen_.n; ++k) {
      const StoredRelief& r = reference(k);
      const std::uint8_t* shown = shows(k, strip);
      const std::uint8_t* level = r.level + strip * kStripPixels;
      float* to = total.mm[is_mirrored(k)];
      float* zero = zeros[is_mirrored(k)];
      int* count = counts[is_mirrored(k)];
      float step[kWidth];
      for (int b = 0; b < kBlocks; ++b) {
        const float share = shown[b] ? 1.f : kUnseen;
        zero[b] += share * r.zero;
        count[b] += shown[b];
        std::fill_n(step + b * kSeenBlock, kSeenBlock, share * r.step);
      }
      for (int row = 0; row < kStripPixels; row += kWidth)
        for (int x = 0; x < kWidth; ++x)
          to[row + x] += step[x] * static_cast<float>(level[row + x]);
    }
    float* mean = mean_.data() + strip * kStripPixels;
    for (int b = 0; b < kBlocks; ++b) {
      const int over = kBlocks - 1 - b, count = counts[0][b] + counts[1][over];
      const float zero = zeros[0][b] + zeros[1][over];
      const float shares =
          static_cast<float>(count) + kUnseen * static_cast<float>(chosen_.n - count);
      known_[strip * kBlocks + b] =
          static_cast<float>(count) >= kEnough * static_cast<float>(chosen_.n);
      for (int row = 0; row < kStripPixels; row += kWidth)
        for (int x = b * kSeenBlock; x < (b + 1) * kSeenBlock; ++x)
          mean[row + x] =
              (total.mm[0][row + x] + total.mm[1][row + kWidth - 1 - x] + zero) / shares;
    }
  }

  Strip mean_along(int strip) const {
    const float* mean = mean_.data() + strip * kStripPixels;
    Strip along;
    std::copy_n(mean, kStripPixels, along.mm[0]);
    for (int row = 0; row < kStripPixels; row += kWidth)
      std::reverse_copy(mean + row, mean + row + kWidth, along.mm[1] + row);
    return along;
  }

  // Columns [first, end) at half the resolution.
  struct Range {
    int first, end;
  };

  // The face's own deviation from the mean where it is seen, of two rows at half the resolution,
  // and where slopes count; returns the columns between which they do.
  Range deviate_own(int strip, int row) {
    const int first = strip * kStripPixels + row * kWidth, half = first / kWidth / 2;
    float* to = half_row(chosen_.n, half);
    Range range{kHalfWidth, 0};
    for (int x = 0; x < kHalfWidth; ++x) {
      float sum = 0.f;
      bool all = known_[strip * kBlocks + 2 * x / kSeenBlock];
      for (const int i :
           {first + 2 * x, first + 2 * x + 1, first + kWidth + 2 * x, first + kWidth + 2 * x + 1}) {
        all = all && seen_[i];
        if (seen_[i]) sum += own_[i] - mean_[i];
      }
      to[x] = 0.25f * sum;
      used_[half * kHalfWidth + x] = all;
      if (all) range = {std::min(range.first, x), x + 1};
    }
    return range;
  }

  // The same of a reference, where slopes count.
  void deviate(int strip, int row, int k, const Strip& mean, Range used) {
    if (used.first >= used.end) return;
    const bool mirrored = is_mirrored(k);
    const Range from = mirrored ? Range{kHalfWidth - used.end, kHalfWidth - used.first} : used;
    const StoredRelief& r = reference(k);
    const std::uint8_t* shown = shows(k, strip);
    const std::uint8_t* level = r.level + strip * kStripPixels + row * kWidth;
    const float* less = mean.mm[mirrored] + row * kWidth;
    float two[kWidth];
    for (int x = 2 * from.first; x < 2 * from.end; ++x)
      two[x] = (mm(r, level[x]) - less[x]) + (mm(r, level[kWidth + x]) - less[kWidth + x]);
    float half[kHalfWidth];
    for (int x = from.first; x < from.end; ++x)
      half[x] = (shown[2 * x / kSeenBlock] ? 0.25f : 0.f) * (two[2 * x] + two[2 * x + 1]);
    float* to = half_row(k, (strip * kSeenBlock + row) / 2) + used.first;
    if (mirrored)
      std::reverse_copy(half + from.first, half + from.end, to);
    else
      std::copy(half + from.first, half + from.end, to);
  }

  float* half_row(int k, int y) const {
    return deviation_.get() + static_cast<std::size_t>(k) * kHalfPixels + y * kHalfWidth;
  }

  // Runs of pixels of a row with a used one to their right, or below.
  struct Run {
    int first, end;  // flat indices at half the resolution
    int step;        // to the neighbour
  };

  void find_runs(int y, int step, std::vector<Run>& runs) const {
    const int row = y * kHalfWidth, end = row + kHalfWidth - (step == 1);
    if (step > 1 && y + 1 == kHalfHeight) return;
    for (int i = row; i < end; ++i) {
      const int first = i;
      while (i < end && used_[i] && used_[i + step]) ++i;
      if (i > first) runs.push_back({first, i, step});
    }
  }

  // Products of the slopes of all references and the face itself, some rows.
  Eigen::MatrixXd products(int begin, int end) const {
    std::vector<Run> runs;
    for (int y = begin; y < end; ++y) {
      find_runs(y, 1, runs);
      find_runs(y, kHalfWidth, runs);
    }
    int count = 0;
    for (const Run& run : runs) count += run.end - run.first;
    const int n = chosen_.n + 1;
    SlopeMatrix slopes(n, count);
    for (int k = 0; k < n; ++k) {
      const float* from = half_row(k, 0);
      float* to = slopes.row(k).data();
      for (const Run& run : runs)
        for (int i = run.first; i < run.end; ++i) *to++ = from[i + run.step] - from[i];
    }
    Eigen::MatrixXf product = Eigen::MatrixXf::Zero(n, n);
    product.selfadjointView<Eigen::Lower>().rankUpdate(slopes);
    return product.cast<double>();
  }

  // How much of each reference's deviation explains the slopes seen: ridge regression.
  std::vector<float> regression() const {
    const int n = chosen_.n, chunks = (kHalfHeight + kSlopeRows - 1) / kSlopeRows;
    std::vector<Eigen::MatrixXd> part(chunks);
    parallel_for(kHalfHeight, threads_, kSlopeRows,
                 [&](int begin, int end) { part[begin / kSlopeRows] = products(begin, end); });
    Eigen::MatrixXd gram = Eigen::MatrixXd::Zero(n + 1, n + 1);
    for (const Eigen::MatrixXd& p : part) gram += p;
    const Eigen::VectorXd wanted = gram.row(n).head(n).transpose();
    const double prior = kPrior * gram.diagonal().head(n).sum() / n;
    gram.diagonal().array() += prior + std::numeric_limits<float>::min();
    const Eigen::VectorXd solved =
        gram.topLeftCorner(n, n).selfadjointView<Eigen::Lower>().llt().solve(wanted);
    std::vector<float> coefficients(n);
    for (int k = 0; k < n; ++k) coefficients[k] = static_cast<float>(solved[k]);
    return coefficients;
  }

  // How many of the kTaps² pixels round each have a mirror image that is seen with its rim.
  // Beyond the borders the image is mirrored, which to an erosion is as if it ended there.
  std::vector<std::uint8_t> own_counts() const {
    std::vector<std::uint8_t> rows(kChartPixels), counts(kChartPixels);
    std::uint8_t line[kWidth + 2 * kRimReach];
    const auto pad = [&] {
      for (int d = 1; d <= kRimReach; ++d) {
        line[kRimReach - d] = line[kRimReach + d];
        line[kRimReach + kWidth - 1 + d] = line[kRimReach + kWidth - 1 - d];
      }
    };
    // eroded along rows, then along columns
    for (int row = 0; row < kChartPixels; row += kWidth) {
      for (int x = 0; x < kWidth; ++x) line[kRimReach + x] = seen_[row + kWidth - 1 - x];
      pad();
      for (int x = 0; x < kWidth; ++x) {
        std::uint8_t all = 1;
        for (int d = 0; d < kTaps; ++d) all &= line[x + d];
        rows[row + x] = all;
      }
    }
    for (int y = 0; y < kHeight; ++y) {
      std::uint8_t* to = counts.data() + y * kWidth;
      std::fill_n(to, kWidth, std::uint8_t{1});
      for (int d = -kRimReach; d <= kRimReach; ++d) {
        const std::uint8_t* from = rows.data() + reflected(y + d, kHeight) * kWidth;
        for (int x = 0; x < kWidth; ++x) to[x] &= from[x];
      }
    }
    // counted along rows, then along columns
    for (int row = 0; row < kChartPixels; row += kWidth) {
      std::copy_n(counts.data() + row, kWidth, line + kRimReach);
      pad();
      for (int x = 0; x < kWidth; ++x) {
        std::uint8_t sum = 0;
        for (int d = 0; d < kTaps; ++d) sum += line[x + d];
        rows[row + x] = sum;
      }
    }
    std::fill(counts.begin(), counts.end(), std::uint8_t{0});
    for (int y = 0; y < kHeight; ++y) {
      std::uint8_t* to = counts.data() + y * kWidth;
      for (int d = -kRimReach; d <= kRimReach; ++d) {
        const std::uint8_t* from = rows.data() + reflected(y + d, kHeight) * kWidth;
        for (int x = 0; x < kWidth; ++x) to[x] += from[x];
      }
    }
    return counts;
  }

  void combine(int strip, const std::vector<float>& coefficients,
               const std::vector<std::uint8_t>& rim, ImageView<float> out,
               ImageView<std::uint8_t> valid) const {
    const Strip mean = mean_along(strip);
    Strip deviation = {};
    for (int k = 0; k < chosen_.n; ++k) {
      const StoredRelief& r = reference(k);
      const std::uint8_t* shown = shows(k, strip);
      const std::uint8_t* level = r.level + strip * kStripPixels;
      const float* less = mean.mm[is_mirrored(k)];
      float* to = deviation.mm[is_mirrored(k)];
      float share[kWidth];
      for (int b = 0; b < kBlocks; ++b)
        std::fill_n(share + b * kSeenBlock, kSeenBlock, shown[b] ? coefficients[k] : 0.f);
      for (int row = 0; row < kStripPixels; row += kWidth)
        for (int x = 0; x < kWidth; ++x)
          to[row + x] += share[x] * (mm(r, level[row + x]) - less[row + x]);
    }
    for (int row = 0; row < kStripPixels; row += kWidth)
      for (int x = 0; x < kWidth; ++x) {
        const int first = strip * kStripPixels + row, i = first + x, other = first + kWidth - 1 - x;
        const float expected =
            mean.mm[0][row + x] + deviation.mm[0][row + x] + deviation.mm[1][row + kWidth - 1 - x];
        const float share = kOwnMirrored * static_cast<float>(rim[i]) / float(kTaps * kTaps);
        out[i] = rim[i] ? expected + share * (own_[other] - expected) : expected;
        valid[i] = known_[strip * kBlocks + x / kSeenBlock] || seen_[other];
      }
  }

  View<const StoredRelief> stored_;
  View<const std::int32_t> chosen_;
  ImageView<const float> own_;
  ImageView<const std::uint8_t> seen_;
  int threads_;
  std::vector<std::uint8_t> shows_;  // (n, kStrips, kBlocks)
  std::vector<float> mean_;          // mm
  std::vector<std::uint8_t> known_;  // (kStrips, kBlocks)
  // of each reference and of the face itself, at half the resolution
  std::unique_ptr<float[]> deviation_;  // (n + 1, kHalfHeight, kHalfWidth)
  std::vector<std::uint8_t> used_;
};

}  // namespace

void expected_relief(const ReliefsView& references, ImageView<const float> own,
                     ImageView<const std::uint8_t> seen, int threads, ImageView<float> out,
                     ImageView<std::uint8_t> valid) {
  Expectation(references, own, seen, threads).run(out, valid);
}

}  // namespace e3d
