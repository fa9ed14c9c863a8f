// dense.cu — the dense mesh: mark the pixels that get a vertex, number them, write.
#include <limits>

#include "extreme3d/cuda/dense.h"
#include "extreme3d/cuda/scan.h"
#include "extreme3d/cuda/views.h"

namespace e3d::cuda {
namespace {

E3D_KERNEL compose_depth_kernel(View<const float> depth, View<const float> weight,
                                View<const float> bump, View<float> out) {
  const int p = thread_index();
  if (p >= out.n) return;
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  out[p] = detailed_depth(weight[p] > 0.f ? depth[p] : kInfinity, bump[p]);
}

// used: (W H + 1,), the last one 0, so that running sums tell whether a pixel is used.
E3D_KERNEL mark_kernel(ImageView<const float> depth, View<const float> pinhole, float max_slope,
                       View<std::int32_t> used) {
  const int p = thread_index();
  if (p >= used.n) return;
  const DepthSteps steps = depth_steps(camera(pinhole, depth.width, depth.height), max_slope);
  used[p] = p + 1 < used.n && is_used(depth, p % depth.width, p / depth.width, steps) ? 1 : 0;
}

E3D_KERNEL write_kernel(ImageView<const float> depth, View<const float> pinhole,
                        View<const float> frame_from_camera, View<const std::int32_t> first,
                        DenseMeshView out) {
  const int p = thread_index(), pixels = first.n - 1;
  if (p >= pixels) return;
  if (p == 0) out.count[0] = first[pixels];
  const std::int32_t v = first[p];
  if (first[p + 1] == v) {
    out.vertex_of_pixel[p] = -1;
    return;
  }
  const Camera c = camera(pinhole, depth.width, depth.height);
  const Vec2 centre{p % depth.width + 0.5f, p / depth.width + 0.5f};
  const Vec3 x_in_camera = unproject(c, centre, depth[p]);
  out.vertices[v] =
      frame_from_camera.n ? transform(rigid(frame_from_camera), x_in_camera) : x_in_camera;
  out.vertex_of_pixel[p] = v;
  out.pixel_of_vertex[v] = p;
}

}  // namespace

void compose_depth(View<const float> depth, View<const float> weight, View<const float> bump,
                   View<float> out, Stream s) {
  launch(compose_depth_kernel, out.n, s, depth, weight, bump, out);
}

struct DenseMesher::Internals {
  int width, height;
  DeviceArray<std::int32_t> numbers;  // (W H + 1,): used pixels, then used pixels before this one
  ExclusiveSum sum;
};

DenseMesher::DenseMesher(int width, int height)
    : internals_(new Internals{width, height,
                               DeviceArray<std::int32_t>(std::size_t(width) * height + 1),
                               ExclusiveSum(width * height + 1)}) {}
DenseMesher::~DenseMesher() = default;

int DenseMesher::width() const { return internals_->width; }
int DenseMesher::height() const { return internals_->height; }

void DenseMesher::mesh(ImageView<const float> depth, View<const float> pinhole,
                       View<const float> frame_from_camera, float max_slope, DenseMeshView out,
                       Stream s) const {
  const View<std::int32_t> numbers = internals_->numbers.view();
  const View<const std::int32_t> first = internals_->numbers.cview();
  launch(mark_kernel, numbers.n, s, depth, pinhole, max_slope, numbers);
  internals_->sum(first, numbers, s);
  launch(write_kernel, numbers.n, s, depth, pinhole, frame_from_camera, first, out);
}

}  // namespace e3d::cuda
