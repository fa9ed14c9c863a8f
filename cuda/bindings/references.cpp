// references.cpp — Python view of extreme3d/cuda/references.h.
#include "extreme3d/cuda/references.h"

#include <algorithm>

#include "arrays.h"

namespace e3d::cuda::bind {
namespace {

template <class T>
std::vector<T> values(View<const T> v) {
  return {v.data, v.data + v.n};
}

void require_index(std::int32_t i, std::int64_t low, std::int64_t end, const char* name) {
  if (i < low || i >= end) throw std::invalid_argument(std::string(name) + " is out of range");
}

}  // namespace

void bind_references(nb::module_& m) {
  m.attr("MAX_REFERENCES") = kMaxReferences;
  m.attr("STORED_RELIEF_BYTES") = sizeof(StoredRelief);
  nb::class_<FaceChart>(m, "FaceChart")
      .def(
          "__init__",
          [](FaceChart* chart, const HostArray<std::int32_t>& triangle,
             const HostArray<float>& barycentric, const HostArray<float>& place,
             const HostArray<std::int32_t>& faces) {
            const auto of_pixel = image(triangle, "triangle", kChartHeight, kChartWidth);
            const auto uv =
                image_of<const Vec2>(barycentric, "barycentric", kChartHeight, kChartWidth);
            const auto at = rows<const Vec2>(place, "place");
            const auto of_face = rows<const Tri>(faces, "faces");
            for (const Tri& t : values(of_face))
              for (const std::int32_t v : {t.v0, t.v1, t.v2}) require_index(v, 0, at.n, "faces");
            constexpr int kPixels = kChartWidth * kChartHeight;
            std::vector<Tri> corners;
            for (int i = 0; i < kPixels; ++i) {
              require_index(of_pixel[i], -1, of_face.n, "triangle");
              corners.push_back(of_pixel[i] < 0 ? Tri{-1, -1, -1} : of_face[of_pixel[i]]);
            }
            new (chart)
                FaceChart(corners, {uv.data, uv.data + kPixels}, values(at), values(of_face));
          },
          "triangle"_a, "barycentric"_a, "place"_a, "faces"_a)
      .def(
          "unroll",
          [](const FaceChart& chart, const Array<const float>& map,
             const Array<const std::uint8_t>& known, const Array<const std::int32_t>& box,
             const Array<const float>& pinhole, const Array<const float>& vertices_in_camera,
             const Array<const std::uint8_t>& visible, const Array<float>& out,
             const Array<std::uint8_t>& seen, std::uintptr_t s) {
            const auto crop = image(map, "map");
            chart.unroll(
                crop, image(known, "known", crop.height, crop.width), view(box, "box", 4),
                view(pinhole, "pinhole", 4),
                rows<const Vec3>(vertices_in_camera, "vertices_in_camera", chart.vertex_count()),
                view(visible, "visible", chart.vertex_count()),
                image(out, "out", kChartHeight, kChartWidth),
                image(seen, "seen", kChartHeight, kChartWidth), stream(s));
          },
          "map"_array, "known"_array, "box"_array, "pinhole"_array, "vertices_in_camera"_array,
          "visible"_array, "out"_array, "seen"_array, "stream"_a = 0)
      .def(
          "warp_by_surface",
          [](const FaceChart& chart, const Array<const float>& relief,
             const Array<const std::uint8_t>& seen, const Array<const std::int32_t>& triangle,
             const Array<const float>& barycentric, const Array<const std::int32_t>& box,
             const Array<float>& bump, const Array<std::uint8_t>& valid, std::uintptr_t s) {
            const auto of_pixel = image(triangle, "triangle");
            const int h = of_pixel.height, w = of_pixel.width;
            chart.warp_by_surface(image(relief, "relief", kChartHeight, kChartWidth),
                                  image(seen, "seen", kChartHeight, kChartWidth), of_pixel,
                                  image_of<const Vec2>(barycentric, "barycentric", h, w),
                                  view(box, "box", 4), image(bump, "bump", h, w),
                                  image(valid, "valid", h, w), stream(s));
          },
          "relief"_array, "seen"_array, "triangle"_array, "barycentric"_array, "box"_array,
          "bump"_array, "valid"_array, "stream"_a = 0);
  nb::class_<ReferenceRelief>(m, "ReferenceRelief")
      .def(nb::init<int>(), "slots"_a)
      .def(
          "store",
          [](const ReferenceRelief& reliefs, int slot, const HostArray<std::uint8_t>& relief,
             std::uintptr_t s) { reliefs.store(slot, view(relief, "relief"), stream(s)); },
          "slot"_a, "relief"_array, "stream"_a = 0)
      .def(
          "expected_relief",
          [](const ReferenceRelief& reliefs, const Array<const std::int32_t>& chosen,
             const Array<const float>& own, const Array<const std::uint8_t>& seen,
             const Array<float>& out, const Array<std::uint8_t>& valid, std::uintptr_t s) {
            reliefs.expected_relief(view(chosen, "chosen", kMaxReferences),
                                    image(own, "own", kChartHeight, kChartWidth),
                                    image(seen, "seen", kChartHeight, kChartWidth),
                                    image(out, "out", kChartHeight, kChartWidth),
                                    image(valid, "valid", kChartHeight, kChartWidth), stream(s));
          },
          "chosen"_array, "own"_array, "seen"_array, "out"_array, "valid"_array, "stream"_a = 0);
}

}  // namespace e3d::cuda::bind
