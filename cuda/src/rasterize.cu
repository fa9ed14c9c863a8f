// rasterize.cu — the z-buffer as one atomic minimum a pixel, then kernels over what it holds.
#include "extreme3d/cuda/grid.h"
#include "extreme3d/cuda/rasterize.h"

namespace e3d::cuda {
namespace {

// A face is drawn by its own thread if its box has no more pixels: no thread of a warp waits long.
// Heads in crops of 500 px have nothing larger.
constexpr int kOwnPixels = 64;
// Threads that share a large face, and all that draw such.
constexpr int kTeam = 256;
constexpr int kLargeThreads = 256 * kTeam;

using Key = unsigned long long;  // which atomics take

E3D_HD inline Camera camera_of(View<const float> pinhole, int width, int height) {
  return {pinhole[0], pinhole[1], pinhole[2], pinhole[3], width, height};
}

// What the kernels of one mesh share.
struct RasterJob {
  View<const Vec3> in_camera;
  View<const Tri> faces;
  View<const float> pinhole;
  Faces shown;
  int width, height;
  View<SnappedVertex> vertices;
  View<Key> keys;
  View<std::int32_t> large;
  View<std::int32_t> large_count;
};

struct Corners {
  SnappedVertex a, b, c;
};

E3D_HD inline Corners corners_of(const RasterJob& job, int f) {
  const Tri t = job.faces[f];
  return {job.vertices[t.v0], job.vertices[t.v1], job.vertices[t.v2]};
}

E3D_HD inline PixelBox box_of(const RasterJob& job, const Corners& t) {
  return pixel_box(t.a, t.b, t.c, job.width, job.height);
}

E3D_HD inline bool is_shown(const RasterJob& job, const Corners& t) {
  if (t.a.x == kNoPosition || t.b.x == kNoPosition || t.c.x == kNoPosition) return false;
  const std::int64_t area = signed_area<std::int64_t>(t.a, t.b, t.c);
  return area > 0 || (area < 0 && job.shown == Faces::kBoth);
}

E3D_KERNEL snap_kernel(RasterJob job) {
  const int i = thread_index();
  if (i == 0) job.large_count[0] = 0;
  if (i < job.in_camera.n)
    job.vertices[i] = snap(camera_of(job.pinhole, job.width, job.height), job.in_camera[i]);
  if (i < job.keys.n) job.keys[i] = depth_key(std::numeric_limits<float>::infinity(), -1);
}

// Every `step`-th pixel of a face's box from the `first` on.
template <class Int>
__device__ void draw(const RasterJob& job, const Corners& corners, int f, const PixelBox& box,
                     int first, int step) {
  const RasterTriangle<Int> t =
      raster_triangle<Int>(corners.a, corners.b, corners.c, box.x0, box.y0);
  const int columns = box.x1 - box.x0 + 1, count = columns * (box.y1 - box.y0 + 1);
  for (int k = first; k < count; k += step) {
    const int y = k / columns, x = k - y * columns;
    const Int w0 = t.e0.value + x * t.e0.dx + y * t.e0.dy;
    const Int w1 = t.e1.value + x * t.e1.dx + y * t.e1.dy;
    if (!is_inside(t, w0, w1)) continue;
    const Key key = depth_key(depth_at(t, screen_weights(t, w0, w1)), f);
    Key& nearest = job.keys[(box.y0 + y) * job.width + box.x0 + x];
    if (key < nearest) atomic_min(&nearest, key);
  }
}

__device__ inline void draw_part(const RasterJob& job, const Corners& t, int f, const PixelBox& box,
                                 int first, int step) {
  if (is_small(t.a, t.b, t.c))
    draw<std::int32_t>(job, t, f, box, first, step);
  else
    draw<std::int64_t>(job, t, f, box, first, step);
}

E3D_KERNEL draw_kernel(RasterJob job) {
  const int f = thread_index();
  if (f >= job.faces.n) return;
  const Corners t = corners_of(job, f);
  if (!is_shown(job, t)) return;
  const PixelBox box = box_of(job, t);
  if (box.empty()) return;
  if ((box.x1 - box.x0 + 1) * (box.y1 - box.y0 + 1) > kOwnPixels)
    job.large[atomic_add(&job.large_count[0], 1)] = f;
  else
    draw_part(job, t, f, box, 0, 1);
}

E3D_KERNEL draw_large_kernel(RasterJob job) {
  const int lane = thread_index() % kTeam;
  for (int k = thread_index() / kTeam; k < job.large_count[0]; k += kLargeThreads / kTeam) {
    const int f = job.large[k];
    const Corners t = corners_of(job, f);
    draw_part(job, t, f, box_of(job, t), lane, kTeam);
  }
}

E3D_KERNEL resolve_kernel(RasterJob job, RasterView out) {
  const int i = thread_index();
  if (i >= job.keys.n) return;
  const auto f = static_cast<std::int32_t>(static_cast<std::uint32_t>(job.keys[i]));
  float depth = std::numeric_limits<float>::infinity();
  Vec2 uv{0.f, 0.f};
  if (f >= 0) {
    const Corners c = corners_of(job, f);
    // edge values are exact integers, whatever their width and where they were counted from
    const RasterTriangle<std::int64_t> t =
        raster_triangle<std::int64_t>(c.a, c.b, c.c, i % job.width, i / job.width);
    uv = screen_weights(t, t.e0.value, t.e1.value);
    depth = depth_at(t, uv);
  }
  out.depth[i] = depth;
  out.triangle[i] = f;
  out.barycentric[i] = uv;
}

E3D_KERNEL interpolate_kernel(ImageView<const std::int32_t> triangle,
                              ImageView<const Vec2> barycentric, View<const float> values,
                              View<const Tri> faces, ImageView<float> out) {
  const int i = thread_index();
  if (i >= out.width * out.height) return;
  out[i] = triangle[i] < 0 ? 0.f : interpolate_pixel(faces[triangle[i]], barycentric[i], values);
}

E3D_KERNEL smooth_depth_kernel(ImageView<const float> depth, ImageView<const std::int32_t> triangle,
                               ImageView<const Vec2> barycentric, View<const Vec3> vertices,
                               View<const Vec3> normals, View<const Tri> faces,
                               ImageView<float> out) {
  const int i = thread_index();
  if (i >= out.width * out.height) return;
  out[i] = triangle[i] < 0 ? depth[i]
                           : smooth_pixel(faces[triangle[i]], barycentric[i], vertices, normals);
}

E3D_KERNEL vertex_visibility_kernel(View<const Vec3> vertices, View<const Vec3> normals,
                                    ImageView<const float> depth, View<const float> pinhole,
                                    VisibilityOptions options, View<std::uint8_t> out) {
  const int v = thread_index();
  if (v >= out.n) return;
  const Camera camera = camera_of(pinhole, depth.width, depth.height);
  out[v] = is_visible(vertices[v], normals[v], depth, camera, options) ? 1 : 0;
}

E3D_KERNEL pixels_of_vertices_kernel(View<const Vec3> vertices, View<const float> pinhole,
                                     int width, int height, View<std::int32_t> out) {
  const int v = thread_index();
  if (v < out.n) out[v] = pixel_of(vertices[v], camera_of(pinhole, width, height));
}

E3D_KERNEL photo_rows_kernel(View<const double> corners, View<Span> rows) {
  const int y = thread_index();
  if (y < rows.n) rows[y] = photo_row(photo_quad(corners), rows.n, y);
}

E3D_KERNEL photo_mask_kernel(View<const Span> rows, ImageView<std::uint8_t> out) {
  const int i = thread_index();
  if (i >= out.width * out.height) return;
  out[i] = is_in_photo(rows, i % out.width, i / out.width) ? 1 : 0;
}

// === Reductions ===

struct WeightProgram {
  ImageView<const float> weight;
  ImageView<const std::uint8_t> mask;
  View<double> out;

  __device__ void run(Grid& grid) const {
    const Sum3 sums = grid.sum3(weight.width * weight.height, [&](int i) {
      return Sum3{weight[i], mask[i] ? 0.0 : weight[i], 0.0};
    });
    grid.for_each(1, [&](int) {
      out[0] = sums.x;
      out[1] = sums.y;
    });
  }
};

}  // namespace

Rasterizer::Rasterizer(int max_vertices, int max_faces, int width, int height)
    : width_(width),
      height_(height),
      vertices_(max_vertices),
      keys_(static_cast<std::size_t>(width) * height),
      large_(max_faces),
      large_count_(1) {}

void Rasterizer::rasterize(MeshView mesh, View<const float> pinhole, Faces shown, RasterView out,
                           Stream s) const {
  const RasterJob job{
      mesh.vertices, mesh.faces,       pinhole,      shown,         width_,
      height_,       vertices_.view(), keys_.view(), large_.view(), large_count_.view()};
  launch(snap_kernel, std::max(mesh.vertices.n, job.keys.n), s, job);
  launch(draw_kernel, mesh.faces.n, s, job);
  launch(draw_large_kernel, kLargeThreads, s, job);
  launch(resolve_kernel, job.keys.n, s, job, out);
}

void interpolate(ImageView<const std::int32_t> triangle, ImageView<const Vec2> barycentric,
                 View<const float> values, View<const Tri> faces, ImageView<float> out, Stream s) {
  launch(interpolate_kernel, out.width * out.height, s, triangle, barycentric, values, faces, out);
}

void smooth_depth(ImageView<const float> depth, ImageView<const std::int32_t> triangle,
                  ImageView<const Vec2> barycentric, View<const Vec3> vertices,
                  View<const Vec3> normals, View<const Tri> faces, ImageView<float> out, Stream s) {
  launch(smooth_depth_kernel, out.width * out.height, s, depth, triangle, barycentric, vertices,
         normals, faces, out);
}

void vertex_visibility(View<const Vec3> vertices, View<const Vec3> normals,
                       ImageView<const float> depth, View<const float> pinhole,
                       VisibilityOptions options, View<std::uint8_t> out, Stream s) {
  launch(vertex_visibility_kernel, out.n, s, vertices, normals, depth, pinhole, options, out);
}

void pixels_of_vertices(View<const Vec3> vertices, View<const float> pinhole, int width, int height,
                        View<std::int32_t> out, Stream s) {
  launch(pixels_of_vertices_kernel, out.n, s, vertices, pinhole, width, height, out);
}

void photo_mask(View<const double> corners, View<Span> rows, ImageView<std::uint8_t> out,
                Stream s) {
  launch(photo_rows_kernel, rows.n, s, corners, rows);
  launch(photo_mask_kernel, out.width * out.height, s, View<const Span>{rows.data, rows.n}, out);
}

struct WeightSums::Internals {
  GridScratch grid;
};

WeightSums::WeightSums() : internals_(std::make_unique<Internals>()) {}
WeightSums::~WeightSums() = default;

void WeightSums::sum(ImageView<const float> weight, ImageView<const std::uint8_t> mask,
                     View<double> out, Stream s) const {
  launch_grid(WeightProgram{weight, mask, out}, weight.width * weight.height, internals_->grid, s);
}

}  // namespace e3d::cuda
