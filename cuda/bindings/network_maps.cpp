// network_maps.cpp — Python view of extreme3d/cuda/network_maps.h.
#include "extreme3d/cuda/network_maps.h"

#include "arrays.h"

namespace e3d::cuda::bind {
namespace {

constexpr int kMaxSize = 4096;

// (1, 1, h, w) answer of a network.
ImageView<const float> answer(const Array<const float>& a, const char* name, int h, int w) {
  require_shape(a, name, {1, 1, h, w});
  return {a.data(), w, h};
}

}  // namespace

void bind_network_maps(nb::module_& m) {
  nb::class_<NetworkMaps>(m, "NetworkMaps")
      .def(
          "__init__",
          [](NetworkMaps* self, int size) {
            if (size < 1 || size > kMaxSize)
              throw std::invalid_argument("size should be in [1, 4096], is " +
                                          std::to_string(size));
            new (self) NetworkMaps(size);
          },
          "size"_a = 500)
      .def(
          "find_face",
          [](const NetworkMaps& self, const Array<const float>& weight,
             const Array<const float>& depth, const Array<const float>& pinhole,
             const Array<float>& out, std::uintptr_t s) {
            const int n = self.size();
            self.find_face(image(weight, "weight", n, n), image(depth, "depth", n, n),
                           view(pinhole, "pinhole", 4), view(out, "out", 5), stream(s));
          },
          "weight"_array, "depth"_array, "pinhole"_array, "out"_array, "stream"_a = 0)
      .def(
          "input",
          [](const NetworkMaps& self, const Array<const std::uint8_t>& crop,
             const Array<const float>& depth, float mm_per_pixel, int x, int y,
             const Array<float>& out, std::uintptr_t s) {
            const int n = self.size();
            require_shape(out, "out", {1, -1, -1, -1});
            const int channels = static_cast<int>(out.shape(1));
            const int h = static_cast<int>(out.shape(2)), w = static_cast<int>(out.shape(3));
            if (channels != 3 && channels != 5)
              throw std::invalid_argument("out should have 3 or 5 channels");
            if (!(mm_per_pixel > 0.f))
              throw std::invalid_argument("mm_per_pixel should be positive");
            self.input(image_of<const Rgb>(crop, "crop", n, n), image(depth, "depth", n, n),
                       mm_per_pixel, {x, y, w, h}, channels, {out.data(), channels * h * w},
                       stream(s));
          },
          "crop"_array, "depth"_array, "mm_per_pixel"_a, "x"_a, "y"_a, "out"_array, "stream"_a = 0)
      .def(
          "close_openings",
          [](const NetworkMaps& self, const Array<const float>& weight,
             const Array<std::uint8_t>& face, std::uintptr_t s) {
            const int n = self.size();
            self.close_openings(image(weight, "weight", n, n), image(face, "face", n, n),
                                stream(s));
          },
          "weight"_array, "face"_array, "stream"_a = 0)
      .def(
          "output",
          [](const NetworkMaps& self, const Array<const float>& network_bump,
             const Array<const float>& network_mask, int x, int y, const Array<const float>& weight,
             const Array<const std::uint8_t>& face, const Array<const std::uint8_t>& in_photo,
             const Array<float>& bump, const Array<float>& face_probability,
             const Array<std::uint8_t>& face_mask, std::uintptr_t s) {
            const int n = self.size();
            require_shape(network_bump, "network_bump", {1, 1, -1, -1});
            const int h = static_cast<int>(network_bump.shape(2));
            const int w = static_cast<int>(network_bump.shape(3));
            self.output(
                answer(network_bump, "network_bump", h, w),
                answer(network_mask, "network_mask", h, w), {x, y, w, h},
                image(weight, "weight", n, n), image(face, "face", n, n),
                image(in_photo, "in_photo", n, n),
                {image(bump, "bump", n, n), image(face_probability, "face_probability", n, n),
                 image(face_mask, "face_mask", n, n)},
                stream(s));
          },
          "network_bump"_array, "network_mask"_array, "x"_a, "y"_a, "weight"_array, "face"_array,
          "in_photo"_array, "bump"_array, "face_probability"_array, "face_mask"_array,
          "stream"_a = 0);
}

}  // namespace e3d::cuda::bind
