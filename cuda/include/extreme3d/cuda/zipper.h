// zipper.h — the dense and the sparse mesh sewn into one on the device; see extreme3d/zipper.h.
//
// Three steps. `begin` decides on the device what is covered and clips, numbers all vertices, and
// sends the strips between the meshes to the host: points and boundary edges, in the order in which
// the host's zipper lists them. `stitch` triangulates them there. `finish` writes the faces.
#pragma once

#include <memory>
#include <optional>

#include "extreme3d/cuda/launch.h"
#include "extreme3d/zipper.h"

namespace e3d::cuda {

// As ZipperInput, in device memory. N is the capacity of D; vertex_of_pixel tells which are there.
struct ZipperArrays {
  View<const Vec3> sparse;                     // (V,) head frame
  View<const Vec3> foundation_in_camera;       // (V,)
  View<const std::uint8_t> observed;           // (V,)
  View<const std::uint8_t> recovered;          // (V,)
  View<const Vec3> dense;                      // (N,) head frame
  View<const Vec3> reflected;                  // (N,)
  View<const std::uint8_t> reflected_defined;  // (N,)
  ImageView<const int> triangle;               // face of R, -1 for none
  ImageView<const int> vertex_of_pixel;        // vertex of D, -1 for none
  View<const float> pinhole;                   // (4,) fx, fy, cx, cy
};

// As in ZipperedMesh; rows beyond the capacity are not written.
struct ZipperedVertices {
  View<Vec3> vertices;
  View<std::uint8_t> source;
  View<std::int32_t> index;
  View<std::uint8_t> seam;
};

struct ZipperedCounts {
  std::int32_t vertices, faces;
};

// Holds the topology, the buffers between the steps and what the host says to the device; for one
// mesh at a time.
class Zipper {
 public:
  // n_dense: capacity of D. Throws std::invalid_argument for a topology that cannot be sewn.
  Zipper(View<const Tri> faces, View<const int> mirror, int width, int height, int n_dense);
  ~Zipper();
  Zipper(Zipper&&) noexcept;

  void begin(const ZipperArrays& in, ZipperedVertices out, Stream s) const;
  // On the host, after the stream has been waited for. Nothing if a border touches itself or a
  // strip would double an edge of R, which needs other attempts than the first: that is the host
  // zipper's work.
  std::optional<ZipperedCounts> stitch(int threads) const;
  // After `stitch` gave counts. counts: (2,) vertices, faces.
  void finish(View<Tri> faces, View<std::int32_t> counts, Stream s) const;

  int n_vertices() const;
  int n_faces() const;
  int n_dense() const;
  int width() const;
  int height() const;

 private:
  struct Internals;
  std::unique_ptr<Internals> internals_;
};

}  // namespace e3d::cuda
