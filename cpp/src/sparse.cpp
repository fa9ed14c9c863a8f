// sparse.cpp — the host loop of the dense-to-sparse conversion.
#include "extreme3d/sparse.h"

#include "extreme3d/parallel.h"

namespace e3d {
namespace {

constexpr int kVertexGrain = 8192;

}  // namespace

void sparse_from_dense(View<const Vec3> vertices_in_camera, View<const std::uint8_t> visible,
                       ImageView<const float> bump, ImageView<const std::uint8_t> valid,
                       const Camera& camera, int threads, View<Vec3> out,
                       View<std::uint8_t> moved) {
  parallel_for(vertices_in_camera.n, threads, kVertexGrain, [&](int begin, int end) {
    for (int v = begin; v < end; ++v) {
      out[v] = vertices_in_camera[v];
      moved[v] = visible[v] && follow_bump(bump, valid, camera, out[v]);
    }
  });
}

}  // namespace e3d
