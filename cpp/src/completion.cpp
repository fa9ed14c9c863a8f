// completion.cpp — host loop of Eq. 10.
#include "extreme3d/completion.h"

#include "extreme3d/parallel.h"

namespace e3d {

DenseCompletion complete_dense(View<const int> triangle, View<const Vec2> uv,
                               View<const Vec3> residual, View<const Vec3> sparse,
                               View<const Tri> faces, View<const int> mirror,
                               View<const std::uint8_t> recovered, int threads) {
  constexpr int kGrain = 8192;
  DenseCompletion out{std::vector<Vec3>(triangle.n), std::vector<std::uint8_t>(triangle.n, 0)};
  parallel_for(triangle.n, threads, kGrain, [&](int begin, int end) {
    for (int i = begin; i < end; ++i) {
      if (triangle[i] < 0) continue;
      const Tri f = faces[triangle[i]];
      const int m1 = mirror[f.v0], m2 = mirror[f.v1], m3 = mirror[f.v2];
      if (!(recovered[m1] || recovered[m2] || recovered[m3])) continue;
      out.vertices[i] = reflect_registered(uv[i], sparse[m1], sparse[m2], sparse[m3], residual[i]);
      out.defined[i] = 1;
    }
  });
  return out;
}

}  // namespace e3d
