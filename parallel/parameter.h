// A parameter knows its place. What this rank holds of the model's tensors is described once, here; initialisation,
// checkpoints, Hugging Face import and export, the gradient norm and the optimizer all read this one description.
#pragma once
#include <string>
#include <vector>

#include "core/tensor.h"
#include "parallel/comm.h"

namespace af {

// A rectangle of one published tensor (HF name) and where it lies in this rank's memory. A fused parameter (qkv,
// gate-up, a group of experts) is a list of slabs: not one rectangle.
struct Slab {
  std::string name;                    // "model.layers.3.self_attn.q_proj.weight"
  Shape global_shape;                  // of the whole tensor, [out, in] or [n]
  std::int64_t row_begin = 0, rows = 0;  // the rows and columns this rank holds
  std::int64_t col_begin = 0, cols = 0;
  std::int64_t offset = 0;             // element within the parameter where its row-major [rows, cols] block begins
};

// Which of the two grids (parallel/mesh.h) holds copies of a parameter: dense ones are summed over dp_cp, experts over edp.
enum class Grid { dense, expert };

// Elements [begin, end) of a parameter that the ranks of `group` hold as well, beside the copies of its grid: one of them
// (rank 0) counts them. Partial: each has a part of the gradient only, to be summed over the group.
enum class Gradients { equal, partial };
struct ReplicatedRange {
  std::int64_t begin, end;
  Comm group;
  Gradients gradients;
};

enum class InitMethod { normal, ones };       // normal(0, initializer_range), or a norm's weight
enum class WeightDecay { no, yes };           // none on norms

// The values and their gradients are views into the flat buffers of a ParameterSet (parameter_set.h).
struct Parameter {
  std::string name;     // local: "layers.3.attention.qkv"
  Shape shape;          // local
  std::vector<Slab> slabs;
  InitMethod init = InitMethod::normal;
  WeightDecay weight_decay = WeightDecay::yes;
  Grid grid = Grid::dense;
  std::vector<ReplicatedRange> replicated;  // disjoint, ascending
  bool uneven = false;  // other ranks of tp hold more or less of it: its bucket is its own, so that theirs are cut alike
  Tensor value;         // [shape] in the compute type
  Tensor gradient;      // [shape] in the accumulator type

  std::int64_t numel() const { return shape.numel(); }
};

// Part `index` of [0, size) cut in `count` parts, the first ones larger by one where it does not divide.
struct Range {
  std::int64_t begin = 0, end = 0;
  std::int64_t size() const { return end - begin; }
};
Range part_of(std::int64_t size, std::int64_t count, std::int64_t index);

// The rows and columns [begin, end) of a published matrix. Without ranges: a whole tensor.
Parameter whole_parameter(std::string name, std::string published_name, const Shape& shape);
Parameter row_parameter(std::string name, std::string published_name, const Shape& global_shape, Range rows);
Parameter column_parameter(std::string name, std::string published_name, const Shape& global_shape, Range columns);
// A norm's weight [size]: ones, not decayed.
Parameter norm_parameter(std::string name, std::string published_name, std::int64_t size);
// Rows of several published matrices with the same number of columns, one after the other: q, k, v or gate, up.
struct NamedRows {
  std::string name;
  std::int64_t global_rows;
  Range rows;
};
Parameter stacked_parameter(std::string name, const std::vector<NamedRows>& parts, std::int64_t cols);

}  // namespace af
