// The flat buffers behind a model's parameters: values, gradients, and the optimizer's share of them.
#pragma once
#include <deque>
#include <vector>

#include "core/memory.h"
#include "parallel/parameter.h"

namespace af {

class ParameterSet {
 public:
  ParameterSet(const Device& device, DType dtype) : device_(device), dtype_(dtype) {}
  // Takes a description; the returned pointer stays valid. Value and gradient are empty until allocate().
  Parameter* add(Parameter parameter);
  // Lays all parameters one after the other, each begin on a 64-byte line, values and gradients at the same offsets;
  // padding and gradients are zero, values are not initialised.
  void allocate();

  DType dtype() const { return dtype_; }
  std::deque<Parameter>& parameters() { return parameters_; }
  const std::deque<Parameter>& parameters() const { return parameters_; }
  std::int64_t begin_of(const Parameter& parameter) const;  // first element in the flat buffers
  const Tensor& values() const { return values_; }          // [padded size] in dtype()
  const Tensor& gradients() const { return gradients_; }    // [padded size] in the accumulator type
  std::int64_t numel() const;                               // without padding

 private:
  Device device_;
  DType dtype_;
  std::deque<Parameter> parameters_;
  Buffer value_buffer_, gradient_buffer_;
  Tensor values_, gradients_;
};

// The rectangle [rows, cols] of a slab within its parameter's value, gradient or optimizer state.
Tensor slab_view(const Slab& slab, const Tensor& parameter);

// HF's random initialisation, the same bits in every layout: normal(0, std) by (seed, published name, global index); norms 1.
void initialize(const Context& context, ParameterSet& set, std::uint64_t seed, double std);

}  // namespace af
