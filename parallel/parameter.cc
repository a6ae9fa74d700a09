#include "parallel/parameter.h"

#include <algorithm>
#include <utility>

namespace af {

Range part_of(std::int64_t size, std::int64_t count, std::int64_t index) {
  std::int64_t base = size / count, larger = size % count;
  std::int64_t begin = index * base + std::min(index, larger);
  return {begin, begin + base + (index < larger ? 1 : 0)};
}

Parameter whole_parameter(std::string name, std::string published_name, const Shape& shape) {
  return row_parameter(std::move(name), std::move(published_name), shape, {0, shape[0]});
}

Parameter row_parameter(std::string name, std::string published_name, const Shape& global_shape, Range rows) {
  Parameter p;
  p.name = std::move(name);
  std::int64_t cols = global_shape.rank > 1 ? global_shape[1] : 1;
  p.shape = global_shape.rank > 1 ? Shape{rows.size(), cols} : Shape{rows.size()};
  p.slabs.push_back({std::move(published_name), global_shape, rows.begin, rows.size(), 0, cols, 0});
  return p;
}

Parameter column_parameter(std::string name, std::string published_name, const Shape& global_shape, Range columns) {
  Parameter p;
  p.name = std::move(name);
  p.shape = {global_shape[0], columns.size()};
  p.slabs.push_back({std::move(published_name), global_shape, 0, global_shape[0], columns.begin, columns.size(), 0});
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
    p.slabs.push_back({part.name, Shape{part.global_rows, cols}, part.rows.begin, part.rows.size(), 0, cols, rows * cols});
    rows += part.rows.size();
  }
  p.shape = Shape{rows, cols};
  return p;
}

}  // namespace af
