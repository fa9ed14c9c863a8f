// crop.cpp — Python view of extreme3d/cuda/crop.h.
#include "extreme3d/cuda/crop.h"

#include <nanobind/stl/optional.h>

#include "arrays.h"
#include "extreme3d/rasterize.h"

namespace e3d::cuda::bind {
namespace {

constexpr int kMaxSquareSide = 4096, kMaxSquares = 64;

ImageView<const Rgb> photo_view(const Array<const std::uint8_t>& photo, int max_side) {
  require_shape(photo, "photo", {-1, -1, 3});
  const auto h = static_cast<std::int64_t>(photo.shape(0));
  const auto w = static_cast<std::int64_t>(photo.shape(1));
  if (h < 1 || w < 1 || h > max_side || w > max_side)
    throw std::invalid_argument("photo should have sides in [1, " + std::to_string(max_side) +
                                "] px, has " + std::to_string(w) + " x " + std::to_string(h));
  return image_of<const Rgb>(photo, "photo");
}

void require_in(int value, const char* name, int most) {
  if (value < 1 || value > most)
    throw std::invalid_argument(std::string(name) + " should be in [1, " + std::to_string(most) +
                                "], is " + std::to_string(value));
}

// (n, size, size, 3) squares, or none.
template <class T, class A>
View<T> squares(const std::optional<A>& a, const char* name, int n, int size) {
  if (!a) return {nullptr, 0};
  require_shape(*a, name, {n, size, size, 3});
  return {reinterpret_cast<T*>(a->data()), n * size * size};
}

}  // namespace

void bind_crop(nb::module_& m) {
  nb::class_<Warper>(m, "Warper")
      .def(
          "__init__",
          [](Warper* self, int max_size, int max_squares) {
            require_in(max_size, "max_size", kMaxSquareSide);
            require_in(max_squares, "max_squares", kMaxSquares);
            new (self) Warper(max_size, max_squares);
          },
          "max_size"_a, "max_squares"_a = 1)
      .def(
          "warp",
          [](const Warper& self, const Array<const std::uint8_t>& photo,
             const Array<const double>& out_from_image, int size,
             const std::optional<Array<std::uint8_t>>& crops,
             const std::optional<Array<float>>& inputs, float mean, float std, std::uintptr_t s) {
            const auto from = photo_view(photo, kMaxImageSide);
            require_shape(out_from_image, "out_from_image", {-1, 3, 3});
            const int n = static_cast<int>(out_from_image.shape(0));
            require_in(size, "size", self.max_size());
            if (n > self.max_squares())
              throw std::invalid_argument("out_from_image should have at most " +
                                          std::to_string(self.max_squares()) + " rows, has " +
                                          std::to_string(n));
            self.warp(from, {out_from_image.data(), 9 * n}, size,
                      squares<Rgb>(crops, "crops", n, size),
                      squares<Vec3>(inputs, "inputs", n, size), {mean, 1.f / std}, stream(s));
          },
          "photo"_array, "out_from_image"_array, "size"_a,
          nb::arg("crops").noconvert() = nb::none(), nb::arg("inputs").noconvert() = nb::none(),
          "mean"_a = 0.f, "std"_a = 1.f, "stream"_a = 0);
  nb::class_<Letterbox>(m, "Letterbox")
      .def(
          "__init__",
          [](Letterbox* self, int size, int max_side) {
            require_in(size, "size", kMaxSquareSide);
            require_in(max_side, "max_side", kMaxImageSide);
            new (self) Letterbox(size, max_side);
          },
          "size"_a = 128, "max_side"_a = 8192)
      .def(
          "fit",
          [](const Letterbox& self, const Array<const std::uint8_t>& photo, const Array<float>& out,
             float mean, float std, std::uintptr_t s) {
            self.fit(photo_view(photo, self.max_side()),
                     image_of<Vec3>(out, "out", self.size(), self.size()), {mean, 1.f / std},
                     stream(s));
          },
          "photo"_array, "out"_array, "mean"_a = 0.f, "std"_a = 1.f, "stream"_a = 0);
}

}  // namespace e3d::cuda::bind
