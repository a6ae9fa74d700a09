// Data parallelism over the buckets of a ParameterSet: gradients are summed into the shares while the backward goes on,
// values are gathered from the shares while the next forward does. With groups of one rank nothing happens.
//
//   GradientReducer reducer(mesh, set, overlap_grad_reduce);       once a stage
//   ParameterGatherer gatherer(mesh, set, overlap_param_gather);
//   ... forward: gatherer.need(parameter) before each use of its value (validation and checkpoints: gatherer.finish())
//   ... backward of the last micro-batch: reducer.complete(parameter) after the last addition to its gradient
//   reducer.finish(); optimizer.step(...); gatherer.start();
//
// Elements moved per rank and step for a bucket of n elements in a group of d: n (d-1)/d each way, gradients in the
// accumulator type, values in their own; and for a partial range (parameter.h) of m elements in a group of g what an
// all-reduce moves, 2 m (g-1)/g.
#pragma once
#include <vector>

#include "parallel/mesh.h"
#include "parallel/parameter_set.h"

namespace af {

// When a bucket's gradients are complete: partial ranges are summed over their groups, then the bucket is reduce-scattered over
// mesh.dp_cp or mesh.edp. Buckets go last parameter first, tied embeddings at the end; one that is complete early waits for its
// turn, so that all ranks of a group begin the same. The ranks of a replica group must complete their parameters in the same order.
class GradientReducer {
 public:
  GradientReducer(const Mesh& mesh, const ParameterSet& set, bool overlap);
  // No more is added to this gradient in this step. Each parameter at most once a step.
  void complete(const Parameter& parameter);
  // All gradients are complete. On return this rank's shares of the buckets hold their sums; the rest of the buckets is undefined.
  void finish();

 private:
  struct Sum {  // of a partial range, or of several side by side
    std::int64_t begin, end;  // in the flat buffer
    Comm group;
    Pending pending{};
  };
  struct State {
    int incomplete = 0;  // parameters
    bool complete = false;
    std::vector<Sum> sums;
    Pending scatter{};
  };
  void begin_sums(State& state);
  void scatter(int bucket);
  void advance();

  Mesh mesh_;
  const ParameterSet& set_;
  bool overlap_;
  std::vector<State> states_;  // by bucket
  std::vector<int> order_;     // of the buckets
  std::size_t next_ = 0;       // order_[next_] is to be scattered next
};

class ParameterGatherer {
 public:
  ParameterGatherer(const Mesh& mesh, const ParameterSet& set, bool overlap);
  // Each rank has new values in its shares: the others shall have them.
  void start();
  // Returns when the parameter's value is whole. All ranks of a group need their parameters in the same order.
  void need(const Parameter& parameter) {
    if (whole_ < order_.size()) wait_for(parameter);
  }
  void finish();  // all values are whole

 private:
  void wait_for(const Parameter& parameter);
  void begin_until(std::size_t end);  // places before `end`
  void wait_until(std::size_t end);
  static constexpr std::size_t kAhead = 2;  // buckets under way beside the one that is waited for

  Mesh mesh_;
  const ParameterSet& set_;
  bool overlap_;
  std::vector<Pending> pending_;  // by place in the order
  std::vector<int> order_;        // of the buckets: as the forward uses them
  std::vector<std::size_t> place_;  // of a bucket in the order
  std::size_t begun_, whole_;     // places before these are begun, and done
};

}  // namespace af
