// smooth_depth.cpp — host loop of Phong tessellation along viewing rays.
#include "extreme3d/smooth_depth.h"

#include "extreme3d/parallel.h"

namespace e3d {
namespace {

constexpr int kLanes = 16;

// Pixels side by side, so that compilers make vectors of what is worked out for them.
struct Batch {
  float p[3][3][kLanes], n[3][3][kLanes];  // by corner and axis
  float u[kLanes], v[kLanes];

  void put(int lane, Tri f, Vec2 uv, View<const Vec3> vertices, View<const Vec3> normals) {
    const int corner[3] = {f.v0, f.v1, f.v2};
    for (int k = 0; k < 3; ++k) {
      const Vec3 at = vertices[corner[k]], out = normals[corner[k]];
      p[k][0][lane] = at.x, p[k][1][lane] = at.y, p[k][2][lane] = at.z;
      n[k][0][lane] = out.x, n[k][1][lane] = out.y, n[k][2][lane] = out.z;
    }
    u[lane] = uv.x, v[lane] = uv.y;
  }

  void depth(float (&z)[kLanes]) const {
    for (int l = 0; l < kLanes; ++l) {
      const Vec3 at[3] = {{p[0][0][l], p[0][1][l], p[0][2][l]},
                          {p[1][0][l], p[1][1][l], p[1][2][l]},
                          {p[2][0][l], p[2][1][l], p[2][2][l]}};
      const Vec3 out[3] = {{n[0][0][l], n[0][1][l], n[0][2][l]},
                           {n[1][0][l], n[1][1][l], n[1][2][l]},
                           {n[2][0][l], n[2][1][l], n[2][2][l]}};
      z[l] = phong_depth(at, out, {u[l], v[l]});
    }
  }
};

}  // namespace

void smooth_depth(ImageView<const float> depth, ImageView<const int> triangle,
                  ImageView<const Vec2> barycentric, View<const Vec3> vertices,
                  View<const Vec3> normals, View<const Tri> faces, int threads,
                  ImageView<float> smooth) {
  constexpr int kGrain = 8192;
  parallel_for(depth.width * depth.height, threads, kGrain, [&](int begin, int end) {
    Batch batch{};
    int pixel[kLanes], filled = 0;
    const auto flush = [&] {
      float z[kLanes];
      batch.depth(z);
      for (int l = 0; l < filled; ++l) smooth[pixel[l]] = z[l];
      filled = 0;
    };
    for (int i = begin; i < end; ++i) {
      smooth[i] = depth[i];
      if (triangle[i] < 0) continue;
      batch.put(filled, faces[triangle[i]], barycentric[i], vertices, normals);
      pixel[filled++] = i;
      if (filled == kLanes) flush();
    }
    flush();
  });
}

}  // namespace e3d
