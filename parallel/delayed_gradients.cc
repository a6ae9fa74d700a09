#include "parallel/delayed_gradients.h"

namespace af {

void DelayedGradients::add(const Linear& linear, const Tensor& dy, const Tensor& x) { products_.push_back({&linear, nullptr, nullptr, dy, x, {}}); }

void DelayedGradients::add(const ColumnParallelLinear& linear, const Tensor& dy, const Tensor& x) {
  products_.push_back({&linear, &linear.tensor_parallel(), nullptr, dy, x, {}});
}

void DelayedGradients::add(Parameter* experts, const Tensor& dy, const Tensor& x, std::span<const std::int64_t> offsets) {
  products_.push_back({nullptr, nullptr, experts, dy, x, offsets});
}

void DelayedGradients::run(const Context& context) {
  for (const Product& p : products_) {
    Arena::Scope scope(context.scratch);
    if (p.experts) grouped_matmul_weight_gradient(context, p.dy, p.x, p.offsets, p.experts->gradient);
    else p.linear->backward_weight(context, p.dy, p.gather ? p.gather->enter(context.scratch, p.x) : p.x);
  }
  products_.clear();
}

}  // namespace af
