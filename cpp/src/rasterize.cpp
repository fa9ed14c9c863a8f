// rasterize.cpp — the host loop of the rasteriser: snap, cull and bin, then draw band by band.
#include "extreme3d/rasterize.h"

#include <vector>

#include "extreme3d/parallel.h"

namespace e3d {
namespace {

constexpr int kVertexGrain = 16384;
constexpr int kFaceGrain = 8192;
// Rows drawn by one thread at a time: 500 rows give 16 bands, enough to share out evenly, and few
// of a head's 2-pixel triangles fall into two.
constexpr int kBandRows = 32;

// Triangles to draw, by chunk of faces and band of rows.
using Bins = std::vector<std::vector<std::int32_t>>;

void bin_faces(View<const Tri> faces, const std::vector<SnappedVertex>& at, const Camera& camera,
               Faces shown, int begin, int end, std::vector<std::int32_t>* bands) {
  for (int f = begin; f < end; ++f) {
    const Tri t = faces[f];
    const SnappedVertex a = at[t.v0], b = at[t.v1], c = at[t.v2];
    if (a.x == kNoPosition || b.x == kNoPosition || c.x == kNoPosition) continue;
    const PixelBox box = pixel_box(a, b, c, camera.width, camera.height);
    if (box.empty()) continue;
    const std::int64_t area = signed_area(a, b, c);
    if (area == 0 || (area < 0 && shown == Faces::kFront)) continue;
    for (int band = box.y0 / kBandRows; band <= box.y1 / kBandRows; ++band)
      bands[band].push_back(f);
  }
}

void draw(const RasterTriangle& t, std::int32_t f, const PixelBox& box, const RasterView& out) {
  for (int y = box.y0; y <= box.y1; ++y) {
    std::int64_t w0 = t.e0.at(box.x0, y), w1 = t.e1.at(box.x0, y), w2 = t.e2.at(box.x0, y);
    for (int x = box.x0; x <= box.x1; ++x, w0 += t.e0.dx, w1 += t.e1.dx, w2 += t.e2.dx) {
      if (((w0 + t.e0.bias) | (w1 + t.e1.bias) | (w2 + t.e2.bias)) < 0) continue;
      const Vec2 uv = screen_weights(w0, w1, t.area);
      const float depth = depth_at(t, uv);
      const int p = y * out.depth.width + x;
      if (depth_key(depth, f) >= depth_key(out.depth[p], out.triangle[p])) continue;
      out.depth[p] = depth;
      out.triangle[p] = f;
      out.barycentric[p] = uv;
    }
  }
}

}  // namespace

void rasterize(MeshView mesh, const Camera& camera, Faces shown, int threads, RasterView out) {
  std::vector<SnappedVertex> at(mesh.vertices.n);
  parallel_for(mesh.vertices.n, threads, kVertexGrain, [&](int begin, int end) {
    for (int v = begin; v < end; ++v) at[v] = snap(camera, mesh.vertices[v]);
  });

  const int bands = (camera.height + kBandRows - 1) / kBandRows;
  const int chunks = (mesh.faces.n + kFaceGrain - 1) / kFaceGrain;
  Bins bins(static_cast<std::size_t>(chunks) * bands);
  parallel_for(mesh.faces.n, threads, kFaceGrain, [&](int begin, int end) {
    bin_faces(mesh.faces, at, camera, shown, begin, end,
              &bins[static_cast<std::size_t>(begin / kFaceGrain) * bands]);
  });

  parallel_for(bands, threads, 1, [&](int band, int) {
    const int y0 = band * kBandRows, y1 = std::min(camera.height, y0 + kBandRows);
    const int first = y0 * camera.width, last = y1 * camera.width;
    std::fill(out.depth.data + first, out.depth.data + last,
              std::numeric_limits<float>::infinity());
    std::fill(out.triangle.data + first, out.triangle.data + last, -1);
    std::fill(out.barycentric.data + first, out.barycentric.data + last, Vec2{0.f, 0.f});
    for (int chunk = 0; chunk < chunks; ++chunk)
      for (const std::int32_t f : bins[static_cast<std::size_t>(chunk) * bands + band]) {
        const Tri t = mesh.faces[f];
        const SnappedVertex a = at[t.v0], b = at[t.v1], c = at[t.v2];
        PixelBox box = pixel_box(a, b, c, camera.width, camera.height);
        box.y0 = std::max(box.y0, y0);
        box.y1 = std::min(box.y1, y1 - 1);
        draw(raster_triangle(a, b, c, signed_area(a, b, c)), f, box, out);
      }
  });
}

void vertex_visibility(View<const Vec3> vertices_in_camera, View<const Vec3> normals_in_camera,
                       ImageView<const float> depth, const Camera& camera,
                       VisibilityOptions options, int threads, View<std::uint8_t> visible) {
  parallel_for(vertices_in_camera.n, threads, kVertexGrain, [&](int begin, int end) {
    for (int v = begin; v < end; ++v)
      visible[v] =
          is_visible(vertices_in_camera[v], normals_in_camera[v], depth, camera, options) ? 1 : 0;
  });
}

}  // namespace e3d
