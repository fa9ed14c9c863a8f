// completion.cpp — Python view of extreme3d/completion.h.
#include "extreme3d/completion.h"

#include "arrays.h"

namespace e3d::bind {

void bind_completion(py::module_& m) {
  m.def(
      "complete_dense",
      [](const Array<std::int32_t>& triangle, const Array<float>& uv, const Array<float>& residual,
         const Array<float>& sparse, const Array<std::int32_t>& faces,
         const Array<std::int32_t>& mirror, const Array<std::uint8_t>& recovered, int threads) {
        const auto r = vec3_view(sparse, "sparse");
        const auto f = tri_view(faces, "faces", r.n);
        const auto t = view(triangle, "triangle");
        require_shape(uv, "uv", {t.n, 2});
        const View<const Vec2> uv_view{reinterpret_cast<const Vec2*>(uv.data()), t.n};
        const auto d = vec3_view(residual, "residual", t.n);
        const auto mir = index_view(mirror, "mirror", r.n, 0, r.n);
        const auto rec = view(recovered, "recovered", r.n);
        index_view(triangle, "triangle", t.n, -1, f.n);
        DenseCompletion out;
        {
          const py::gil_scoped_release release;
          out = complete_dense(t, uv_view, d, r, f, mir, rec, threads);
        }
        return py::make_tuple(take<float>(std::move(out.vertices), {t.n, 3}),
                              take<std::uint8_t>(std::move(out.defined), {t.n}));
      },
      py::arg("triangle").noconvert(), py::arg("uv").noconvert(), py::arg("residual").noconvert(),
      py::arg("sparse").noconvert(), py::arg("faces").noconvert(), py::arg("mirror").noconvert(),
      py::arg("recovered").noconvert(), py::arg("threads") = 1);
}

}  // namespace e3d::bind
