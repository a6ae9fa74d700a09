#include "parallel/parameter_set.h"

#include <utility>

#include "core/ops/elementwise.h"
#include "core/random.h"

namespace af {
namespace {

constexpr std::int64_t kLine = 64 / 2;  // elements on a 64-byte line of the smallest type

std::int64_t rounded_up(std::int64_t n, std::int64_t to) { return (n + to - 1) / to * to; }

// The sum over stages comes when both have done their last backward: nothing else should wait for it.
bool is_tied(const Parameter& p) {
  for (const ReplicatedRange& range : p.replicated)
    if (range.group.size() > 1 && range.group.axis() == Axis::pp) return true;
  return false;
}

}  // namespace

Sharding sharding_of(const Mesh& mesh) { return {mesh.dp_cp.size(), mesh.dp_cp.rank(), mesh.edp.size(), mesh.edp.rank()}; }

Parameter* ParameterSet::add(Parameter parameter) {
  AF_CHECK(buckets_.empty(), "{} was added after the buffers were laid out", parameter.name);
  parameters_.push_back(std::move(parameter));
  return &parameters_.back();
}

void ParameterSet::lay_out(const Sharding& sharding) {
  AF_CHECK(buckets_.empty(), "parameters are laid out once");
  std::int64_t at = 0;
  for (Grid grid : {Grid::dense, Grid::expert}) {
    const int ranks = grid == Grid::dense ? sharding.dense_ranks : sharding.expert_ranks, rank = grid == Grid::dense ? sharding.dense_rank : sharding.expert_rank;
    Bucket bucket{grid, ranks, rank, at, at, {}};
    bool after_apart = false;
    auto close = [&] {
      if (bucket.parameters.empty()) return;
      at = bucket.end = bucket.begin + rounded_up(at - bucket.begin, ranks * kLine);
      buckets_.push_back(std::exchange(bucket, {grid, ranks, rank, at, at, {}}));
    };
    for (const Parameter& p : parameters_) {
      if (p.grid != grid) continue;
      const bool apart = is_tied(p) || p.uneven;
      if (apart || after_apart || at - bucket.begin >= sharding.bucket_numel) close();
      bucket.parameters.push_back(&p);
      bucket.tied = is_tied(p);
      after_apart = apart;
      places_[&p] = {at, int(buckets_.size())};
      at += rounded_up(p.numel(), kLine);
    }
    close();
  }
  padded_ = at;
}

void ParameterSet::allocate(const Sharding& sharding) {
  allocate_values(sharding);
  allocate_gradients();
}

void ParameterSet::allocate_values(const Sharding& sharding) {
  lay_out(sharding);
  value_buffer_ = Buffer(device_, std::size_t(padded_) * size_of(dtype_));
  values_ = Tensor(value_buffer_.data(), dtype_, {padded_});
  Arena scratch(device_, "parameter set");
  fill(Context{device_, scratch}, values_, 0);
  for (Parameter& p : parameters_) p.value = values_.slice_rows(begin_of(p), begin_of(p) + p.numel()).view(p.shape);
}

void ParameterSet::allocate_gradients() {
  DType accumulator = accumulator_of(dtype_);
  gradient_buffer_ = Buffer(device_, std::size_t(padded_) * size_of(accumulator));
  gradients_ = Tensor(gradient_buffer_.data(), accumulator, {padded_});
  Arena scratch(device_, "parameter set");
  fill(Context{device_, scratch}, gradients_, 0);
  for (Parameter& p : parameters_) p.gradient = gradients_.slice_rows(begin_of(p), begin_of(p) + p.numel()).view(p.shape);
}

void ParameterSet::release_values() {
  for (Parameter& p : parameters_) p.value = {};
  values_ = {};
  value_buffer_ = {};
}

void ParameterSet::release_gradients() {
  for (Parameter& p : parameters_) p.gradient = {};
  gradients_ = {};
  gradient_buffer_ = {};
}

std::int64_t ParameterSet::numel() const {
  std::int64_t n = 0;
  for (const Parameter& p : parameters_) n += p.numel();
  return n;
}

std::int64_t ParameterSet::end_of(const Parameter& p) const { return begin_of(p) + rounded_up(p.numel(), kLine); }

ParameterSet::Share ParameterSet::share_of(const Parameter& p) const {
  const Place place = places_.at(&p);
  const Bucket& bucket = buckets_[std::size_t(place.bucket)];
  const std::int64_t begin = std::max(place.begin, bucket.share_begin()), end = std::min(place.begin + p.numel(), bucket.share_end());
  if (begin >= end) return {0, 0, 0, place.bucket};
  return {begin - place.begin, end - place.begin, begin - bucket.share_begin(), place.bucket};
}

Tensor slab_view(const Slab& slab, const Tensor& flat) {
  return flat.view({flat.numel()}).slice_rows(slab.offset, slab.offset + slab.rows * slab.cols).view({slab.rows, slab.cols});
}

void initialize(const Context& context, ParameterSet& set, std::uint64_t seed, double std) {
  for (Parameter& p : set.parameters()) {
    if (p.init == InitMethod::ones) {
      fill(context, p.value, 1);
      continue;
    }
    for (const Slab& slab : p.slabs) {
      std::int64_t global_cols = slab.global_shape.rank > 1 ? slab.global_shape[1] : 1;
      fill_normal(context, {seed, hash_name(slab.name), slab.row_begin, slab.col_begin, global_cols}, std, slab_view(slab, p.value));
    }
  }
}

}  // namespace af
