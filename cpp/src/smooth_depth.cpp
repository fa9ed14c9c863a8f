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
    for (int i = begin; i < end; ++i)
      if (triangle[i] >= 0)
        smooth[i] = smooth_pixel(faces[triangle[i]], barycentric[i], vertices, normals);
  });
  return smooth;
}

}  // namespace e3d
