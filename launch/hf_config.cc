#include "launch/hf_config.h"

#include <algorithm>
#include <filesystem>

#include "core/error.h"

namespace af {
namespace {

// Fields that must have one value, because the program does nothing else. Where the field may be left out, transformers'
// default is that value.
struct Fixed {
  const char* name;
  Json value;
  bool required;
};
std::vector<Fixed> fixed_fields() {
  return {{"hidden_act", "silu", true},          {"attention_bias", false, true},
          {"attention_dropout", 0.0, true},      {"use_sliding_window", false, false},
          {"partial_rotary_factor", 1.0, false}, {"is_decoder", false, false},
          {"is_encoder_decoder", false, false},  {"add_cross_attention", false, false},
          {"tie_encoder_decoder", false, false}, {"pruned_heads", Json::Object(), false},
          {"quantization_config", Json(), false}};
}

// Fields that change nothing in training: names, generation, the type in which the weights are stored (their files say
// it themselves), what a forward pass returns, and settings of the sliding window, which is off.
constexpr const char* kIndifferentFields[] = {"_name_or_path",
                                              "architectures",
                                              "auto_map",
                                              "bos_token_id",
                                              "eos_token_id",
                                              "pad_token_id",
                                              "sep_token_id",
                                              "decoder_start_token_id",
                                              "dtype",
                                              "torch_dtype",
                                              "transformers_version",
                                              "tokenizer_class",
                                              "use_cache",
                                              "sliding_window",
                                              "max_window_layers",
                                              "output_router_logits",
                                              "output_attentions",
                                              "output_hidden_states",
                                              "return_dict",
                                              "id2label",
                                              "label2id",
                                              "finetuning_task",
                                              "problem_type",
                                              "task_specific_params",
                                              "chunk_size_feed_forward",
                                              "torchscript",
                                              "use_bfloat16",
                                              "tf_legacy_loss",
                                              "prefix",
                                              "cross_attention_hidden_size",
                                              "return_dict_in_generate",
                                              "output_scores"};

constexpr const char* kBaseFields[] = {"model_type",        "vocab_size",          "hidden_size",
                                       "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
                                       "head_dim",          "intermediate_size",   "max_position_embeddings",
                                       "rms_norm_eps",      "initializer_range",   "tie_word_embeddings",
                                       "rope_theta",        "rope_scaling",        "rope_parameters",
                                       "layer_types"};
constexpr const char* kMoeFields[] = {"num_experts",     "num_experts_per_tok", "moe_intermediate_size", "decoder_sparse_step",
                                      "mlp_only_layers", "norm_topk_prob",      "router_aux_loss_coef"};

bool same(const Json& a, const Json& b) { return a.is_number() && b.is_number() ? a.number() == b.number() : a == b; }

class Reader {
 public:
  Reader(const Json& json, const std::string& source) : view_(json, source) {}

  ModelConfig read() {
    ModelConfig c;
    attempt([&] { c.model_type = view_["model_type"].string(); });
    if (c.model_type != "qwen3" && c.model_type != "qwen3_moe") {
      user_error("{}: model_type is \"{}\"; this program trains qwen3 and qwen3_moe", view_.where(), c.model_type);
    }
    const bool moe = c.model_type == "qwen3_moe";
    integer("vocab_size", c.vocab_size);
    integer("hidden_size", c.hidden_size);
    integer("num_hidden_layers", c.num_hidden_layers);
    integer("num_attention_heads", c.num_attention_heads);
    integer("num_key_value_heads", c.num_key_value_heads);
    integer("head_dim", c.head_dim);
    integer("intermediate_size", c.intermediate_size);
    integer("max_position_embeddings", c.max_position_embeddings);
    attempt([&] { c.rms_norm_eps = view_["rms_norm_eps"].number(); });
    attempt([&] { c.initializer_range = view_["initializer_range"].number(); });
    attempt([&] { c.tie_word_embeddings = view_["tie_word_embeddings"].boolean(); });
    attempt([&] { c.rope = read_rope(c.max_position_embeddings); });
    if (moe) {
      integer("num_experts", c.num_experts);
      integer("num_experts_per_tok", c.num_experts_per_tok);
      integer("moe_intermediate_size", c.moe_intermediate_size);
      integer("decoder_sparse_step", c.decoder_sparse_step);
      attempt([&] { c.mlp_only_layers = layers("mlp_only_layers"); });
      attempt([&] { c.norm_topk_prob = view_["norm_topk_prob"].boolean(); });
      attempt([&] { c.router_aux_loss_coef = view_["router_aux_loss_coef"].number(); });
    }
    check_fixed();
    check_names(moe);
    if (errors_.empty())  // what is missing is not judged again as 0
      for (const std::string& problem : problems(c)) errors_.push_back(fmt::format("{}: {}", view_.where(), problem));
    if (errors_.empty()) return c;
    std::string all = errors_[0];
    for (std::size_t i = 1; i < errors_.size(); i++) all += "\n" + errors_[i];
    throw UserError(all);
  }

 private:
  template <class Function>
  void attempt(Function function) {
    try {
      function();
    } catch (const UserError& e) {
      errors_.push_back(e.what());
    }
  }
  void integer(const char* name, std::int64_t& out) {
    attempt([&] { out = view_[name].integer(); });
  }

  std::vector<std::int64_t> layers(const char* name) const {
    std::vector<std::int64_t> out;
    const JsonView list = view_[name];
    if (!list.value().is_null())
      for (std::size_t i = 0; i < list.size(); i++) out.push_back(list[i].integer());
    return out;
  }

  // transformers 4: rope_theta and rope_scaling (null or an object); transformers 5: rope_parameters with both.
  RopeSettings read_rope(std::int64_t max_position_embeddings) const {
    RopeSettings rope;
    const Json* scaling = view_.value().find("rope_scaling");
    const bool has_scaling = scaling && !scaling->is_null();
    if (view_.has("rope_parameters")) {
      const JsonView parameters = view_["rope_parameters"];
      if (has_scaling) user_error("{}: gives both rope_scaling and rope_parameters; leave one of them", view_.where());
      rope.theta = parameters["rope_theta"].number();
      if (view_.has("rope_theta") && view_["rope_theta"].number() != rope.theta) {
        user_error("{}: rope_theta is {} but rope_parameters.rope_theta is {}", view_.where(), view_["rope_theta"].number(), rope.theta);
      }
      read_scaling(parameters, max_position_embeddings, rope);
    } else {
      rope.theta = view_["rope_theta"].number();
      if (has_scaling) read_scaling(view_["rope_scaling"], max_position_embeddings, rope);
    }
    return rope;
  }

  static void read_scaling(const JsonView& view, std::int64_t max_position_embeddings, RopeSettings& rope) {
    const auto given = [&](const char* name) { return view.has(name) && !view[name].value().is_null(); };
    const std::string type = given("rope_type") ? view["rope_type"].string() : view["type"].string();  // "type": before transformers 4.45
    const bool yarn = type == "yarn";
    if (type != "yarn" && type != "default") user_error("{}: rope_type is \"{}\"; this program knows default and yarn", view.where(), type);
    for (const auto& [name, value] : view.object()) {
      if (name == "rope_type" || name == "type" || name == "rope_theta" || value.is_null()) continue;
      const bool known =
          name == "factor" || name == "original_max_position_embeddings" || name == "attention_factor" || name == "beta_fast" || name == "beta_slow";
      if (name == "truncate" && value == Json(true)) continue;  // the default
      if (!yarn || !known) user_error("{}.{}: is not known to this program with rope_type {}", view.where(), name, type);
    }
    if (!yarn) return;
    YarnScaling scaling;
    scaling.factor = view["factor"].number();
    scaling.original_max_position_embeddings =
        given("original_max_position_embeddings") ? view["original_max_position_embeddings"].integer() : max_position_embeddings;
    if (given("beta_fast")) scaling.beta_fast = view["beta_fast"].number();
    if (given("beta_slow")) scaling.beta_slow = view["beta_slow"].number();
    if (given("attention_factor")) scaling.attention_factor = view["attention_factor"].number();
    rope.yarn = scaling;
  }

  void check_fixed() {
    for (const Fixed& field : fixed_fields()) {
      const Json* found = view_.value().find(field.name);
      if (!found && field.required) errors_.push_back(fmt::format("{}: has no \"{}\"", view_.where(), field.name));
      if (found && !same(*found, field.value)) {
        errors_.push_back(
            fmt::format("{}: {} is {}; this program trains only with {}", view_.where(), field.name, found->dump(), field.value.dump()));
      }
    }
    if (!view_.has("layer_types") || view_["layer_types"].value().is_null()) return;
    attempt([&] {
      const JsonView types = view_["layer_types"];
      for (std::size_t i = 0; i < types.size(); i++) {
        if (types[i].string() != "full_attention")
          user_error("{}: is \"{}\"; this program trains only full_attention", types[i].where(), types[i].string());
      }
    });
  }

  void check_names(bool moe) {
    std::vector<std::string> known(std::begin(kBaseFields), std::end(kBaseFields));
    if (moe) known.insert(known.end(), std::begin(kMoeFields), std::end(kMoeFields));
    for (const Fixed& field : fixed_fields()) known.push_back(field.name);
    known.insert(known.end(), std::begin(kIndifferentFields), std::end(kIndifferentFields));
    for (const auto& [name, value] : view_.object()) {
      if (std::find(known.begin(), known.end(), name) != known.end()) continue;
      const std::string near = nearest(name, known);
      errors_.push_back(fmt::format("{}: unknown field \"{}\" of a {} model{}: it might change the model, so it is not passed over", view_.where(),
                                    name, moe ? "qwen3_moe" : "qwen3", near.empty() ? "" : fmt::format(" (did you mean \"{}\"?)", near)));
    }
  }

  JsonView view_;
  std::vector<std::string> errors_;
};

Json rope_scaling(const RopeSettings& rope) {
  if (!rope.yarn) return {};
  const YarnScaling &yarn = *rope.yarn, defaults;
  Json out;
  out.set("rope_type", "yarn");
  out.set("factor", yarn.factor);
  out.set("original_max_position_embeddings", yarn.original_max_position_embeddings);
  if (yarn.attention_factor) out.set("attention_factor", *yarn.attention_factor);
  if (yarn.beta_fast != defaults.beta_fast) out.set("beta_fast", yarn.beta_fast);
  if (yarn.beta_slow != defaults.beta_slow) out.set("beta_slow", yarn.beta_slow);
  return out;
}

}  // namespace

ModelConfig parse_hf_config(const Json& json, const std::string& source_name) { return Reader(json, source_name).read(); }

ModelConfig read_hf_config(const std::string& path) {
  const bool folder = std::filesystem::is_directory(path);
  const std::string file = folder ? (std::filesystem::path(path) / "config.json").string() : path;
  if (folder && !std::filesystem::exists(file)) user_error("{}: has no config.json; give a folder as Hugging Face's save_pretrained writes it", path);
  return parse_hf_config(Json::parse_file(file), file);
}

Json write_hf_config(const ModelConfig& c, const std::string& torch_dtype) {
  const bool moe = c.model_type == "qwen3_moe";
  Json::Object out = {{"architectures", Json::Array{moe ? "Qwen3MoeForCausalLM" : "Qwen3ForCausalLM"}},
                      {"attention_bias", false},
                      {"attention_dropout", 0.0},
                      {"head_dim", c.head_dim},
                      {"hidden_act", "silu"},
                      {"hidden_size", c.hidden_size},
                      {"initializer_range", c.initializer_range},
                      {"intermediate_size", c.intermediate_size},
                      {"max_position_embeddings", c.max_position_embeddings},
                      {"max_window_layers", c.num_hidden_layers},
                      {"model_type", c.model_type},
                      {"num_attention_heads", c.num_attention_heads},
                      {"num_hidden_layers", c.num_hidden_layers},
                      {"num_key_value_heads", c.num_key_value_heads},
                      {"rms_norm_eps", c.rms_norm_eps},
                      {"rope_scaling", rope_scaling(c.rope)},
                      {"rope_theta", c.rope.theta},
                      {"sliding_window", Json()},
                      {"tie_word_embeddings", c.tie_word_embeddings},
                      {"torch_dtype", torch_dtype},
                      {"use_cache", true},
                      {"use_sliding_window", false},
                      {"vocab_size", c.vocab_size}};
  if (moe) {
    out.emplace_back("decoder_sparse_step", c.decoder_sparse_step);
    out.emplace_back("mlp_only_layers", Json::Array(c.mlp_only_layers.begin(), c.mlp_only_layers.end()));
    out.emplace_back("moe_intermediate_size", c.moe_intermediate_size);
    out.emplace_back("norm_topk_prob", c.norm_topk_prob);
    out.emplace_back("num_experts", c.num_experts);
    out.emplace_back("num_experts_per_tok", c.num_experts_per_tok);
    out.emplace_back("output_router_logits", false);
    out.emplace_back("router_aux_loss_coef", c.router_aux_loss_coef);
  }
  std::sort(out.begin(), out.end(), [](const Json::Member& a, const Json::Member& b) { return a.first < b.first; });
  return out;
}

}  // namespace af
