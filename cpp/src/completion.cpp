// completion.cpp — host loop of Eq. 10.
#include "extreme3d/completion.h"

#include "extreme3d/parallel.h"

namespace e3d {

DenseCompletion complete_dense(View<const int> triangle, View<const Vec2> uv,
                               View<const Vec3> residual, View<const Vec3> sparse,
                               View<const Tri> faces, View<const int> mirror,
                               View<const std::uint8_t> recovered, int threads) {
  constexpr int kGrain = 8192;
  const CompletedView completed{sparse, faces, mirror, recovered};
  DenseCompletion out{std::vector<Vec3>(triangle.n), std::vector<std::uint8_t>(triangle.n, 0)};
  parallel_for(triangle.n, threads, kGrain, [&](int begin, int end) {
    for (int i = begin; i < end; ++i)
      out.defined[i] = reflect_dense(completed, triangle[i], uv[i], residual[i], out.vertices[i]);
  });
  return out;
}

}  // namespace e3d
