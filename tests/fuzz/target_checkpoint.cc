// Checkpoints: a folder that training saved, any of its files damaged.
#include <filesystem>

#include "core/error.h"
#include "launch/checkpoint_saver.h"
#include "tests/fuzz/target.h"
#include "tests/fuzz/toy.h"

namespace af::fuzz {
namespace {

constexpr OptimizerState kStates[] = {OptimizerState::master, OptimizerState::exp_avg, OptimizerState::exp_avg_sq};

Files saved(std::uint64_t seed) {
  ToyState toy;
  for (int bucket = 0; bucket < int(toy.set.buckets().size()); ++bucket)
    for (const OptimizerState state : kStates) {
      const Tensor& t = toy.optimizer->state(state, bucket);
      float* values = static_cast<float*>(t.data);
      for (std::int64_t i = 0; i < t.numel(); ++i) values[i] = float(random_uniform(seed, std::uint64_t(state), std::uint64_t(i)));
    }
  toy.optimizer->set_steps(7);
  TrainingState state;
  state.stage_name = "one";
  state.iteration = state.stage_iteration = 7;
  state.consumed_samples = 28;
  state.consumed_tokens = 1792;
  state.stream.consumed_sequences = 28;
  const std::string root = scratch_folder() + fmt::format("/checkpoints{}", seed);
  CheckpointSaver saver(root, {});
  saver.begin(state, toy.parts(), "seed: 1\n");
  const SaveOutcome outcome = saver.finish().value();
  AF_CHECK(outcome.error.empty(), "{}", outcome.error);
  return read_files(outcome.path);
}

}  // namespace

Target checkpoint_target() {
  Target t;
  t.name = "checkpoint";
  t.rule = "everything has checksums: what is loaded is what was saved";
  t.corpus = {saved(1), saved(2)};
  t.exact = true;
  t.library = true;
  t.read = [](const std::string& folder) {
    ToyState toy;
    const TrainingState state = load_checkpoint(toy.context, folder, toy.parts());
    std::string out = fmt::format("{} {} {} {} {} {} {} {} {}\n", state.stage, state.stage_name, state.stage_iteration, state.stage_finished,
                                  state.iteration, state.consumed_samples, state.consumed_tokens, state.skipped, toy.optimizer->steps());
    for (const RouterStatistics& router : toy.router) out += fmt::format("{}\n", fmt::join(router.previous_counts, " "));
    for (int bucket = 0; bucket < int(toy.set.buckets().size()); ++bucket)
      for (const OptimizerState kind : kStates) {
        const Tensor& values = toy.optimizer->state(kind, bucket);
        out += sha256_hex({static_cast<const char*>(values.data), std::size_t(values.numel()) * size_of(values.dtype)}) + "\n";
      }
    return out + toy.text();
  };
  return t;
}

}  // namespace af::fuzz
