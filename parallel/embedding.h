// The token embedding, its vocabulary cut over tensor-parallel ranks (any size: the parts differ by at most one row).
#pragma once
#include "core/memory.h"
#include "parallel/parameter.h"
#include "parallel/tensor_parallel.h"

namespace af {

class VocabParallelEmbedding {
 public:
  VocabParallelEmbedding(Parameter* weight, const TensorParallel& tp) : weight_(weight), tp_(tp) {}  // weight [V_local, H]
  // x [T_local, H] from tokens [T] int32.
  void forward(const Context& context, const Tensor& tokens, const Tensor& x) const;
  // Adds to the weight's gradient; dx [T_local, H].
  void backward(const Context& context, const Tensor& dx, const Tensor& tokens) const;

 private:
  std::int64_t first_id() const { return weight_->slabs[0].row_begin; }
  Parameter* weight_;
  TensorParallel tp_;
};

}  // namespace af
