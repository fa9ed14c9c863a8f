// dense.cpp — the dense mesh in three passes over rows: cut the blocks, number the pixels, write.
#include "extreme3d/dense.h"

#include <algorithm>
#include <numeric>

#include "extreme3d/parallel.h"

namespace e3d {
namespace {

constexpr int kPixelGrain = 65536;
constexpr int kRowGrain = 32;

int triangles(std::uint8_t cut) { return (cut & kFirst ? 1 : 0) + (cut & kSecond ? 1 : 0); }

}  // namespace

void compose_depth(View<const float> depth, View<const float> bump, int threads, View<float> out) {
  parallel_for(depth.n, threads, kPixelGrain, [&](int begin, int end) {
    for (int p = begin; p < end; ++p) out[p] = detailed_depth(depth[p], bump[p]);
  });
}

DenseMesh dense_mesh(ImageView<const float> depth, const Camera& camera, float max_slope,
                     int threads, ImageView<std::int32_t> vertex_of_pixel) {
  const int w = depth.width, h = depth.height;
  const DepthSteps steps = depth_steps(camera, max_slope);

  // Block (x, y) has pixel (x, y) top left. One column and one row of empty blocks round the image
  // spare the border its special cases: cuts[(y + 1) * stride + x + 1].
  const int stride = w + 1;
  std::vector<std::uint8_t> cuts(static_cast<std::size_t>(stride) * (h + 1), 0);
  std::vector<std::int32_t> first_face(h + 1, 0), first_vertex(h + 1, 0);
  parallel_for(h - 1, threads, kRowGrain, [&](int begin, int end) {
    for (int y = begin; y < end; ++y) {
      std::uint8_t* row = &cuts[static_cast<std::size_t>(y + 1) * stride + 1];
      int count = 0;
      for (int x = 0; x + 1 < w; ++x) {
        row[x] =
            cut_block(depth(x, y), depth(x + 1, y), depth(x, y + 1), depth(x + 1, y + 1), steps);
        count += triangles(row[x]);
      }
      first_face[y + 1] = count;
    }
  });
  const auto is_used = [&](int x, int y) {
    const std::uint8_t* above = &cuts[static_cast<std::size_t>(y) * stride + x];
    const std::uint8_t* below = above + stride;
    return ((used_corners(above[0]) & 8) | (used_corners(above[1]) & 4) |
            (used_corners(below[0]) & 2) | (used_corners(below[1]) & 1)) != 0;
  };
  parallel_for(h, threads, kRowGrain, [&](int begin, int end) {
    for (int y = begin; y < end; ++y) {
      int count = 0;
      for (int x = 0; x < w; ++x) vertex_of_pixel(x, y) = is_used(x, y) ? count++ : -1;
      first_vertex[y + 1] = count;
    }
  });
  std::partial_sum(first_face.begin(), first_face.end(), first_face.begin());
  std::partial_sum(first_vertex.begin(), first_vertex.end(), first_vertex.begin());

  DenseMesh mesh;
  mesh.vertices.resize(first_vertex[h]);
  mesh.faces.resize(first_face[h]);
  parallel_for(h, threads, kRowGrain, [&](int begin, int end) {
    for (int y = begin; y < end; ++y)
      for (int x = 0; x < w; ++x) {
        std::int32_t& v = vertex_of_pixel(x, y);
        if (v < 0) continue;
        v += first_vertex[y];
        mesh.vertices[v] = unproject(camera, {x + 0.5f, y + 0.5f}, depth(x, y));
      }
  });
  parallel_for(h - 1, threads, kRowGrain, [&](int begin, int end) {
    for (int y = begin; y < end; ++y) {
      const std::uint8_t* row = &cuts[static_cast<std::size_t>(y + 1) * stride + 1];
      Tri* out = mesh.faces.data() + first_face[y];
      for (int x = 0; x + 1 < w; ++x) {
        const std::uint8_t cut = row[x];
        const std::int32_t v00 = vertex_of_pixel(x, y), v10 = vertex_of_pixel(x + 1, y),
                           v01 = vertex_of_pixel(x, y + 1), v11 = vertex_of_pixel(x + 1, y + 1);
        const bool main = cut & kMainDiagonal;
        if (cut & kFirst) *out++ = main ? Tri{v00, v01, v11} : Tri{v00, v01, v10};
        if (cut & kSecond) *out++ = main ? Tri{v00, v11, v10} : Tri{v10, v01, v11};
      }
    }
  });
  return mesh;
}

}  // namespace e3d
