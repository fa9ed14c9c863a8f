// blending.h — holes of maps filled with the gradients of others, on the device; see
// extreme3d/blending.h.
#pragma once

#include <memory>

#include "extreme3d/blending.h"
#include "extreme3d/cuda/launch.h"

namespace e3d::cuda {

// A bump map as it was before it faded with the weight, and where that can be told (elsewhere 0).
void unfade(ImageView<const float> bump, ImageView<const float> weight,
            ImageView<const std::uint8_t> hole, ImageView<float> out, ImageView<std::uint8_t> known,
            Stream s);

// Bump map and what hides it; see fill_bump in occlusion.py.
struct BumpMaps {
  ImageView<const float> bump, weight;  // mm, faded with the weight
  ImageView<const std::uint8_t> hole;
  ImageView<const float> borrowed;  // mm, unfaded; its slopes fill the holes where valid
  ImageView<const std::uint8_t> valid;
};

// Scratch for maps of one size: about 120 bytes a pixel.
class Blender {
 public:
  Blender(int width, int height);
  ~Blender();
  int width() const;
  int height() const;

  // As e3d::blend_gradients, with one solve for all holes. status: (2,) iterations and residual.
  // Each is one cooperative launch, which ends soon where nothing is unknown.
  void blend_gradients(const BlendMaps& maps, float tolerance, ImageView<float> out,
                       View<float> status, Stream s);
  void fill_bump(const BumpMaps& maps, ImageView<float> out, View<float> status, Stream s);

 private:
  struct Internals;
  std::unique_ptr<Internals> internals_;
};

}  // namespace e3d::cuda
