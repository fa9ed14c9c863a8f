// sparse.cpp — Python view of extreme3d/cuda/sparse.h.
#include "extreme3d/cuda/sparse.h"

#include "arrays.h"

namespace e3d::cuda::bind {

void bind_sparse(nb::module_& m) {
  m.def(
      "sparse_from_dense",
      [](const Array<const float>& vertices_in_camera, const Array<const std::uint8_t>& visible,
         const Array<const float>& bump, const Array<const float>& weight,
         const Array<const float>& pinhole, const Array<float>& out,
         const Array<std::uint8_t>& moved, std::uintptr_t s) {
        const auto in = rows<const Vec3>(vertices_in_camera, "vertices_in_camera");
        const auto delta = image(bump, "bump");
        sparse_from_dense(in, view(visible, "visible", in.n), delta,
                          image(weight, "weight", delta.height, delta.width),
                          view(pinhole, "pinhole", 4), rows<Vec3>(out, "out", in.n),
                          view(moved, "moved", in.n), stream(s));
      },
      "vertices_in_camera"_array, "visible"_array, "bump"_array, "weight"_array, "pinhole"_array,
      "out"_array, "moved"_array, "stream"_a = 0);
  m.def(
      "observe",
      [](const Array<const float>& foundation_in_camera,
         const Array<const float>& foundation_in_head, const Array<const std::uint8_t>& visible,
         const Array<const std::uint8_t>& region, const Array<const std::int32_t>& faces,
         const Array<const std::int32_t>& offsets, const Array<const std::int32_t>& indices,
         const Array<const float>& bump, const Array<const float>& weight,
         const Array<const float>& pinhole, const Array<const float>& head_from_camera,
         const Array<float>& moved_in_head, const Array<std::uint8_t>& moved,
         const Array<float>& sparse_in_head, const Array<std::uint8_t>& observed,
         std::uintptr_t s) {
        const auto in = rows<const Vec3>(foundation_in_camera, "foundation_in_camera");
        const auto delta = image(bump, "bump");
        const FoundationView foundation{
            in,
            rows<const Vec3>(foundation_in_head, "foundation_in_head", in.n),
            view(visible, "visible", in.n),
            view(region, "region", in.n),
            rows<const Tri>(faces, "faces"),
            csr(offsets, indices, in.n)};
        observe(
            foundation, delta, image(weight, "weight", delta.height, delta.width),
            view(pinhole, "pinhole", 4), matrix(head_from_camera, "head_from_camera"),
            rows<Vec3>(moved_in_head, "moved_in_head", in.n), view(moved, "moved", in.n),
            {rows<Vec3>(sparse_in_head, "sparse_in_head", in.n), view(observed, "observed", in.n)},
            stream(s));
      },
      "foundation_in_camera"_array, "foundation_in_head"_array, "visible"_array, "region"_array,
      "faces"_array, "offsets"_array, "indices"_array, "bump"_array, "weight"_array,
      "pinhole"_array, "head_from_camera"_array, "moved_in_head"_array, "moved"_array,
      "sparse_in_head"_array, "observed"_array, "stream"_a = 0);
}

}  // namespace e3d::cuda::bind
