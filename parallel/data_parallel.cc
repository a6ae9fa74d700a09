#include "parallel/data_parallel.h"

#include <algorithm>
#include <numeric>

namespace af {
namespace {

const Comm& group_of(const Mesh& mesh, const Bucket& bucket) { return bucket.grid == Grid::dense ? mesh.dp_cp : mesh.edp; }

// Buckets by their first parameter's place in the model, dense and experts' among each other.
std::vector<int> forward_order(const ParameterSet& set) {
  std::unordered_map<const Parameter*, int> index;
  for (const Parameter& p : set.parameters()) index.emplace(&p, int(index.size()));
  std::vector<int> order(set.buckets().size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(),
            [&](int a, int b) { return index[set.buckets()[std::size_t(a)].parameters[0]] < index[set.buckets()[std::size_t(b)].parameters[0]]; });
  return order;
}

}  // namespace

GradientReducer::GradientReducer(const Mesh& mesh, const ParameterSet& set, bool overlap)
    : mesh_(mesh), set_(set), overlap_(overlap), states_(set.buckets().size()), order_(forward_order(set)) {
  // A bucket is complete when the backward has passed its first parameter.
  std::reverse(order_.begin(), order_.end());
  std::stable_partition(order_.begin(), order_.end(), [&](int b) { return !set.buckets()[std::size_t(b)].tied; });
  for (std::size_t b = 0; b < states_.size(); ++b) {
    State& state = states_[b];
    for (const Parameter* p : set.buckets()[b].parameters) {
      for (const ReplicatedRange& range : p->replicated) {
        if (range.gradients != Gradients::partial || range.group.size() == 1) continue;
        const std::int64_t begin = set.begin_of(*p) + range.begin, end = range.end == p->numel() ? set.end_of(*p) : set.begin_of(*p) + range.end;
        // Norms and the like lie side by side, but for padding, which is zero: one sum.
        Sum* last = state.sums.empty() ? nullptr : &state.sums.back();
        const bool joins = last && last->end == begin && last->group.axis() == range.group.axis() && last->group.size() == range.group.size();
        if (joins) last->end = end;
        else state.sums.push_back({begin, end, range.group});
      }
    }
    state.incomplete = int(set.buckets()[b].parameters.size());
  }
}

void GradientReducer::complete(const Parameter& parameter) {
  if (!overlap_) return;
  State& state = states_[std::size_t(set_.bucket_of(parameter))];
  AF_CHECK(state.incomplete > 0, "{}: its bucket is complete already", parameter.name);
  if (--state.incomplete > 0) return;
  begin_sums(state);
  advance();
}

void GradientReducer::begin_sums(State& state) {
  state.complete = true;
  for (Sum& sum : state.sums) sum.pending = sum.group.all_reduce(set_.gradients().slice_rows(sum.begin, sum.end));
}

void GradientReducer::scatter(int index) {
  const Bucket& bucket = set_.buckets()[std::size_t(index)];
  const Tensor& gradients = set_.gradients();
  states_[std::size_t(index)].scatter =
      group_of(mesh_, bucket).reduce_scatter(gradients.slice_rows(bucket.begin, bucket.end), gradients.slice_rows(bucket.share_begin(), bucket.share_end()));
}

// Begins the scatters whose turn it is, without waiting for anything.
void GradientReducer::advance() {
  for (; next_ < order_.size(); ++next_) {
    const State& state = states_[std::size_t(order_[next_])];
    if (!state.complete || !std::all_of(state.sums.begin(), state.sums.end(), [](const Sum& sum) { return sum.pending.done(); })) return;
    scatter(order_[next_]);
  }
}

void GradientReducer::finish() {
  for (int b : order_) {
    State& state = states_[std::size_t(b)];
    if (!state.complete) begin_sums(state);
    if (!overlap_)
      for (Sum& sum : state.sums) sum.pending.wait();
  }
  for (; next_ < order_.size(); ++next_) {
    State& state = states_[std::size_t(order_[next_])];
    for (Sum& sum : state.sums) sum.pending.wait();
    scatter(order_[next_]);
    if (!overlap_) state.scatter.wait();
  }
  for (int b : order_) {
    State& state = states_[std::size_t(b)];
    state.scatter.wait();
    state.complete = false;
    state.incomplete = int(set_.buckets()[std::size_t(b)].parameters.size());
  }
  next_ = 0;
}

ParameterGatherer::ParameterGatherer(const Mesh& mesh, const ParameterSet& set, bool overlap)
    : mesh_(mesh), set_(set), overlap_(overlap), pending_(set.buckets().size()), order_(forward_order(set)), place_(order_.size()) {
  for (std::size_t i = 0; i < order_.size(); ++i) place_[std::size_t(order_[i])] = i;
  begun_ = whole_ = order_.size();
}

void ParameterGatherer::start() {
  finish();
  begun_ = whole_ = 0;
  if (!overlap_) finish();
  else if (!order_.empty()) begin_until(kAhead + 1);
}

void ParameterGatherer::begin_until(std::size_t end) {
  for (end = std::min(end, order_.size()); begun_ < end; ++begun_) {
    const Bucket& bucket = set_.buckets()[std::size_t(order_[begun_])];
    const Tensor& values = set_.values();
    pending_[begun_] = group_of(mesh_, bucket).all_gather(values.slice_rows(bucket.share_begin(), bucket.share_end()), values.slice_rows(bucket.begin, bucket.end));
  }
}

void ParameterGatherer::wait_until(std::size_t end) {
  for (; whole_ < end; ++whole_) {
    begin_until(whole_ + 1 + (overlap_ ? kAhead : 0));
    pending_[whole_].wait();
  }
}

void ParameterGatherer::wait_for(const Parameter& parameter) { wait_until(place_[std::size_t(set_.bucket_of(parameter))] + 1); }

void ParameterGatherer::finish() { wait_until(order_.size()); }

}  // namespace af
