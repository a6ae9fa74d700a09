#include "parallel/parameter.h"

#include <utility>

namespace af {

Parameter whole_parameter(std::string name, std::string published_name, const Shape& shape) {
  Parameter p;
  p.name = std::move(name);
  p.shape = shape;
  Slab slab{std::move(published_name), shape, 0, shape[0], 0, shape.rank > 1 ? shape[1] : 1, 0};
  p.slabs.push_back(std::move(slab));
  return p;
}

Parameter norm_parameter(std::string name, std::string published_name, std::int64_t size) {
  Parameter p = whole_parameter(std::move(name), std::move(published_name), {size});
  p.init = InitMethod::ones;
  p.weight_decay = WeightDecay::no;
  return p;
}

Parameter stacked_parameter(std::string name, const std::vector<NamedRows>& parts, std::int64_t cols) {
  Parameter p;
  p.name = std::move(name);
  std::int64_t rows = 0;
  for (const NamedRows& part : parts) {
    p.slabs.push_back({part.name, Shape{part.rows, cols}, 0, part.rows, 0, cols, rows * cols});
    rows += part.rows;
  }
  p.shape = Shape{rows, cols};
  return p;
}

}  // namespace af
