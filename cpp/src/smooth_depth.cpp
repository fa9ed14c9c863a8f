// smooth_depth.cpp — host loop of Phong tessellation along viewing rays.
#include "extreme3d/smooth_depth.h"

#include "extreme3d/parallel.h"

namespace e3d {

std::vector<float> smooth_depth(ImageView<const float> depth, ImageView<const int> triangle,
                                ImageView<const Vec2> barycentric, View<const Vec3> vertices,
                                View<const Vec3> normals, View<const Tri> faces, int threads) {
  constexpr int kGrain = 8192;
  const int n_pixels = depth.width * depth.height;
  std::vector<float> smooth(depth.data, depth.data + n_pixels);
  parallel_for(n_pixels, threads, kGrain, [&](int begin, int end) {
    for (int i = begin; i < end; ++i) {
      if (triangle[i] < 0) continue;
      const Tri f = faces[triangle[i]];
      const Vec3 p[3] = {vertices[f.v0], vertices[f.v1], vertices[f.v2]};
      const Vec3 n[3] = {normals[f.v0], normals[f.v1], normals[f.v2]};
      const Vec2 uv = barycentric[i];
      // weights on the screen divided by depth are weights on the surface
      float b[3] = {uv.x / p[0].z, uv.y / p[1].z, (1.f - uv.x - uv.y) / p[2].z};
      const float sum = b[0] + b[1] + b[2];
      for (float& w : b) w /= sum;
      smooth[i] = phong_depth(p, n, b);
    }
  });
  return smooth;
}

}  // namespace e3d
