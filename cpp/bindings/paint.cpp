// paint.cpp — Python view of extreme3d/paint.h.
#include "extreme3d/paint.h"

#include "arrays.h"

namespace e3d::bind {
namespace {

py::tuple paint_arrays(const Array<std::uint8_t>& source, const Array<std::int32_t>& source_vertex,
                       const Array<std::int32_t>& pixel_of_dense, const Array<std::uint8_t>& filled,
                       const Array<std::int32_t>& triangle, const Array<float>& uv,
                       const Array<std::int32_t>& faces, const Array<std::int32_t>& mirror,
                       const Array<std::uint8_t>& observed, const Array<std::uint8_t>& recovery,
                       const Array<std::int32_t>& pixel_of_vertex,
                       const Array<std::uint8_t>& color_of_sparse, const Array<std::uint8_t>& photo,
                       int threads) {
  const auto origin = view(source, "source");
  const auto vertex = view(source_vertex, "source_vertex", origin.n);
  const auto hole = image_view(filled, "filled");
  const int pixels = hole.width * hole.height;
  require_shape(photo, "photo", {hole.height, hole.width, 3});
  const ImageView<const Rgb> picture{reinterpret_cast<const Rgb*>(photo.data()), hole.width,
                                     hole.height};
  const DensePixels dense{index_view(pixel_of_dense, "pixel_of_dense", -1, 0, pixels), hole};
  const auto seen = view(observed, "observed");
  const int n_dense = dense.pixel.n, n_sparse = seen.n;
  require_shape(color_of_sparse, "color_of_sparse", {n_sparse, 3});
  const View<const Rgb> colors{reinterpret_cast<const Rgb*>(color_of_sparse.data()), n_sparse};
  const auto f = tri_view(faces, "faces", n_sparse);
  require_shape(uv, "uv", {n_dense, 2});
  const RegisteredDense registration{index_view(triangle, "triangle", n_dense, -1, f.n),
                                     {reinterpret_cast<const Vec2*>(uv.data()), n_dense},
                                     f,
                                     index_view(mirror, "mirror", n_sparse, 0, n_sparse)};
  const SparseOrigin sparse{seen, view(recovery, "recovery", n_sparse),
                            index_view(pixel_of_vertex, "pixel_of_vertex", n_sparse, -1, pixels)};
  Paint out;
  {
    const py::gil_scoped_release release;
    out = paint_mesh(origin, vertex, dense, registration, sparse, colors, picture, threads);
  }
  return py::make_tuple(take<std::uint8_t>(std::move(out.colors), {origin.n, 3}),
                        take<std::uint8_t>(std::move(out.provenance), {origin.n}));
}

}  // namespace

void bind_paint(py::module_& m) {
  m.def("paint_mesh", &paint_arrays, py::arg("source").noconvert(),
        py::arg("source_vertex").noconvert(), py::arg("pixel_of_dense").noconvert(),
        py::arg("filled").noconvert(), py::arg("triangle").noconvert(), py::arg("uv").noconvert(),
        py::arg("faces").noconvert(), py::arg("mirror").noconvert(),
        py::arg("observed").noconvert(), py::arg("recovery").noconvert(),
        py::arg("pixel_of_vertex").noconvert(), py::arg("color_of_sparse").noconvert(),
        py::arg("photo").noconvert(), py::arg("threads") = 1);
}

}  // namespace e3d::bind
