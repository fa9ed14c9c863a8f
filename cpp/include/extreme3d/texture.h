// texture.h — a colour for every vertex: from the photo, from the other half of the face, or grown.
#pragma once

#include <cstdint>
#include <vector>

#include "extreme3d/types.h"

namespace e3d {

// 8-bit sRGB.
struct Rgb {
  std::uint8_t r, g, b;
};

struct TextureInput {
  MeshView mesh_in_camera;             // (V,) mm, (F,)
  View<const std::uint8_t> seen;       // (V,) not 0 where the photo shows the vertex
  View<const std::int32_t> mirror_of;  // (V,) the vertex on the other half of the face, or -1
  View<const Rgb> fallback;            // (V,) colour of the model where nothing is known
  ImageView<const Rgb> photo;          // the crop
  Camera camera;                       // of the crop
};

// Colours of the vertices, (V,).
//
// 1. Seen vertices take the photo's colour (bilinear), unless they lie within two edges of an
//    unseen one or their surface is turned by more than 75° from the viewing ray: what a pixel
//    shows there is partly background.
// 2. Other vertices whose mirror image has a colour take that, plus an offset that makes the two
//    halves meet: on known vertices the offset is the difference to their own mirror image, from
//    there it spreads over the mesh as a screened membrane (u = L² Δu) and fades with L = 40 mm.
//    So the light of the photo runs on over the seam and the details are the mirrored ones.
// 3. The rest takes `fallback`, scaled so that lit skin has the photo's colour, plus an
//    offset spread in the same way.
std::vector<Rgb> vertex_colors(const TextureInput& in, int threads);

}  // namespace e3d
