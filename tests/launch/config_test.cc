// Reading, checking and printing the configuration.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "core/error.h"
#include "launch/config_checks.h"
#include "launch/config_yaml.h"
#include "launch/layout.h"
#include "launch/yaml_node.h"

namespace af {
namespace {

// As in the documentation: sections in one line, both stages.
const char* const kRun = R"(output_dir: runs/cpt
model: {preset: tiny_moe}
recompute: {recompute_granularity: selective, recompute_modules: [moe_act, layernorm]}
optimizer: {optimizer: adamw, adam_beta1: 0.9, adam_beta2: 0.98, adam_eps: 1e-8, weight_decay: 0.1, clip_grad: 1.0}
moe: {moe_router_load_balancing_type: global_aux_loss, moe_aux_loss_coeff: 1e-3}
stages:
  - name: stage1
    seq_length: 1024
    train_tokens: 2e6
    micro_batch_size: 2
    global_batch_size: 8
    lr: {lr: 2e-5, min_lr: 2e-6, lr_decay_style: cosine, lr_warmup_fraction: 0.01}
    data:
      - {path: fas_planning.h5, weight: 0.55}
      - {path: general.h5, weight: 0.10, name: replay}
  - name: stage2
    seq_length: 4096
    train_iters: 20
    global_batch_size: 4
    rope_theta: 5e6
    moe: {moe_aux_loss_coeff: 5e-4, moe_expert_capacity_factor: null}
    recompute: {recompute_granularity: full}
    lr: {lr: 1e-5, lr_decay_style: WSD, lr_wsd_decay_iters: 5, lr_wsd_decay_style: minus_sqrt}
    data: [{path: has.h5}]
validation: {data: [{path: heldout.h5, name: heldout}], eval_interval: 100, eval_iters: 3}
checkpoint: {save_interval: 500, keep: 3}
)";

Config parse(const std::string& text, const std::vector<std::string>& overrides = {}) { return parse_config(text, "run.yaml", overrides); }

std::vector<std::string> errors(const std::string& text, const std::vector<std::string>& overrides = {}) {
  std::vector<std::string> lines;
  try {
    parse(text, overrides);
  } catch (const UserError& e) {
    std::istringstream all(e.what());
    for (std::string line; std::getline(all, line);) lines.push_back(line);
  }
  return lines;
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const std::size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

TEST(Config, Reads) {
  const Config c = parse(kRun);
  EXPECT_EQ(c.output_dir, "runs/cpt");
  EXPECT_EQ(c.seed, 1234u);
  EXPECT_EQ(c.model.num_experts, 8);
  EXPECT_EQ(c.init.from, InitConfig::From::random);
  EXPECT_EQ(c.optimizer.settings.beta2, 0.98);
  EXPECT_EQ(c.validation.eval_iters, 3);
  EXPECT_EQ(c.checkpoint.keep, 3);
  ASSERT_EQ(c.stages.size(), 2u);

  const StageConfig& one = c.stages[0];
  EXPECT_EQ(one.train_iters(), 244);  // 2e6 / (8 * 1024) = 244.1
  EXPECT_EQ(one.num_microbatches(1), 4);
  EXPECT_EQ(one.lr.lr_warmup_fraction, 0.01);
  EXPECT_TRUE(one.recompute.moe_act && one.recompute.layernorm && !one.recompute.core_attn);
  EXPECT_EQ(one.rope.theta, 1e6);
  ASSERT_EQ(one.data.size(), 2u);
  EXPECT_EQ(one.data[0].name, "fas_planning");
  EXPECT_EQ(one.data[1].name, "replay");
  EXPECT_EQ(one.data[1].weight, 0.10);
  EXPECT_EQ(one.data[1].where, "run.yaml:15:16");

  const StageConfig& two = c.stages[1];  // its keys on top of the top level's
  EXPECT_EQ(two.train_iters(), 20);
  EXPECT_EQ(two.micro_batch_size, 1);
  EXPECT_EQ(two.rope.theta, 5e6);
  EXPECT_EQ(two.moe.aux_loss_coeff, 5e-4);
  EXPECT_FALSE(two.moe.capacity_factor);
  EXPECT_FALSE(parse(kRun, {"moe.moe_expert_capacity_factor=1.5"}).stages[1].moe.capacity_factor) << "null takes it away";
  EXPECT_EQ(parse(kRun, {"moe.moe_expert_capacity_factor=1.5", "moe.moe_token_drop_policy=position"}).stages[0].moe.capacity_factor, 1.5);
  EXPECT_EQ(two.moe.type, BalanceType::global_aux_loss);
  EXPECT_EQ(one.moe.aux_loss_coeff, 1e-3);
  EXPECT_EQ(two.optimizer.settings.beta2, 0.98);
  EXPECT_EQ(two.recompute.granularity, RecomputeSettings::Granularity::full);
  EXPECT_FALSE(two.recompute.moe_act || two.recompute.layernorm);
  EXPECT_EQ(two.lr.lr_decay_style, LrDecayStyle::wsd);
  EXPECT_EQ(two.lr.lr_wsd_decay_style, WsdDecayStyle::minus_sqrt);
}

TEST(Config, SelectiveRecomputationBeginsWithTheAttention) {
  const Config c = parse(kRun, {"recompute={recompute_granularity: selective}"});
  EXPECT_TRUE(c.stages[0].recompute.core_attn);
  EXPECT_FALSE(c.stages[0].recompute.moe_act);
}

struct Case {
  const char *from, *to;  // in kRun
  const char* message;    // the whole first line
};

TEST(Config, OneMistakeOneMessage) {
  const Case cases[] = {
      {"output_dir: runs/cpt\n", "", "run.yaml:1:1: output_dir is missing"},
      {"output_dir", "output_dri", "run.yaml:1:1: output_dir is missing"},
      {"{preset: tiny_moe}", "{preset: tiny_mo}",
       "run.yaml:2:17: model.preset: no preset is called 'tiny_mo' (did you mean tiny_moe?); there are qwen3_0.6b,"},
      {"{preset: tiny_moe}", "{preset: tiny_moe, head_dim: 8}",
       "run.yaml:2:27: model.head_dim: stands beside preset; give hf_config, or preset, or the fields"},
      {"preset: tiny_moe", "hf_config: nowhere.json", "run.yaml:2:20: model.hf_config: nowhere.json"},
      {"moe_act, layernorm", "moe_act, norm",
       "run.yaml:3:76: recompute.recompute_modules.1: is 'norm'; it must be one of core_attn, layernorm, moe_act, mlp, moe"},
      {"[moe_act, layernorm]", "[]", "run.yaml:3:66: recompute.recompute_modules: names nothing; that is recompute_granularity: none"},
      {"selective", "full", "run.yaml:3:61: recompute.recompute_modules: goes with recompute_granularity: selective only"},
      {"optimizer: adamw", "optimizer: sgd", "run.yaml:4:24: optimizer.optimizer: is 'sgd'; it must be adamw"},
      {"adam_beta1: 0.9", "adam_beta1: 1", "run.yaml:4:43: optimizer.adam_beta1: is '1'; it must be a number at least 0 and below 1"},
      {"adam_eps: 1e-8", "adam_eps: nan", "run.yaml:4:76: optimizer.adam_eps: is 'nan'; it must be a number above 0"},
      {"clip_grad: 1.0", "clip_gard: 1.0", "run.yaml:4:101: optimizer.clip_gard: unknown key; did you mean clip_grad?"},
      {"clip_grad: 1.0", "end_weight_decay: 1", "run.yaml:4:119: optimizer.end_weight_decay: goes with weight_decay_incr_style"},
      {"clip_grad: 1.0", "weight_decay_incr_style: linear", "run.yaml:4:126: optimizer.weight_decay_incr_style: needs end_weight_decay"},
      {"global_aux_loss", "aux_los",
       "run.yaml:5:39: moe.moe_router_load_balancing_type: is 'aux_los'; it must be one of none, aux_loss, seq_aux_loss, global_aux_loss; did you"},
      {"name: stage1", "name: stage/1", "run.yaml:7:11: stages.0.name: is 'stage/1'; checkpoint folders bear it"},
      {"name: stage1", "name: stage2", "run.yaml:7:3: stages: two are called stage2, at run.yaml:7:11 and run.yaml:16:11"},
      {"seq_length: 1024", "seq_length: 1k",
       "run.yaml:8:17: stages.0.seq_length: is '1k'; it must be a whole number, at least 1 and at most 2147483647"},
      {"seq_length: 1024", "seq_length: 1.5", "run.yaml:8:17: stages.0.seq_length: is '1.5'; it must be a whole number"},
      {"seq_length: 1024", "seq_length: \"1024\"", "run.yaml:8:17: stages.0.seq_length: is the text '1024'; it must be a whole number"},
      {"seq_length: 1024", "seq_length: [1024]", "run.yaml:8:17: stages.0.seq_length: is a list; it must be a whole number"},
      {"seq_length: 1024", "seq_length:", "run.yaml:8:5: stages.0.seq_length: is empty; it must be a whole number"},
      {"seq_length: 1024", "seq_length: 2000000000",
       "run.yaml:10:23: stages.0.micro_batch_size: 2 sequences of 2000000000 tokens; a micro-batch must be below 2^31"},
      {"    train_tokens: 2e6\n", "", "run.yaml:7:5: stages.0: train_tokens, train_samples or train_iters is missing"},
      {"train_tokens: 2e6", "train_tokens: 2e6\n    train_iters: 3",
       "run.yaml:10:18: stages.0.train_iters: stands beside train_tokens; give one of them"},
      {"train_tokens: 2e6", "train_tokens: 8191",
       "run.yaml:9:19: stages.0.train_tokens: is 8191, less than one step of 8 sequences of 1024 tokens (8192 tokens)"},
      {"train_tokens: 2e6", "train_tokens: 1e17", "run.yaml:9:19: stages.0.train_tokens: is '1e17'; it must be a whole number"},  // not exact
      {"global_batch_size: 8", "global_batch_size: 7",
       "run.yaml:11:24: stages.0.global_batch_size: is 7; it must be a multiple of micro_batch_size 2"},
      {"    lr: {lr: 2e-5, min_lr: 2e-6, lr_decay_style: cosine, lr_warmup_fraction: 0.01}\n", "", "run.yaml:7:5: stages.0: lr is missing"},
      {"{lr: 2e-5, min_lr", "{min_lr", "run.yaml:12:9: stages.0.lr: lr is missing"},
      {"min_lr: 2e-6", "min_lr: 2e-4", "run.yaml:12:28: stages.0.lr.min_lr: is 0.0002; it must be at most lr, 2e-05"},
      {"cosine, lr_warmup_fraction: 0.01", "cosine, lr_warmup_iters: 244",
       "run.yaml:12:75: stages.0.lr.lr_warmup_iters: the warm-up of 1952 samples must end before"},
      {"lr_warmup_fraction: 0.01", "lr_warmup_fraction: 0.01, lr_warmup_iters: 2",
       "run.yaml:12:9: stages.0.lr: has several of lr_warmup_fraction, lr_warmup_iters"},
      {"lr_warmup_fraction: 0.01", "lr_wsd_decay_iters: 2", "run.yaml:12:78: stages.0.lr.lr_wsd_decay_iters: goes with lr_decay_style: WSD only"},
      {"lr_wsd_decay_iters: 5, ", "", "run.yaml:23:9: stages.1.lr: lr_wsd_decay_iters is missing"},
      {"lr_wsd_decay_iters: 5", "lr_wsd_decay_iters: 21",
       "run.yaml:23:61: stages.1.lr.lr_wsd_decay_iters: is 21; it must be at most the 20 iterations"},
      {"weight: 0.55", "weight: 0", "run.yaml:14:41: stages.0.data.0.weight: is '0'; it must be a number above 0"},
      {"name: replay", "name: fas_planning", "run.yaml:15:48: stages.0.data.1.name: fas_planning is the name of the source at run.yaml:14:16 too"},
      {"path: has.h5", "path: b/fas_planning.h5",
       "run.yaml:7:3: stages: the sources at run.yaml:14:16 and run.yaml:24:19 are different files, both called fas_planning"},
      {"[{path: has.h5}]", "[]", "run.yaml:24:11: stages.1.data: is a list; it must be a list of at least one"},
      {"[{path: has.h5}]", "has.h5", "run.yaml:24:11: stages.1.data: is 'has.h5'; it must be a list: entries that begin with `- `"},
      {"[{path: has.h5}]", "[has.h5]", "run.yaml:24:12: stages.1.data.0: is 'has.h5'; it must be a section of `key: value` lines"},
      {"rope_theta: 5e6", "rope_scaling: {factor: 4}", "run.yaml:20:19: stages.1.rope_scaling: original_max_position_embeddings is missing"},
      {"name: heldout}", "weight: 1}", "run.yaml:25:40: validation.data.0.weight: no key of this section; it belongs to stages.data"},
      {"eval_interval: 100", "eval_interval: -1", "run.yaml:25:72: validation.eval_interval: is '-1'; it must be a whole number, at least 0"},
      {"keep: 3", "clip_grad: 3", "run.yaml:26:34: checkpoint.clip_grad: no key of this section; it belongs to optimizer or stages.optimizer"},
      {"keep: 3", "keep: 3, save_interval: 4", "run.yaml:26:43: 'save_interval' is given twice, first at line 26"},
      {"keep: 3}", "keep: 3", "run.yaml:27:1: not YAML: "},
  };
  for (const Case& c : cases) {
    const std::vector<std::string> lines = errors(replaced(kRun, c.from, c.to));
    ASSERT_FALSE(lines.empty()) << c.message;
    EXPECT_TRUE(lines[0].starts_with(c.message)) << "expected " << c.message << "\nfound    " << lines[0];
    EXPECT_EQ(lines.size(), std::string(c.from) == "output_dir" ? 2u : 1u) << lines.back();
  }
  EXPECT_EQ(errors(replaced(kRun, "output_dir", "output_dri")).back(), "run.yaml:1:1: output_dri: unknown key; did you mean output_dir?");
}

TEST(Config, AllMistakesAtOnceInTheOrderOfTheFile) {
  std::string text = replaced(kRun, "weight_decay: 0.1", "weight_decay: lots");
  text = replaced(text, "seq_length: 1024", "seqlength: 1024");
  text = replaced(text, "lr: 1e-5, ", "");
  text = replaced(text, "save_interval: 500", "save_interval: often");
  const std::vector<std::string> lines = errors(text, {"moe.moe_z_loss_coeff=-1", "stages.2.name=x"});
  const char* expected[] = {"run.yaml:4:96: optimizer.weight_decay",         "run.yaml:7:5: stages.0: seq_length is missing",
                            "run.yaml:8:5: stages.0.seqlength: unknown key", "run.yaml:23:9: stages.1.lr: lr is missing",
                            "run.yaml:26:29: checkpoint.save_interval",      "command line: stages.2.name=x: stages is a list of 2",
                            "command line: moe.moe_z_loss_coeff: is '-1'"};
  ASSERT_EQ(lines.size(), std::size(expected));
  for (std::size_t i = 0; i < lines.size(); ++i) EXPECT_TRUE(lines[i].starts_with(expected[i])) << lines[i];
}

TEST(Config, NotAConfigurationAtAll) {
  EXPECT_EQ(errors("- a\n- b\n").at(0), "run.yaml:1:1: a configuration is sections of `key: value` lines");
  EXPECT_EQ(errors("").size(), 3u);  // output_dir, model, stages
  EXPECT_TRUE(errors("a: 1\n---\nb: 2\n").at(0).find("a second document") != std::string::npos);
  EXPECT_TRUE(errors("a: [1\nb: }\n").at(0).starts_with("run.yaml:2:"));
  EXPECT_THROW(read_config("/nowhere/run.yaml", {}), UserError);
}

TEST(Config, WhatMegatronHasAndWeDoNot) {
  const std::pair<const char*, const char*> names[] = {
      {"bf16: true", "bf16: precision is runtime.precision: fp32, bf16"},
      {"num_layers: 4", "num_layers: the model section has Hugging Face's names: num_hidden_layers"},
      {"hidden_dropout: 0.1", "hidden_dropout: there is no dropout"},
      {"use_flash_attn: true", "use_flash_attn: always so"},
      {"train_data_path: x", "train_data_path: each stage has its own data: [{path: x.h5, weight: 1}]"},
      {"recompute_activations: true", "recompute_activations: use recompute: {recompute_granularity"},
      {"eod_mask_loss: true", "eod_mask_loss: always so: the end-of-document token has no target"},
      {"reset_position_ids: true", "reset_position_ids: always so: each packed document has positions from 0"},
      {"recompute_granularity: full", "recompute_granularity: no key of this section; it belongs to recompute or stages.recompute"},
      {"learning_rate: 1", "learning_rate: that is lr, in a stage's section lr"},
      {"use_distributed_optimizer: true", "use_distributed_optimizer: always so"},
  };
  for (const auto& [line, message] : names) {
    const std::vector<std::string> found = errors(std::string(kRun) + line + "\n");
    ASSERT_EQ(found.size(), 1u) << line;
    EXPECT_TRUE(found[0].starts_with(std::string("run.yaml:27:1: ") + message)) << found[0];
  }
}

// One message for each thing that no layout of so many processes can do; {}: none.
std::vector<std::string> layout_errors(int world, const std::vector<std::string>& overrides) { return layout_problems(parse(kRun, overrides), world); }

TEST(Config, LayoutsMustFitTheProcessesAndTheModel) {
  EXPECT_EQ(layout_errors(1, {"parallel={tensor_model_parallel_size: 1, expert_model_parallel_size: 1}"}).size(), 0u);
  const auto says = [](const std::vector<std::string>& found, const std::string& words) {
    ASSERT_FALSE(found.empty()) << words;
    EXPECT_NE(found[0].find(words), found[0].npos) << found[0];
  };
  // Both stages are wrong, and each says so.
  EXPECT_EQ(layout_errors(1, {"parallel={tensor_model_parallel_size: 4, pipeline_model_parallel_size: 2}"}).size(), 2u);
  says(layout_errors(1, {"parallel={tensor_model_parallel_size: 4, pipeline_model_parallel_size: 2}"}),
       "tensor_model_parallel_size 4 x context_parallel_size 1 x pipeline_model_parallel_size 2 = 8 does not divide the 1 process");
  EXPECT_TRUE(layout_errors(1, {"parallel.expert_model_parallel_size=8"})[0].starts_with("command line: stage "));
  says(layout_errors(1, {"parallel.expert_model_parallel_size=8"}), "does not divide the 1 processes of a pipeline stage");
  says(layout_errors(16, {}), "global_batch_size 8 is no multiple of micro_batch_size");
  says(layout_errors(2, {"parallel={tensor_model_parallel_size: 2, sequence_parallel: false}"}), "needs sequence_parallel: true");
  says(layout_errors(3, {"parallel.tensor_model_parallel_size=3"}), "num_attention_heads 4 cannot be cut in tensor_model_parallel_size 3; possible: 1, 2, 4");
  says(layout_errors(3, {"parallel.context_parallel_size=3"}), "is no multiple of 2 x context_parallel_size 3");
  says(layout_errors(2, {"parallel={pipeline_model_parallel_size: 2, virtual_pipeline_model_parallel_size: 2}"}), "virtual");
  says(layout_errors(2, {"parallel={pipeline_model_parallel_size: 2, pipeline_model_parallel_layout: \"1,1\"}"}), "layers");
  EXPECT_EQ(layout_errors(2, {"stages.1.parallel.tensor_model_parallel_size=4"}).size(), 1u);  // a stage's own
}

TEST(Config, Overrides) {
  const Config c =
      parse(kRun, {"stages.0.lr.lr=1e-4", "stages.0.train_tokens=null", "stages.0.train_samples=1e3", "stages.1.data=[{path: a b.h5, weight: 2}]",
                   "stages.1.data.0.name=x", "runtime.precision=bf16", "init.hf_checkpoint=qwen/"});
  EXPECT_EQ(c.stages[0].lr.lr, 1e-4);
  EXPECT_EQ(c.stages[0].train_iters(), 125);
  EXPECT_EQ(c.stages[1].data.at(0).path, "a b.h5");
  EXPECT_EQ(c.stages[1].data.at(0).name, "x");
  EXPECT_EQ(c.stages[1].data.at(0).where, "command line");
  EXPECT_EQ(c.runtime.precision, RuntimeConfig::Precision::bf16);
  EXPECT_EQ(c.init.from, InitConfig::From::hf_checkpoint);
  EXPECT_EQ(c.init.path, "qwen/");
  for (const char* wrong : {"seed", "=1", "seed.x=1", "seed=", "stages.a.lr=1", "stages..lr=1", "seed=[", "seed={", "sed=1", "output_dir=null"}) {
    const std::vector<std::string> lines = errors(kRun, {wrong});
    if (std::string(wrong) == "seed=")
      EXPECT_EQ(lines.size(), 0u);  // empty is null: the key is taken out
    else if (std::string(wrong) == "output_dir=null")
      EXPECT_EQ(lines.at(0), "run.yaml:1:1: output_dir is missing");
    else {
      ASSERT_FALSE(lines.empty()) << wrong;
      EXPECT_TRUE(lines[0].starts_with("command line: ")) << lines[0];
    }
  }
}

TEST(Config, Numbers) {
  const auto tokens = [](const std::string& text) { return parse(replaced(kRun, "2e6", text)).stages[0].length.amount; };
  EXPECT_EQ(tokens("200e9"), 200'000'000'000);
  EXPECT_EQ(tokens("2.5e6"), 2'500'000);
  EXPECT_EQ(tokens("+8192"), 8192);
  EXPECT_EQ(tokens("9007199254740993"), 9007199254740993);  // beyond what a double holds
  for (const char* wrong : {"2_000_000", "0x2000", "1e400", "9223372036854775808", "2.5", "1e6x", "''", "yes", "-8192"}) {
    EXPECT_EQ(errors(replaced(kRun, "2e6", wrong)).size(), 1u) << wrong;
  }
}

// A model in place: required fields, its checks at their lines, RoPE scaling.
TEST(Config, ModelInPlace) {
  const std::string model =
      "model: {vocab_size: 288, hidden_size: 64, num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 2, head_dim: 16,\n"
      "  intermediate_size: 128, max_position_embeddings: 512, tie_word_embeddings: true, rope_theta: 1e4,\n"
      "  rope_scaling: {rope_type: yarn, factor: 4, original_max_position_embeddings: 128}}";
  const std::string text = replaced(kRun, "model: {preset: tiny_moe}", model);
  const Config c = parse(text);
  EXPECT_EQ(c.model.model_type, "qwen3");
  EXPECT_EQ(c.model.rope.theta, 1e4);
  ASSERT_TRUE(c.stages[0].rope.yarn.has_value());
  EXPECT_EQ(c.stages[0].rope.yarn->factor, 4);
  EXPECT_EQ(c.stages[1].rope.theta, 5e6);
  EXPECT_TRUE(c.stages[1].rope.yarn.has_value());
  const Config plain = parse(replaced(text, "rope_theta: 5e6", "rope_scaling: null"));  // a stage takes it away
  EXPECT_FALSE(plain.stages[1].rope.yarn.has_value());
  EXPECT_TRUE(plain.stages[0].rope.yarn.has_value());
  EXPECT_FALSE(parse(to_yaml(plain)).stages[1].rope.yarn.has_value());

  EXPECT_EQ(errors(replaced(text, "head_dim: 16", "head_dim: 15")).at(0),
            "run.yaml:2:123: model.head_dim: is 15; it must be even: RoPE turns pairs of dimensions");
  EXPECT_EQ(errors(replaced(text, "tie_word_embeddings: true, ", "")).at(0), "run.yaml:2:8: model: tie_word_embeddings is missing");
  EXPECT_EQ(errors(replaced(text, "tie_word_embeddings: true", "num_experts: 4, tie_word_embeddings: true")).size(), 2u);  // two sizes of the experts
  EXPECT_TRUE(
      errors(replaced(text, "tie_word_embeddings: true", "hidden_act: silu, tie_word_embeddings: true")).at(0).find("fixed by the architecture") !=
      std::string::npos);
}

TEST(Config, ModelFromHuggingFace) {
  const std::string path = (std::filesystem::temp_directory_path() / ("af_config_test_" + std::to_string(::getpid()) + ".json")).string();
  std::ofstream(path) << R"({"model_type": "qwen3", "vocab_size": 300})";
  const std::vector<std::string> lines = errors(kRun, {"model={hf_config: " + path + "}"});
  std::filesystem::remove(path);
  ASSERT_GT(lines.size(), 5u);  // every missing field, each at the place that names the file
  for (const std::string& line : lines) EXPECT_TRUE(line.starts_with("command line: model.hf_config: " + path)) << line;
}

TEST(Config, AnchorsAreCopied) {
  std::string text = replaced(kRun, "data:\n      -", "data: &mix\n      -");
  text = replaced(text, "data: [{path: has.h5}]", "data: *mix");
  EXPECT_EQ(parse(text).stages[1].data.at(1).path, "general.h5");

  std::string laughs = "a: &a [x, x, x, x, x, x, x, x, x, x]\n";
  for (char c = 'b'; c <= 'i'; ++c) {
    laughs += fmt::format("{0}: &{0} [", c);
    for (int i = 0; i < 10; ++i) laughs += fmt::format("*{}, ", char(c - 1));
    laughs += "]\n";
  }
  EXPECT_NE(errors(laughs).at(0).find("more than 100000 values"), std::string::npos);
}

void leaves(const YamlNode& node, const std::string& path, std::set<std::string>& out) {
  for (const auto& [key, value] : node.entries) leaves(value, path + (path.empty() ? "" : ".") + key.text, out);
  for (std::size_t i = 0; i < node.items.size(); ++i) {
    if (node.items[i].kind == YamlNode::Kind::map) leaves(node.items[i], path + "." + std::to_string(i), out);
  }
  const bool sections = !node.entries.empty() || (!node.items.empty() && node.items[0].kind == YamlNode::Kind::map);
  if (!sections) out.insert(path);
}

// Each key changed from its default: the printed configuration shows it, parses back to the same, and the list covers every key
// that is ever printed.
TEST(Config, PrintedConfigurationParsesBack) {
  const char* const rope =
      "{rope_type: yarn, factor: 2.5, original_max_position_embeddings: 99, beta_fast: 31, beta_slow: 2, attention_factor: 1.25}";
  const std::string dense = to_yaml(parse(replaced(kRun, "tiny_moe", "tiny_dense")));
  const std::string full = to_yaml(parse(kRun));
  std::set<std::string> covered, printed;
  const auto check = [&](const std::string& base, const std::vector<std::string>& overrides) {
    const std::string text = to_yaml(parse(base, overrides));
    EXPECT_NE(text, to_yaml(parse(base))) << overrides[0];
    EXPECT_EQ(to_yaml(parse(text)), text) << overrides[0];
    leaves(parse_yaml(text, "printed"), "", printed);
    for (const std::string& o : overrides) leaves(parse_yaml(o.substr(o.find('=') + 1), "value"), o.substr(0, o.find('=')), covered);
  };
  for (const char* o : {"output_dir=\"a b: \\\"c\\\" \\\\ d\"",
                        "seed=7",
                        "tokenizer.path=bytes",
                        "init=random",
                        "recompute.recompute_modules=[moe]",
                        "optimizer.adam_beta1=0.5",
                        "optimizer.adam_beta2=0.5",
                        "optimizer.adam_eps=1e-3",
                        "optimizer.weight_decay=0.3",
                        "optimizer.clip_grad=0",
                        "moe.moe_router_load_balancing_type=none",
                        "moe.moe_aux_loss_coeff=3",
                        "moe.moe_z_loss_coeff=3",
                        "moe.moe_memory_factor=3",
                        "moe.moe_expert_capacity_factor=1.25",
                        "moe.moe_token_drop_policy=position",
                        "stages.0.name=other",
                        "stages.0.seq_length=77",
                        "stages.0.train_tokens=3e6",
                        "stages.0.micro_batch_size=4",
                        "stages.0.global_batch_size=16",
                        "stages.0.lr.lr=1",
                        "stages.0.lr.min_lr=1e-7",
                        "stages.0.lr.lr_decay_style=linear",
                        "stages.0.lr.lr_warmup_init=1e-9",
                        "stages.0.lr.lr_warmup_fraction=0.5",
                        "stages.0.lr.lr_decay_iters=33",
                        "stages.0.data.0.path=q.h5",
                        "stages.0.data.0.name=q",
                        "stages.0.data.0.weight=9",
                        "stages.0.rope_theta=12345.5",

                        "stages.0.recompute.recompute_modules=[mlp, core_attn]",
                        "stages.0.moe.moe_router_load_balancing_type=seq_aux_loss",
                        "stages.0.moe.moe_aux_loss_coeff=3",
                        "stages.0.moe.moe_z_loss_coeff=3",
                        "stages.0.moe.moe_memory_factor=3",
                        "stages.0.moe.moe_expert_capacity_factor=1.25",
                        "stages.0.moe.moe_token_drop_policy=position",
                        "stages.0.optimizer.adam_beta1=0.5",
                        "stages.0.optimizer.adam_beta2=0.5",
                        "stages.0.optimizer.adam_eps=1e-3",
                        "stages.0.optimizer.weight_decay=0.3",
                        "stages.0.optimizer.clip_grad=0",
                        "stages.1.recompute.recompute_method=block",
                        "stages.1.recompute.recompute_num_layers=3",
                        "stages.1.lr.lr_wsd_decay_style=cosine",
                        "stages.1.lr.lr_wsd_decay_iters=3",
                        "stages.1.train_iters=33",
                        "stages.1.lr.lr_warmup_iters=3",
                        "stages.1.lr.lr_warmup_fraction=0.125",
                        "validation.data.0.path=z.h5",
                        "validation.data.0.name=z",
                        "validation.eval_interval=3",
                        "validation.eval_iters=5",
                        "checkpoint.save_interval=1",
                        "checkpoint.keep=1",
                        "checkpoint.keep_every=7",
                        "checkpoint.async_save=false",
                        "checkpoint.staging_bytes=5",
                        "logging.log_interval=9",
                        "logging.tensorboard=false",
                        "runtime.precision=fp64",
                        "runtime.threads_per_rank=3",
                        "runtime.peak_tflops=1.5",
                        "runtime.max_bad_steps=2",
                        "runtime.loss_spike_factor=1.5",
                        "runtime.loss_spike_window=7",
                        "runtime.loss_spike_skip=3",
                        "runtime.device=cpu",
                        "init={checkpoint: a/b}",
                        "init={hf_checkpoint: a/b}",
                        "model.vocab_size=999",
                        "model.hidden_size=32",
                        "model.num_hidden_layers=7",
                        "model.num_attention_heads=6",
                        "model.num_key_value_heads=1",
                        "model.head_dim=12",
                        "model.intermediate_size=11",
                        "model.max_position_embeddings=11",
                        "model.rms_norm_eps=1e-3",
                        "model.initializer_range=0.5",
                        "model.tie_word_embeddings=true",
                        "model.rope_theta=2",
                        "model.num_experts=9",
                        "model.num_experts_per_tok=1",
                        "model.moe_intermediate_size=7",
                        "model.decoder_sparse_step=2",
                        "model.mlp_only_layers=[0, 2]",
                        "stages.0.packing=best_fit",
                        "parallel.tensor_model_parallel_size=2",
                        "parallel.pipeline_model_parallel_size=2",
                        "parallel.virtual_pipeline_model_parallel_size=2",
                        "parallel.context_parallel_size=2",
                        "parallel.expert_model_parallel_size=2",
                        "parallel.expert_tensor_parallel_size=1",
                        "parallel.sequence_parallel=false",
                        "parallel.pipeline_model_parallel_layout=\"1,3\"",
                        "parallel.overlap_grad_reduce=false",
                        "parallel.overlap_param_gather=false",
                        "stages.0.parallel.tensor_model_parallel_size=2",
                        "stages.0.parallel.pipeline_model_parallel_size=2",
                        "stages.0.parallel.virtual_pipeline_model_parallel_size=2",
                        "stages.0.parallel.context_parallel_size=2",
                        "stages.0.parallel.expert_model_parallel_size=2",
                        "stages.0.parallel.expert_tensor_parallel_size=1",
                        "stages.0.parallel.sequence_parallel=false",
                        "stages.0.parallel.pipeline_model_parallel_layout=\"1,3\"",
                        "stages.0.parallel.overlap_grad_reduce=false",
                        "stages.0.parallel.overlap_param_gather=false",
                        "pipeline.schedule=zero_bubble",
                        "pipeline.microbatch_group_size_per_vp_stage=3",
                        "stages.0.pipeline.schedule=zero_bubble",
                        "stages.0.pipeline.microbatch_group_size_per_vp_stage=3",
                        "runtime.distributed_timeout_minutes=0.5",
                        "runtime.heartbeat_seconds=0",
                        "model.norm_topk_prob=false",
                        "model.router_aux_loss_coef=0.5"}) {
    if (std::string(o) == "init=random")
      check(to_yaml(parse(kRun, {"init.checkpoint=x"})), {o});
    else
      check(full, {o});
  }
  check(dense, {"model.model_type=qwen3_moe"});
  check(full, {"optimizer.weight_decay_incr_style=linear", "optimizer.end_weight_decay=0.5"});
  check(full, {"stages.0.optimizer.weight_decay_incr_style=cosine", "stages.0.optimizer.end_weight_decay=0.5"});
  check(full, {"recompute.recompute_granularity=full", "recompute.recompute_modules=null", "recompute.recompute_method=block",
               "recompute.recompute_num_layers=3"});
  check(full, {"stages.0.recompute.recompute_granularity=none", "stages.0.recompute.recompute_modules=null"});
  check(full, {"stages.0.train_tokens=null", "stages.0.train_samples=999"});
  check(full, {"stages.0.lr.lr_warmup_fraction=null", "stages.0.lr.lr_warmup_samples=99"});
  check(full, {std::string("model.rope_scaling=") + rope});
  check(full, {std::string("stages.0.rope_scaling=") + rope});

  const auto general = [](const std::string& path) { return path.starts_with("stages.1.") ? "stages.0." + path.substr(9) : path; };
  std::set<std::string> tried;
  for (const std::string& path : covered) tried.insert(general(path));
  for (const std::string& path : printed) {
    bool skip = path.starts_with("parallel.") || path.find("data.1.") != std::string::npos;
    for (const char* one_value : {"optimizer.optimizer", "rope_type", "rope_scaling"}) skip = skip || path.ends_with(one_value);
    EXPECT_TRUE(skip || tried.contains(general(path))) << "no override above changes " << path;
  }
}

TEST(Config, WarningsAndMissingFiles) {
  EXPECT_TRUE(warnings(parse(kRun)).empty());
  const auto warned = [](const std::vector<std::string>& overrides) { return warnings(parse(kRun, overrides)); };
  EXPECT_EQ(warned({"stages.0.seq_length=65536", "stages.0.train_tokens=1e9"}).size(), 1u);
  EXPECT_EQ(warned({"stages.0.seq_length=65536", "stages.0.train_tokens=1e9", "stages.0.rope_theta=5e6"}).size(), 0u);
  EXPECT_EQ(warned({"stages.0.rope_scaling={factor: 4, original_max_position_embeddings: 128}"}).size(), 1u);
  EXPECT_EQ(warned({"stages.0.lr.lr_decay_iters=1000"}).size(), 1u);
  const std::vector<std::string> missing = missing_files(parse(kRun, {"init.hf_checkpoint=nowhere/"}));
  ASSERT_EQ(missing.size(), 5u);
  EXPECT_EQ(missing[0], "command line: there is no nowhere/");
  EXPECT_EQ(missing[1], "run.yaml:14:16: there is no fas_planning.h5");
}

}  // namespace
}  // namespace af
