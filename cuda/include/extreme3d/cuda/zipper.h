// zipper.h — the dense and the sparse mesh sewn into one on the device; see extreme3d/zipper.h.
//
// All on the device, strips between the meshes included: every point of a strip lies on its border,
// so that each triangle can be found alone. The triangles are those of the host's zipper but for
// the diagonals of cocircular points. Where the strips cannot be filled so, `stitch` has the host
// triangulate them, and gives the host's very triangles.
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
struct ZipperedArrays {
  View<Vec3> vertices;
  View<std::uint8_t> source;
  View<std::int32_t> index;
  View<std::uint8_t> seam;
  View<Tri> faces;
  View<std::int32_t> counts;  // (2,) vertices, faces; both 0 where the strips are not filled
};

struct ZipperedCounts {
  std::int32_t vertices, faces;
};

// Holds the topology and all buffers; for one mesh at a time.
class Zipper {
 public:
  // n_dense: capacity of D. Throws std::invalid_argument for a topology that cannot be sewn.
  Zipper(View<const Tri> faces, View<const int> mirror, int width, int height, int n_dense);
  ~Zipper();
  Zipper(Zipper&&) noexcept;

  void zip(const ZipperArrays& in, ZipperedArrays out, Stream s) const;
  // After the stream has been waited for: what `zip` gave, nothing if the strips are not filled.
  std::optional<ZipperedCounts> counts() const;

  // The strips of the last `zip` filled on the host; waits for the stream. Nothing if a border
  // touches itself or a strip would double an edge of R, which needs other attempts than the first:
  // that is the host zipper's work.
  std::optional<ZipperedCounts> stitch(int threads, Stream s) const;
  // The faces with the strips that `stitch` filled; vertices are as `zip` left them.
  void finish(ImageView<const int> vertex_of_pixel, View<Tri> faces, View<std::int32_t> counts,
              Stream s) const;

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
