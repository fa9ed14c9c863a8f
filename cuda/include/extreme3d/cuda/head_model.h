// head_model.h — the linear head model on the device; see extreme3d/head_model.h.
#pragma once

#include <vector>

#include "extreme3d/cuda/memory.h"
#include "extreme3d/head_model.h"

namespace e3d::cuda {

// Owns the model's tables on the device, and the vertices of the levels before the last.
class HeadEvaluator {
 public:
  // Host arrays, whose indices must be in range (the binding checks).
  HeadEvaluator(const LinearBasis& basis, const std::vector<RowOperator>& levels);

  int identity_count() const { return static_cast<int>(identity_.size() / mean_.size()); }
  int expression_count() const { return static_cast<int>(expression_.size() / mean_.size()); }
  int vertex_count() const;

  // identity (K,), expression (E,) coefficients; out (V,) mm, head frame.
  void evaluate(View<const float> identity, View<const float> expression, View<Vec3> out,
                Stream s) const;

 private:
  struct Level {
    DeviceArray<std::int32_t> indptr, indices;
    DeviceArray<float> weights;
    DeviceArray<Vec3> vertices;  // of the level before, which the rows take
  };

  DeviceArray<float> mean_, identity_, expression_;
  std::vector<Level> levels_;
};

}  // namespace e3d::cuda
