// network_maps.h — what the bump network sees of a crop, and what becomes of its answer.
//
// The device's side of extreme3d/network_maps.h, and what python/extreme3d_fast/bump_network.py
// does beside it.
#pragma once

#include <cstdint>
#include <memory>

#include "extreme3d/cuda/launch.h"
#include "extreme3d/network_maps.h"

namespace e3d::cuda {

struct BumpView {
  ImageView<float> bump;              // mm, 0 off the face
  ImageView<float> face_probability;  // 0 off the face and outside the photo
  ImageView<std::uint8_t> face_mask;  // where the probability is above a half
};

// Maps of crops of one size; keeps the scratch.
class NetworkMaps {
 public:
  explicit NetworkMaps(int size);
  ~NetworkMaps();

  int size() const;

  // The face, where weight > 0 and there is depth: its box and the size of a pixel at its median
  // depth, as `face_window` measures it without a margin. pinhole: fx, fy, cx, cy. out: (5,) first
  // row, last row + 1, first column, last column + 1, mm per pixel; zeros where there is no face.
  void find_face(ImageView<const float> weight, ImageView<const float> depth,
                 View<const float> pinhole, View<float> out, Stream s) const;

  // out: (channels, height, width): R, G, B in [-1, 1], and of five channels x and y of the
  // foundation's normals; 0 beyond the crop and where there is no depth.
  void input(ImageView<const Rgb> crop, ImageView<const float> depth, float mm_per_pixel,
             MapWindow window, int channels, View<float> out, Stream s) const;

  // The face with its inner holes (eyes, inner mouth) closed: where weight > 0, and what the
  // border of the crop cannot be reached from without crossing it.
  void close_openings(ImageView<const float> weight, ImageView<std::uint8_t> face, Stream s) const;

  // bump and mask: of the window. face: as of close_openings. Where the network answers with NaN or
  // infinity, on the face, so do the maps: with NaN.
  void output(ImageView<const float> bump, ImageView<const float> mask, MapWindow window,
              ImageView<const float> weight, ImageView<const std::uint8_t> face,
              ImageView<const std::uint8_t> in_photo, BumpView out, Stream s) const;

 private:
  struct Internals;
  std::unique_ptr<Internals> internals_;
};

}  // namespace e3d::cuda
