// render.h — a shaded picture of coloured meshes, for people to look at.
#pragma once

#include "extreme3d/texture.h"
#include "extreme3d/types.h"

namespace e3d {

enum class Shading {
  kColor,  // the vertex colours, which hold the photo's light, under a weak lamp at the camera
  kClay,   // one matt grey under a key, a fill and a rim light: shows the shape alone
};

struct RenderStyle {
  Shading shading;
  int supersample;  // samples a pixel, along each axis
  Rgb background;
};

// Draws the mesh into `out`, whose size is the camera's. Both sides of faces are drawn, the inner
// one darker; creases are darkened by ambient occlusion of the depth image.
void render(MeshView mesh_in_camera, View<const Rgb> colors, const Camera& camera,
            const RenderStyle& style, int threads, ImageView<Rgb> out);

}  // namespace e3d
