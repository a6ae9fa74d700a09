// Readers of launch/: the configuration, config.json, Hugging Face folders.
#include <cmath>
#include <filesystem>

#include "core/error.h"
#include "data/file.h"
#include "launch/config_yaml.h"
#include "launch/hf_checkpoint.h"
#include "launch/hf_config.h"
#include "tests/fuzz/target.h"
#include "tests/fuzz/toy.h"

namespace af::fuzz {
namespace {

constexpr char kRun[] = R"(# two stages of a tiny model
output_dir: run
seed: 1234
model: {preset: tiny_moe}
parallel: &layout
  tensor_model_parallel_size: 2
  pipeline_model_parallel_size: 2
moe: {moe_router_load_balancing_type: global_aux_loss, moe_aux_loss_coeff: 1e-2}
stages:
  - name: stage1               # short context
    seq_length: 64
    train_tokens: 1.2e6
    micro_batch_size: 8
    global_batch_size: 8
    lr: &lr {lr: 3e-3, min_lr: 6e-4, lr_decay_style: cosine, lr_warmup_fraction: 0.05}
    data: &data
      - {path: pages.h5, weight: 0.6}
      - {path: "trajectories.h5", weight: 0.4}
  - {name: 'stage2', seq_length: 128, train_iters: 3, global_batch_size: 4, rope_theta: 40000, lr: *lr, data: *data}
validation: {data: [{path: heldout.h5, name: heldout}], eval_interval: 100, eval_iters: 8}
checkpoint: {save_interval: 200, keep: 2}
)";

Target yaml_target() {
  Target t;
  t.name = "yaml";
  t.rule = "what is read is printed, and the print read again, as the same configuration";
  t.corpus = {{{"run.yaml", kRun}}, {{"run.yaml", to_yaml(parse_config(kRun, "run.yaml", {}))}}};
  t.read = [](const std::string& folder) {
    const std::string text = to_yaml(read_config(folder + "/run.yaml", {}));
    if (to_yaml(parse_config(text, "again", {})) != text) throw SilentDamage("does not read back:\n" + text);
    return text;
  };
  return t;
}

Target hf_config_target() {
  Target t;
  t.name = "hf-config";
  t.rule = "the model has no problem, and what is written of it reads back";
  Json yarn = write_hf_config(model_preset("tiny_moe"), "bfloat16");
  yarn.set("rope_scaling", Json::parse(R"({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "beta_fast": 33.0})", "yarn"));
  t.corpus = {{{"config.json", yarn.dump(2)}},
              {{"config.json", write_hf_config(model_preset("tiny_dense"), "float32").dump(2)}},
              {{"config.json", write_hf_config(model_preset("qwen3_30b_a3b"), "bfloat16").dump(2)}}};
  t.read = [](const std::string& folder) {
    const ModelConfig config = read_hf_config(folder);
    const Json written = write_hf_config(config, "bfloat16");
    if (write_hf_config(parse_hf_config(written, "again"), "bfloat16") != written) throw SilentDamage("does not read back: " + written.dump());
    return written.dump();
  };
  return t;
}

Target hf_target() {
  Target t;
  t.name = "hf";
  t.rule = "every weight is a number that is finite";
  for (const bool sharded : {false, true}) {
    const std::string folder = scratch_folder() + (sharded ? "/hf_sharded" : "/hf");
    const ToyState toy;
    HfExport options;
    options.dtype = sharded ? "BF16" : "F32";
    if (sharded) options.max_shard_size = 2000;
    export_hf(folder, toy.config, tensors_of(toy.set, toy.set.values()), options);
    t.corpus.push_back(read_files(folder));
  }
  t.read = [](const std::string& folder) {
    ToyState toy;
    import_hf(folder, toy.config, toy.set);
    const Tensor values = toy.set.values();
    for (std::int64_t i = 0; i < values.numel(); ++i)
      if (!std::isfinite(static_cast<const float*>(values.data)[i])) throw SilentDamage(fmt::format("weight {} is not finite", i));
    return toy.text();
  };
  return t;
}

}  // namespace

std::vector<Target> launch_targets() { return {yaml_target(), hf_config_target(), hf_target()}; }

}  // namespace af::fuzz
