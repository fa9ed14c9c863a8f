// render.cu — framing of views, normals of meshes that change, openness and light of pixels.
#include <bit>

#include "extreme3d/cuda/memory.h"
#include "extreme3d/cuda/render.h"
#include "extreme3d/cuda/scan.h"
#include "extreme3d/view_shading.h"

namespace e3d::cuda {

// === Framing ===

namespace {

// Integers in the order of the floats, and back.
E3D_HD inline std::int32_t ordered(float x) {
#if defined(__CUDA_ARCH__)
  const std::int32_t bits = __float_as_int(x);
#else
  const auto bits = std::bit_cast<std::int32_t>(x);
#endif
  return bits < 0 ? bits ^ 0x7fffffff : bits;
}

E3D_HD inline float unordered(std::int32_t order) {
  const std::int32_t bits = order < 0 ? order ^ 0x7fffffff : order;
#if defined(__CUDA_ARCH__)
  return __int_as_float(bits);
#else
  return std::bit_cast<float>(bits);
#endif
}

// bounds: least and greatest x, y, z, and the square of the radius, ordered.
E3D_KERNEL clear_bounds_kernel(View<std::int32_t> bounds) {
  const int i = thread_index();
  if (i >= bounds.n) return;
  const float far = kFar;
  bounds[i] = i < 3 ? ordered(far) : i < 6 ? ordered(-far) : 0;
}

// Most vertices are inside of what others have found: they only look.
E3D_KERNEL box_kernel(View<const Vec3> vertices, View<const std::int32_t> count,
                      View<std::int32_t> bounds) {
  const int v = thread_index();
  if (v >= vertices.n || v >= count[0]) return;
  const std::int32_t at[3] = {ordered(vertices[v].x), ordered(vertices[v].y),
                              ordered(vertices[v].z)};
  for (int axis = 0; axis < 3; ++axis) {
    if (at[axis] < bounds[axis]) atomic_min(&bounds[axis], at[axis]);
    if (at[axis] > bounds[3 + axis]) atomic_max(&bounds[3 + axis], at[axis]);
  }
}

E3D_HD inline Vec3 center_of(View<const std::int32_t> bounds) {
  const auto middle = [&](int axis) {
    return 0.5f * (unordered(bounds[axis]) + unordered(bounds[3 + axis]));
  };
  return {middle(0), middle(1), middle(2)};
}

E3D_KERNEL radius_kernel(View<const Vec3> vertices, View<const std::int32_t> count,
                         View<std::int32_t> bounds) {
  const int v = thread_index();
  if (v >= vertices.n || v >= count[0]) return;
  const Vec3 offset = vertices[v] - center_of({bounds.data, bounds.n});
  const std::int32_t squared = ordered(dot(offset, offset));
  if (squared > bounds[6]) atomic_max(&bounds[6], squared);
}

E3D_KERNEL frame_kernel(View<const float> rotations, float distance,
                        View<const std::int32_t> bounds, View<float> out) {
  const int i = thread_index();
  if (i >= out.n) return;
  constexpr float kLeastRadius = 1e-3f;  // mm
  const int view = i / 16, row = i / 4 % 4, column = i % 4;
  const float* r = &rotations[9 * view + 3 * row];
  if (row == 3) {
    out[i] = column == 3 ? 1.f : 0.f;
  } else if (column < 3) {
    out[i] = r[column];
  } else {
    const float squared = unordered(bounds[6]);
    const float radius = std::sqrt(squared);
    const float away = row == 2 ? distance * (radius > kLeastRadius ? radius : kLeastRadius) : 0.f;
    out[i] = away - dot({r[0], r[1], r[2]}, center_of(bounds));
  }
}

}  // namespace

void frame_views(View<const Vec3> vertices, View<const std::int32_t> count,
                 View<const float> rotations, float distance, View<std::int32_t> bounds,
                 View<float> out, Stream s) {
  const View<const std::int32_t> found{bounds.data, bounds.n};
  launch(clear_bounds_kernel, bounds.n, s, bounds);
  launch(box_kernel, vertices.n, s, vertices, count, bounds);
  launch(radius_kernel, vertices.n, s, vertices, count, bounds);
  launch(frame_kernel, out.n, s, rotations, distance, found, out);
}

// === Faces of vertices ===

namespace {

E3D_HD inline std::int32_t corner(Tri t, int k) { return k == 0 ? t.v0 : k == 1 ? t.v1 : t.v2; }

// The place of each corner among those of its vertex, in no order.
E3D_KERNEL count_corners_kernel(View<const Tri> faces, View<const std::int32_t> count,
                                View<std::int32_t> corners_of, View<std::int32_t> place) {
  const int i = thread_index();
  if (i >= place.n || i / 3 >= count[0]) return;
  place[i] = atomic_add(&corners_of[corner(faces[i / 3], i % 3)], 1);
}

E3D_KERNEL list_faces_kernel(View<const Tri> faces, View<const std::int32_t> count,
                             View<const std::int32_t> offsets, View<const std::int32_t> place,
                             View<std::int32_t> listed) {
  const int i = thread_index();
  if (i >= place.n || i / 3 >= count[0]) return;
  listed[offsets[corner(faces[i / 3], i % 3)] + place[i]] = i / 3;
}

// Ascending, so that sums over them have one order.
E3D_KERNEL sort_faces_kernel(View<const std::int32_t> offsets, int n, View<std::int32_t> listed) {
  const int v = thread_index();
  if (v >= n) return;
  const int begin = offsets[v], end = offsets[v + 1];
  for (int k = begin + 1; k < end; ++k) {
    const std::int32_t face = listed[k];
    int at = k;
    for (; at > begin && listed[at - 1] > face; --at) listed[at] = listed[at - 1];
    listed[at] = face;
  }
}

// === Pixels ===

E3D_KERNEL view_normals_kernel(MeshView mesh, CsrView faces_of, View<Vec3> out) {
  const int v = thread_index();
  if (v >= out.n) return;
  Vec3 n{0.f, 0.f, 0.f};
  for (int k = faces_of.offsets[v]; k < faces_of.offsets[v + 1]; ++k)
    n = n + face_area_vector(mesh, faces_of.indices[k]);
  out[v] = normalize_or_zero(n);
}

E3D_KERNEL middle_depth_kernel(ImageView<const float> depth, int supersample,
                               ImageView<float> out) {
  const int i = thread_index();
  if (i < out.width * out.height)
    out[i] = middle_depth(depth, supersample, i % out.width, i / out.width);
}

E3D_KERNEL openness_kernel(ImageView<const float> depth, View<const float> pinhole,
                           OcclusionDirections directions, ImageView<float> open) {
  const int i = thread_index();
  if (i >= open.width * open.height) return;
  const Camera camera{pinhole[0], pinhole[1], pinhole[2], pinhole[3], open.width, open.height};
  open[i] = openness(depth, camera, directions, i % open.width, i / open.width);
}

E3D_KERNEL shade_kernel(ShadedMesh mesh, SampleView samples, ImageView<const float> depth,
                        ImageView<const float> open, View<const SrgbTables> tables,
                        RenderStyle style, ImageView<Rgb> out) {
  const int i = thread_index();
  if (i >= out.width * out.height) return;
  const int x = i % out.width, y = i / out.width;
  out[i] = shaded_pixel(mesh, samples, tables[0], style, smooth_openness(depth, open, x, y), x, y);
}

}  // namespace

struct Renderer::Internals {
  Internals(int max_vertices, int max_faces, int max_size)
      : vertices(max_vertices),
        faces(max_faces),
        size(max_size),
        corners_of(max_vertices + 1),
        offsets(max_vertices + 1),
        place(3 * static_cast<std::size_t>(max_faces)),
        listed(3 * static_cast<std::size_t>(max_faces)),
        normals(max_vertices),
        depth(static_cast<std::size_t>(max_size) * max_size),
        open(static_cast<std::size_t>(max_size) * max_size),
        sum(max_vertices + 1),
        directions(occlusion_directions()) {
    const SrgbTables host = srgb_tables();
    tables = DeviceArray<SrgbTables>(&host, 1);
  }

  int vertices, faces, size;
  DeviceArray<std::int32_t> corners_of, offsets, place, listed;
  DeviceArray<Vec3> normals;
  DeviceArray<float> depth, open;
  DeviceArray<SrgbTables> tables;
  ExclusiveSum sum;
  OcclusionDirections directions;
};

Renderer::Renderer(int max_vertices, int max_faces, int max_size)
    : internals_(new Internals(max_vertices, max_faces, max_size)) {}
Renderer::~Renderer() = default;
Renderer::Renderer(Renderer&&) noexcept = default;
int Renderer::max_vertices() const { return internals_->vertices; }
int Renderer::max_faces() const { return internals_->faces; }
int Renderer::max_size() const { return internals_->size; }

void Renderer::prepare(View<const Tri> faces, View<const std::int32_t> count, int n_vertices,
                       Stream s) const {
  const Internals& own = *internals_;
  const View<std::int32_t> corners_of{own.corners_of.data(), n_vertices + 1};
  const View<std::int32_t> offsets{own.offsets.data(), n_vertices + 1};
  const View<std::int32_t> place{own.place.data(), 3 * faces.n};
  const View<const std::int32_t> found{offsets.data, offsets.n};
  fill_bytes(corners_of, 0, s);
  launch(count_corners_kernel, place.n, s, faces, count, corners_of, place);
  own.sum({corners_of.data, corners_of.n}, offsets, s);
  launch(list_faces_kernel, place.n, s, faces, count, found,
         View<const std::int32_t>{place.data, place.n}, own.listed.view());
  launch(sort_faces_kernel, n_vertices, s, found, n_vertices, own.listed.view());
}

void Renderer::shade(MeshView mesh, View<const Rgb> colors, const Samples& samples,
                     View<const float> pinhole, const RenderStyle& style, ImageView<Rgb> out,
                     Stream s) const {
  const Internals& own = *internals_;
  const int n = mesh.vertices.n, pixels = out.width * out.height;
  const View<Vec3> normals{own.normals.data(), n};
  const ImageView<float> depth{own.depth.data(), out.width, out.height};
  const ImageView<float> open{own.open.data(), out.width, out.height};
  const ImageView<const float> found{depth.data, depth.width, depth.height};
  const CsrView faces_of{{own.offsets.data(), n + 1}, own.listed.cview()};
  launch(view_normals_kernel, n, s, mesh, faces_of, normals);
  launch(middle_depth_kernel, pixels, s, samples.depth, style.supersample, depth);
  launch(openness_kernel, pixels, s, found, pinhole, own.directions, open);
  launch(shade_kernel, pixels, s, ShadedMesh{mesh, {normals.data, n}, colors},
         SampleView{samples.triangle, samples.barycentric}, found,
         ImageView<const float>{open.data, open.width, open.height}, own.tables.cview(), style,
         out);
}

}  // namespace e3d::cuda
