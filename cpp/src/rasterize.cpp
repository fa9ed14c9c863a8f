// rasterize.cpp — the host loop of the rasteriser: snap, cull and bin, then draw band by band.
#include "extreme3d/rasterize.h"

#include <algorithm>
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
    const std::int64_t area = signed_area<std::int64_t>(a, b, c);
    if (area == 0 || (area < 0 && shown == Faces::kFront)) continue;
    const PixelBox box = pixel_box(a, b, c, camera.width, camera.height);
    if (box.empty()) continue;
    for (int band = box.y0 / kBandRows; band <= box.y1 / kBandRows; ++band)
      bands[band].push_back(f);
  }
}

template <class Int>
void draw_pixel(const RasterTriangle<Int>& t, std::int32_t f, Int w0, Int w1, int p,
                const RasterView& out) {
  const Vec2 uv = screen_weights(t, w0, w1);
  const float depth = depth_at(t, uv);
  if (depth_key(depth, f) >= depth_key(out.depth[p], out.triangle[p])) return;
  out.depth[p] = depth;
  out.triangle[p] = f;
  out.barycentric[p] = uv;
}

void draw_large(const RasterTriangle<std::int64_t>& t, std::int32_t f, const PixelBox& box,
                const RasterView& out) {
  for (int y = box.y0; y <= box.y1; ++y) {
    std::int64_t w0 = t.e0.value + (y - box.y0) * t.e0.dy;
    std::int64_t w1 = t.e1.value + (y - box.y0) * t.e1.dy;
    for (int x = box.x0; x <= box.x1; ++x, w0 += t.e0.dx, w1 += t.e1.dx)
      if (is_inside(t, w0, w1)) draw_pixel(t, f, w0, w1, y * out.depth.width + x, out);
  }
}

// Most triangles of a head cover one to three pixels, in a box that one tile of 4 × 4 holds. A
// tile's coverage is worked out without branches (two vectors of eight), since guesses at loop ends
// and edges would cost more than the arithmetic.
constexpr int kTile = 4;

// Bit 4 y + x for each pixel of the tile whose first pixel has edge values w0 and w1.
std::uint32_t tile_coverage(const RasterTriangle<std::int32_t>& t, std::int32_t w0,
                            std::int32_t w1) {
  std::uint32_t covered = 0;
  for (int k = 0; k < kTile * kTile; ++k) {
    const std::int32_t x = k % kTile, y = k / kTile;
    covered |=
        std::uint32_t(is_inside(t, w0 + x * t.e0.dx + y * t.e0.dy, w1 + x * t.e1.dx + y * t.e1.dy))
        << k;
  }
  return covered;
}

void draw_small(const RasterTriangle<std::int32_t>& t, std::int32_t f, const PixelBox& box,
                const RasterView& out) {
  for (int ty = box.y0; ty <= box.y1; ty += kTile)
    for (int tx = box.x0; tx <= box.x1; tx += kTile) {
      const std::int32_t w0 = t.e0.value + (tx - box.x0) * t.e0.dx + (ty - box.y0) * t.e0.dy;
      const std::int32_t w1 = t.e1.value + (tx - box.x0) * t.e1.dx + (ty - box.y0) * t.e1.dy;
      // The box may end within the tile; where image or band cut it, the triangle goes on.
      const int columns = std::min(kTile, box.x1 - tx + 1), rows = std::min(kTile, box.y1 - ty + 1);
      const std::uint32_t in_box = ((1u << columns) - 1) * 0x1111u & ((1u << kTile * rows) - 1);
      for (std::uint32_t covered = tile_coverage(t, w0, w1) & in_box; covered;
           covered &= covered - 1) {
        const int k = std::countr_zero(covered), x = k % kTile, y = k / kTile;
        draw_pixel(t, f, w0 + x * t.e0.dx + y * t.e0.dy, w1 + x * t.e1.dx + y * t.e1.dy,
                   (ty + y) * out.depth.width + tx + x, out);
      }
    }
}

void draw(SnappedVertex a, SnappedVertex b, SnappedVertex c, std::int32_t f, const PixelBox& box,
          const RasterView& out) {
  if (is_small(a, b, c))
    draw_small(raster_triangle<std::int32_t>(a, b, c, box.x0, box.y0), f, box, out);
  else
    draw_large(raster_triangle<std::int64_t>(a, b, c, box.x0, box.y0), f, box, out);
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
        draw(a, b, c, f, box, out);
      }
  });
}

void interpolate_on_screen(ImageView<const std::int32_t> triangle,
                           ImageView<const Vec2> barycentric, View<const float> values,
                           View<const Tri> faces, int threads, ImageView<float> image) {
  constexpr int kPixelGrain = 16384;
  parallel_for(image.width * image.height, threads, kPixelGrain, [&](int begin, int end) {
    for (int i = begin; i < end; ++i)
      image[i] =
          triangle[i] < 0 ? 0.f : interpolate_pixel(faces[triangle[i]], barycentric[i], values);
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

void pixels_of_vertices(View<const Vec3> vertices_in_camera, const Camera& camera, int threads,
                        View<std::int32_t> pixels) {
  parallel_for(pixels.n, threads, kVertexGrain, [&](int begin, int end) {
    for (int v = begin; v < end; ++v) pixels[v] = pixel_of(vertices_in_camera[v], camera);
  });
}

}  // namespace e3d
