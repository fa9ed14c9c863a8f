// registration.cpp — the host loops of the registration and of its inverse.
#include "extreme3d/registration.h"

#include <algorithm>
#include <limits>

#include "extreme3d/parallel.h"

namespace e3d {
namespace {

constexpr int kPixelGrain = 16384;

}  // namespace

void register_dense(ImageView<const std::int32_t> triangle, ImageView<const Vec2> barycentric,
                    ImageView<const std::int32_t> vertex_of_pixel, View<const Vec3> dense,
                    MeshView sparse_mesh, int threads, RegistrationView out) {
  std::fill(out.triangle.data, out.triangle.data + dense.n, -1);
  std::fill(out.uv.data, out.uv.data + dense.n, Vec2{0.f, 0.f});
  std::fill(out.residual.data, out.residual.data + dense.n, Vec3{0.f, 0.f, 0.f});
  parallel_for(triangle.width * triangle.height, threads, kPixelGrain, [&](int begin, int end) {
    for (int p = begin; p < end; ++p) {
      const int v = vertex_of_pixel[p], face = triangle[p];
      if (v < 0 || face < 0) continue;
      out.triangle[v] = face;
      out.uv[v] = barycentric[p];
      out.residual[v] = dense[v] - interpolate(sparse_mesh, face, barycentric[p]);
    }
  });
}

void recover_dense(ConstRegistrationView registration, MeshView sparse_mesh, int threads,
                   View<Vec3> out) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  parallel_for(out.n, threads, kPixelGrain, [&](int begin, int end) {
    for (int v = begin; v < end; ++v) {
      const int face = registration.triangle[v];
      out[v] = face < 0
                   ? Vec3{kNan, kNan, kNan}
                   : interpolate(sparse_mesh, face, registration.uv[v]) + registration.residual[v];
    }
  });
}

}  // namespace e3d
