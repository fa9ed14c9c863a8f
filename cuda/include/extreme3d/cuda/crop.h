// crop.h — squares of a photo for the networks and the crop, resampled without aliasing.
//
// The device's `warp_similarity` and the detector's letterbox (python/extreme3d_fast/crop.py),
// with the rounding of the OpenCV functions that they call there.
#pragma once

#include <cstdint>
#include <memory>

#include "extreme3d/cuda/launch.h"
#include "extreme3d/texture.h"

namespace e3d::cuda {

// What a network makes of a grey value: (value - mean) * inverse_std.
struct Preparation {
  float mean, inverse_std;
};

// Cuts up to max_squares squares of up to max_size px at a time; keeps the scratch.
class Warper {
 public:
  Warper(int max_size, int max_squares);
  ~Warper();

  int max_size() const;
  int max_squares() const;

  // out_from_image: (9 n,) row-major similarities between continuous px. Black where the photo
  // ends. crops and inputs: (n size²,) each, either may be empty; inputs are prepared for a
  // network.
  void warp(ImageView<const Rgb> photo, View<const double> out_from_image, int size,
            View<Rgb> crops, View<Vec3> inputs, Preparation preparation, Stream s) const;

 private:
  struct Internals;
  std::unique_ptr<Internals> internals_;
};

// Fits photos of up to max_side px into the middle of a square of `size` px; keeps the scratch.
class Letterbox {
 public:
  Letterbox(int size, int max_side);
  ~Letterbox();

  int size() const;
  int max_side() const;

  // out: (size²,), prepared for a network, black beside the photo.
  void fit(ImageView<const Rgb> photo, ImageView<Vec3> out, Preparation preparation,
           Stream s) const;

 private:
  struct Internals;
  std::unique_ptr<Internals> internals_;
};

}  // namespace e3d::cuda
