// paint.cpp — host loop of paint.h.
#include "extreme3d/paint.h"

#include <stdexcept>

#include "extreme3d/parallel.h"

namespace e3d {

Paint paint_mesh(View<const std::uint8_t> source, View<const std::int32_t> source_vertex,
                 const DensePixels& dense, const RegisteredDense& registration,
                 const SparseOrigin& sparse, View<const Rgb> color_of_sparse,
                 ImageView<const Rgb> photo, int threads) {
  constexpr int kGrain = 8192;
  Paint out{std::vector<Rgb>(source.n), std::vector<Provenance>(source.n)};
  parallel_for(source.n, threads, kGrain, [&](int begin, int end) {
    for (int i = begin; i < end; ++i) {
      const auto from = static_cast<VertexSource>(source[i]);
      const std::int32_t v = source_vertex[i];
      const int n = from == VertexSource::kSparse ? color_of_sparse.n : dense.pixel.n;
      if (source[i] > static_cast<std::uint8_t>(VertexSource::kReflected) || v < 0 || v >= n)
        throw std::invalid_argument("source_vertex has an index that its source does not have");
      out.colors[i] = mesh_color(from, v, dense, registration, color_of_sparse, photo);
      out.provenance[i] = provenance_of(from, v, dense, sparse);
    }
  });
  return out;
}

}  // namespace e3d
