#include "launch/layout.h"

#include <fmt/format.h>

#include <algorithm>

#include "models/flops.h"
#include "models/model_parallel.h"

namespace af {
namespace {

MeshShape mesh_of(const ModelConfig& model, const ParallelConfig& p, int world) {
  MeshShape m;
  m.tp = int(p.tensor_model_parallel_size);
  m.cp = int(p.context_parallel_size);
  m.pp = int(p.pipeline_model_parallel_size);
  m.dp = std::max(1, world / (m.tp * m.cp * m.pp));
  m.ep = int(p.expert_model_parallel_size);
  m.etp = p.expert_tensor_parallel_size > 0 ? int(p.expert_tensor_parallel_size) : model.num_experts > 0 ? m.tp : 1;
  m.sequence_parallel = p.sequence_parallel && m.tp > 1;
  return m;
}

// Some eight buckets, so that there is something to overlap, of at most Megatron's size and at least what is worth a collective. Of the
// whole model's sizes: the same on every rank.
std::int64_t bucket_size(const ModelConfig& model, const MeshShape& m) {
  const ParameterCounts n = count_parameters(model);
  std::int64_t own = (n.total() - n.experts) / (m.tp * m.pp) + n.experts / (m.ep * m.etp * m.pp);
  return std::clamp<std::int64_t>(own / 8, 1 << 18, Sharding{}.bucket_numel);
}

void check_stage(const ModelConfig& model, const StageConfig& stage, int world, std::vector<std::string>& found) {
  ParallelLayout layout = layout_of(model, stage, world);
  const MeshShape& m = layout.mesh;
  found = problems(m, world);
  if (!found.empty()) return;
  found = problems(m, model);
  std::int64_t samples = stage.micro_batch_size * m.dp, cut = m.cp > 1 ? 2 * m.cp : 1;
  if (stage.global_batch_size % samples)
    found.push_back(fmt::format("global_batch_size {} is no multiple of micro_batch_size {} x data-parallel size {} ({} processes / (TP {} x CP {} x PP {})); {} or {} would be",
                                stage.global_batch_size, stage.micro_batch_size, m.dp, world, m.tp, m.cp, m.pp,
                                std::max<std::int64_t>(stage.global_batch_size / samples, 1) * samples, (stage.global_batch_size / samples + 1) * samples));
  if (stage.seq_length % cut)
    found.push_back(fmt::format("seq_length {} is no multiple of 2 x context_parallel_size {}: each rank takes two chunks of a sequence; {} would be",
                                stage.seq_length, m.cp, (stage.seq_length / cut + 1) * cut));
  else if (m.sequence_parallel && stage.micro_batch_size * stage.seq_length / m.cp % m.tp)
    found.push_back(fmt::format("{} x {} tokens / context_parallel_size {} = {} cannot be cut in tensor_model_parallel_size {} for sequence_parallel",
                                stage.micro_batch_size, stage.seq_length, m.cp, stage.micro_batch_size * stage.seq_length / m.cp, m.tp));
  if (!found.empty()) return;
  ScheduleShape shape{layout.schedule, m.pp, layout.virtual_size, int(stage.num_microbatches(m.dp)), layout.virtual_group};
  for (const std::string& problem : problems(shape)) found.push_back(problem);
  try {
    pipeline_layout_of(model, layout);
  } catch (const UserError& error) {
    found.push_back(error.what());
  }
}

}  // namespace

ParallelLayout layout_of(const ModelConfig& model, const StageConfig& stage, int world) {
  const ParallelConfig& p = stage.parallel;
  ParallelLayout layout;
  layout.mesh = mesh_of(model, p, world);
  layout.schedule = stage.pipeline.schedule;
  layout.virtual_size = int(p.virtual_pipeline_model_parallel_size);
  layout.virtual_group = int(stage.pipeline.microbatch_group_size_per_vp_stage);
  layout.pipeline_layout = p.pipeline_model_parallel_layout;
  layout.bucket_numel = bucket_size(model, layout.mesh);
  layout.overlap_grad_reduce = p.overlap_grad_reduce;
  layout.overlap_param_gather = p.overlap_param_gather;
  return layout;
}

std::vector<std::string> layout_problems(const Config& config, int world) {
  std::vector<std::string> all;
  for (const StageConfig& stage : config.stages) {
    std::vector<std::string> found;
    check_stage(config.model, stage, world, found);
    for (const std::string& problem : found) all.push_back(fmt::format("{}: stage {}: {}", stage.parallel.where.empty() ? stage.where : stage.parallel.where, stage.name, problem));
  }
  return all;
}

std::string describe(const ParallelLayout& layout) {
  const MeshShape& m = layout.mesh;
  std::string text = fmt::format("TP {}, PP {}, CP {}, DP {}", m.tp, m.pp, m.cp, m.dp);
  if (m.ep > 1 || m.etp > 1) text += fmt::format(", EP {}, ETP {}", m.ep, m.etp);
  if (m.sequence_parallel) text += ", sequence parallel";
  if (m.pp > 1) text += fmt::format(", {}", name_of(layout.schedule));
  if (layout.virtual_size > 1) text += fmt::format(" with {} chunks per rank", layout.virtual_size);
  return text;
}

bool same(const ParallelLayout& a, const ParallelLayout& b) {
  return a.mesh == b.mesh && a.virtual_size == b.virtual_size && a.pipeline_layout == b.pipeline_layout && a.schedule == b.schedule &&
         a.virtual_group == b.virtual_group && a.overlap_grad_reduce == b.overlap_grad_reduce && a.overlap_param_gather == b.overlap_param_gather;
}

}  // namespace af
