// completion.h — dense vertices reflected into the hidden side, on the device; see
// extreme3d/completion.h.
#pragma once

#include "extreme3d/completion.h"
#include "extreme3d/cuda/registration.h"

namespace e3d::cuda {

struct CompletionView {
  View<Vec3> vertices;         // (N,) head frame, 0 where not defined
  View<std::uint8_t> defined;  // (N,)
};

// count: (1,), as everywhere here; rows from it on are left alone.
void complete_dense(ConstRegistrationView registration, CompletedView completed,
                    View<const std::int32_t> count, CompletionView out, Stream s);

// `register_dense` and `complete_dense` in one, where nobody asks for the residuals. dense: (N,)
// head frame; triangle and uv: (N,) of the registration.
void reflect_dense(PixelsView pixels, View<const Vec3> dense, CompletedView completed,
                   View<std::int32_t> triangle, View<Vec2> uv, CompletionView out, Stream s);

}  // namespace e3d::cuda
