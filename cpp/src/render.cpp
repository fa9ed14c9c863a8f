// render.cpp — the host's loops over the pixels of a view.
#include "extreme3d/render.h"

#include <vector>

#include "extreme3d/mesh.h"
#include "extreme3d/parallel.h"
#include "extreme3d/rasterize.h"
#include "extreme3d/view_shading.h"

namespace e3d {
namespace {

constexpr int kRowGrain = 8;

template <class PixelAt>
void for_each_pixel(int width, int height, int threads, const PixelAt& pixel_at) {
  parallel_for(height, threads, kRowGrain, [&](int begin, int end) {
    for (int y = begin; y < end; ++y)
      for (int x = 0; x < width; ++x) pixel_at(x, y);
  });
}

const SrgbTables& srgb() {
  static const SrgbTables tables = srgb_tables();
  return tables;
}

}  // namespace

void render(MeshView mesh_in_camera, View<const Rgb> colors, const Camera& camera,
            const RenderStyle& style, int threads, ImageView<Rgb> out) {
  const int s = style.supersample;
  const int width = camera.width, height = camera.height;
  const Camera fine{camera.fx * s, camera.fy * s, camera.cx * s,
                    camera.cy * s, width * s,     height * s};
  const auto samples = static_cast<std::size_t>(fine.width) * fine.height;
  std::vector<float> depth(samples);
  std::vector<std::int32_t> triangle(samples);
  std::vector<Vec2> weights(samples);
  rasterize(mesh_in_camera, fine, Faces::kBoth, threads,
            {{depth.data(), fine.width, fine.height},
             {triangle.data(), fine.width, fine.height},
             {weights.data(), fine.width, fine.height}});

  std::vector<float> pixel_depth(static_cast<std::size_t>(width) * height), raw(pixel_depth.size()),
      open(pixel_depth.size());
  const ImageView<const float> fine_depth{depth.data(), fine.width, fine.height};
  const ImageView<float> depth_view{pixel_depth.data(), width, height};
  const ImageView<const float> mesh_depth{pixel_depth.data(), width, height};
  const ImageView<const float> raw_view{raw.data(), width, height};
  const OcclusionDirections directions = occlusion_directions();
  for_each_pixel(width, height, threads,
                 [&](int x, int y) { depth_view(x, y) = middle_depth(fine_depth, s, x, y); });
  for_each_pixel(width, height, threads, [&](int x, int y) {
    raw[y * width + x] = openness(mesh_depth, camera, directions, x, y);
  });
  for_each_pixel(width, height, threads, [&](int x, int y) {
    open[y * width + x] = smooth_openness(mesh_depth, raw_view, x, y);
  });

  const int n = mesh_in_camera.vertices.n;
  std::vector<Vec3> normals(n);
  const Csr faces_of = vertex_faces(mesh_in_camera.faces, n);
  vertex_normals(mesh_in_camera, view(faces_of), threads, {normals.data(), n});
  const ShadedMesh mesh{mesh_in_camera, {normals.data(), n}, colors};
  const SampleView of_samples{{triangle.data(), fine.width, fine.height},
                              {weights.data(), fine.width, fine.height}};
  const SrgbTables& tables = srgb();
  for_each_pixel(width, height, threads, [&](int x, int y) {
    out(x, y) = shaded_pixel(mesh, of_samples, tables, style, open[y * width + x], x, y);
  });
}

}  // namespace e3d
