// The flat buffers behind a model's parameters: values and gradients, cut in buckets, of which every rank that holds the
// same parameters has a share of its own (the distributed optimizer's, ZeRO-1).
//
//   ParameterSet set(device, DType::bf16);
//   Qwen3Model model(config, device, set);     // add()s its parameters
//   set.allocate(sharding_of(mesh));           // or allocate(): one rank
//
// The buffers hold first the dense parameters, then the experts' (Parameter::grid), in the order in which they were added.
// A bucket is a run of them: one collective. Part r of every bucket is the share of rank r.
#pragma once
#include <algorithm>
#include <deque>
#include <unordered_map>
#include <vector>

#include "core/memory.h"
#include "parallel/mesh.h"
#include "parallel/parameter.h"

namespace af {

// Ranks that hold the same dense parameters, and the same experts, and which of them this one is.
struct Sharding {
  int dense_ranks = 1, dense_rank = 0;    // mesh.dp_cp
  int expert_ranks = 1, expert_rank = 0;  // mesh.edp
  std::int64_t bucket_numel = 40'000'000;  // a bucket that has as many elements is full
};
Sharding sharding_of(const Mesh& mesh);

struct Bucket {
  Grid grid;
  int ranks, rank;                         // of the group that shares it
  std::int64_t begin, end;                 // in the flat buffers; a multiple of ranks x 64 bytes
  std::vector<const Parameter*> parameters;  // ascending
  bool tied = false;                       // an embedding whose gradient another stage must add to: alone in its bucket

  std::int64_t share_numel() const { return (end - begin) / ranks; }
  std::int64_t share_begin() const { return begin + rank * share_numel(); }
  std::int64_t share_end() const { return share_begin() + share_numel(); }
};

class ParameterSet {
 public:
  ParameterSet(const Device& device, DType dtype) : device_(device), dtype_(dtype) {}
  // Takes a description; the returned pointer stays valid. Value and gradient are empty until allocate().
  Parameter* add(Parameter parameter);
  // Lays out the parameters, each begin on a 64-byte line, values and gradients at the same offsets. Both are zero.
  void allocate(const Sharding& sharding = {});
  // The layout alone, without memory: buckets() and where parameters lie, for plans. allocate() begins with it.
  void lay_out(const Sharding& sharding);
  // The same in two steps, and the end of each: where memory is short (placement.h).
  void allocate_values(const Sharding& sharding);
  void allocate_gradients();
  void release_values();
  void release_gradients();

  DType dtype() const { return dtype_; }
  std::deque<Parameter>& parameters() { return parameters_; }
  const std::deque<Parameter>& parameters() const { return parameters_; }
  const std::vector<Bucket>& buckets() const { return buckets_; }
  int bucket_of(const Parameter& parameter) const { return places_.at(&parameter).bucket; }           // its index in buckets()
  std::int64_t begin_of(const Parameter& parameter) const { return places_.at(&parameter).begin; }  // first element in the flat buffers
  std::int64_t end_of(const Parameter& parameter) const;    // likewise, with the padding to the next line
  const Tensor& values() const { return values_; }          // [padded size] in dtype()
  const Tensor& gradients() const { return gradients_; }    // [padded size] in the accumulator type
  std::int64_t numel() const;                               // of the parameters, without padding

  // Elements [begin, end) of a parameter are this rank's share of it, from element `offset` of its bucket's share; begin ==
  // end where there are none.
  struct Share {
    std::int64_t begin = 0, end = 0, offset = 0;
    int bucket = 0;
  };
  Share share_of(const Parameter& parameter) const;

 private:
  struct Place {
    std::int64_t begin;
    int bucket;
  };
  Device device_;
  DType dtype_;
  std::deque<Parameter> parameters_;
  std::vector<Bucket> buckets_;
  std::unordered_map<const Parameter*, Place> places_;
  std::int64_t padded_ = 0;
  Buffer value_buffer_, gradient_buffer_;
  Tensor values_, gradients_;
};

// The rectangle [rows, cols] of a slab within its parameter's value, gradient or optimizer state.
Tensor slab_view(const Slab& slab, const Tensor& parameter);

// Calls f(begin, end) for the parts of [begin, end) of a parameter that this rank counts: of what other ranks of its
// replica groups hold as well, their rank 0 counts it.
template <class F>
void for_each_counted(const Parameter& parameter, std::int64_t begin, std::int64_t end, F f) {
  for (const ReplicatedRange& range : parameter.replicated) {
    if (range.group.rank() == 0 || range.end <= begin) continue;
    if (range.begin >= end) break;
    if (begin < range.begin) f(begin, range.begin);
    begin = std::min(range.end, end);
  }
  if (begin < end) f(begin, end);
}

// HF's random initialisation, the same bits in every layout: normal(0, std) by (seed, published name, global index); norms 1.
void initialize(const Context& context, ParameterSet& set, std::uint64_t seed, double std);

}  // namespace af
