// Hugging Face folders: config.json field by field, weights in and out bit by bit, and every kind of bad input.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <set>

#include "data/file.h"
#include "data/safetensors.h"
#include "launch/hf_checkpoint.h"
#include "launch/hf_config.h"
#include "models/qwen3.h"

namespace af {
namespace {

namespace fs = std::filesystem;

// As published with Qwen3-30B-A3B.
constexpr char kPublished[] = R"({
  "architectures": ["Qwen3MoeForCausalLM"], "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 151643,
  "decoder_sparse_step": 1, "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu", "hidden_size": 2048,
  "initializer_range": 0.02, "intermediate_size": 6144, "max_position_embeddings": 40960, "max_window_layers": 48,
  "mlp_only_layers": [], "model_type": "qwen3_moe", "moe_intermediate_size": 768, "norm_topk_prob": true,
  "num_attention_heads": 32, "num_experts": 128, "num_experts_per_tok": 8, "num_hidden_layers": 48, "num_key_value_heads": 4,
  "output_router_logits": false, "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 1000000.0,
  "router_aux_loss_coef": 0.001, "sliding_window": null, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
  "transformers_version": "4.51.0", "use_cache": true, "use_sliding_window": false, "vocab_size": 151936
})";

std::string error_of(const std::function<void()>& function) {
  try {
    function();
  } catch (const UserError& e) {
    return e.what();
  }
  return "";
}

Json published() { return Json::parse(kPublished, "published"); }

std::string error_with(const std::string& key, const Json& value) {
  Json json = published();
  json.set(key, value);
  return error_of([&] { parse_hf_config(json, "config.json"); });
}

RopeSettings rope_with(const std::string& key, const std::string& value, bool without_theta = false) {
  Json::Object members;
  for (const auto& [name, old] : Json::Object(published().object()))
    if (name != key && !(without_theta && (name == "rope_theta" || name == "rope_scaling"))) members.emplace_back(name, old);
  members.emplace_back(key, Json::parse(value, "value"));
  return parse_hf_config(Json(members), "config.json").rope;
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != text.npos; }

TEST(HfConfig, ReadsThePublishedModel) {
  const ModelConfig c = parse_hf_config(published(), "config.json");
  ModelConfig preset = model_preset("qwen3_30b_a3b");
  preset.max_position_embeddings = c.max_position_embeddings;  // 32768 or 40960, depending on the release
  EXPECT_EQ(write_hf_config(c, "bfloat16"), write_hf_config(preset, "bfloat16"));
  // Every number of it, and nothing that transformers would have to guess.
  const Json written = write_hf_config(c, "bfloat16");
  for (const auto& [name, value] : Json::Object(published().object())) {
    if (name == "bos_token_id" || name == "eos_token_id" || name == "transformers_version") continue;
    ASSERT_NE(written.find(name), nullptr) << name;
    EXPECT_EQ(*written.find(name), value) << name;
  }
}

TEST(HfConfig, RefusesAMissingFieldByName) {
  const std::set<std::string> may_miss = {"architectures",        "bos_token_id", "eos_token_id",      "max_window_layers",
                                          "output_router_logits", "rope_scaling", "sliding_window",    "torch_dtype",
                                          "transformers_version", "use_cache",    "use_sliding_window"};
  for (const auto& [name, value] : Json::Object(published().object())) {
    Json::Object without;
    for (const Json::Member& member : Json::Object(published().object()))
      if (member.first != name) without.push_back(member);
    const std::string error = error_of([&] { parse_hf_config(Json(without), "qwen/config.json"); });
    if (may_miss.contains(name)) {
      EXPECT_EQ(error, "") << name;
    } else {
      EXPECT_EQ(error, "qwen/config.json: has no \"" + name + "\"");
    }
  }
}

TEST(HfConfig, RefusesWhatItDoesNotCompute) {
  const std::pair<const char*, const char*> bad[] = {{"hidden_act", "\"gelu\""},
                                                     {"attention_bias", "true"},
                                                     {"attention_dropout", "0.1"},
                                                     {"use_sliding_window", "true"},
                                                     {"partial_rotary_factor", "0.5"},
                                                     {"layer_types", "[\"full_attention\", \"sliding_attention\"]"},
                                                     {"quantization_config", "{\"quant_method\": \"fp8\"}"},
                                                     {"num_experts", "\"128\""},
                                                     {"num_experts", "128.5"},
                                                     {"num_experts_per_tok", "129"},
                                                     {"mlp_only_layers", "[48]"},
                                                     {"decoder_sparse_step", "0"},
                                                     {"norm_topk_prob", "1"},
                                                     {"head_dim", "127"},
                                                     {"vocab_size", "0"},
                                                     {"num_key_value_heads", "5"},
                                                     {"shared_expert_intermediate_size", "768"},
                                                     {"rms_norm_eps", "null"}};
  for (const auto& [name, value] : bad) {
    const std::string error = error_with(name, Json::parse(value, "value"));
    EXPECT_TRUE(contains(error, "config.json: ") && contains(error, name)) << name << " = " << value << " -> " << error;
  }
  EXPECT_TRUE(contains(error_with("num_expert", 128), "did you mean \"num_experts\""));
  EXPECT_TRUE(contains(error_with("model_type", "llama"), "model_type is \"llama\""));
  EXPECT_TRUE(contains(error_with("model_type", "qwen3"), "\"num_experts\" of a qwen3 model"));  // dense models have no such field
  Json two = published();
  two.set("attention_bias", true);
  two.set("hidden_size", "x");
  const std::string both = error_of([&] { parse_hf_config(two, "config.json"); });  // all at once
  EXPECT_TRUE(contains(both, "attention_bias") && contains(both, "hidden_size")) << both;
  // What is set but switched off changes nothing.
  EXPECT_EQ(error_with("sliding_window", 4096), "");
  EXPECT_EQ(error_with("attention_dropout", 0), "");
  EXPECT_EQ(error_with("quantization_config", Json()), "");
  EXPECT_EQ(error_with("mlp_only_layers", Json()), "");
}

TEST(HfConfig, ReadsEveryFormOfRopeScaling) {
  for (const char* key : {"rope_type", "type"}) {
    const RopeSettings rope =
        rope_with("rope_scaling", fmt::format(R"({{"{}": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}})", key));
    ASSERT_TRUE(rope.yarn.has_value());
    EXPECT_EQ(rope.theta, 1e6);
    EXPECT_EQ(rope.yarn->factor, 4);
    EXPECT_EQ(rope.yarn->original_max_position_embeddings, 32768);
    EXPECT_EQ(rope.yarn->beta_fast, 32);
    EXPECT_FALSE(rope.yarn->attention_factor.has_value());
  }
  const RopeSettings full =
      rope_with("rope_scaling", R"({"rope_type": "yarn", "factor": 2, "beta_fast": 16.0, "beta_slow": 2, "attention_factor": 1.5,
                                                          "truncate": true, "mscale": null})");
  EXPECT_EQ(full.yarn->original_max_position_embeddings, 40960);  // transformers: max_position_embeddings
  EXPECT_EQ(full.yarn->beta_fast, 16);
  EXPECT_EQ(full.yarn->beta_slow, 2);
  EXPECT_EQ(full.yarn->attention_factor, 1.5);
  // transformers 5
  EXPECT_EQ(rope_with("rope_parameters", R"({"rope_theta": 5000000.0, "rope_type": "default"})", true).theta, 5e6);
  EXPECT_EQ(rope_with("rope_parameters", R"({"rope_theta": 5e6, "rope_type": "yarn", "factor": 4.0})", true).yarn->factor, 4);
  EXPECT_FALSE(rope_with("rope_scaling", R"({"rope_type": "default"})").yarn.has_value());
  for (const char* bad :
       {R"({"rope_type": "linear", "factor": 2.0})", R"({"factor": 2.0})", R"({"rope_type": "yarn"})", R"({"rope_type": "yarn", "factor": "4"})",
        R"({"rope_type": "yarn", "factor": 4.0, "mscale": 0.7})", R"({"rope_type": "yarn", "factor": 4.0, "truncate": false})",
        R"({"rope_type": "default", "factor": 4.0})", R"({"rope_type": "yarn", "factor": 0.5})", "3"}) {
    EXPECT_TRUE(contains(error_of([&] { rope_with("rope_scaling", bad); }), "rope_scaling")) << bad;
  }
  EXPECT_TRUE(contains(error_of([&] { rope_with("rope_parameters", R"({"rope_theta": 5e6, "rope_type": "default"})"); }), "rope_theta is 1000000"));
}

TEST(HfConfig, WritesWhatItReadsBack) {
  for (const std::string& name : model_preset_names()) {
    ModelConfig c = model_preset(name);
    for (const bool yarn : {false, true}) {
      c.rope.theta = 5e6;
      if (yarn) c.rope.yarn = YarnScaling{4, 32768, 24, 1.5, 1.25};
      const Json json = write_hf_config(c, "float32");
      EXPECT_EQ(write_hf_config(parse_hf_config(Json::parse(json.dump(2), "again"), "again"), "float32"), json) << name;
      EXPECT_EQ(json.find("rope_theta")->number(), 5e6);
      EXPECT_EQ(json.find("rope_scaling")->is_object(), yarn);
    }
  }
}

TEST(PublishedTensors, AreThoseOfTheReleasedModels) {
  struct Released {
    const char* preset;
    std::int64_t parameters;
  };
  const Released released[] = {{"qwen3_30b_a3b", 30'532'122'624},
                               {"qwen3_235b_a22b", 235'093'634'560},
                               {"qwen3_4b", 4'022'468'096},
                               {"qwen3_1.7b", 1'720'574'976},
                               {"qwen3_0.6b", 596'049'920}};
  for (const Released& r : released) {
    std::int64_t parameters = 0;
    for (const PublishedTensor& tensor : published_tensors(model_preset(r.preset))) parameters += tensor.shape.numel();
    EXPECT_EQ(parameters, r.parameters) << r.preset;
  }
  EXPECT_EQ(published_tensors(model_preset("qwen3_30b_a3b")).size(), 18867u);
}

// A small model with its parameters, in a folder of its own.
class HfCheckpoint : public testing::Test {
 protected:
  struct Model {
    Model(const ModelConfig& config, DType dtype) : set(Device(), dtype), model(config, Device(), set) { set.allocate(); }
    ParameterSet set;
    Qwen3Model model;
  };

  void SetUp() override {
    folder = fs::path(testing::TempDir()) / ("hf_" + std::string(testing::UnitTest::GetInstance()->current_test_info()->name()));
    fs::remove_all(folder);
    fs::create_directories(folder);
    config.model_type = "qwen3_moe";
    config.vocab_size = 37, config.hidden_size = 16, config.num_hidden_layers = 3, config.num_attention_heads = 4, config.num_key_value_heads = 2;
    config.head_dim = 6, config.intermediate_size = 20, config.max_position_embeddings = 32, config.num_experts = 4, config.num_experts_per_tok = 2;
    config.moe_intermediate_size = 8, config.mlp_only_layers = {1};
  }
  void TearDown() override { fs::remove_all(folder); }

  std::string path(const std::string& name) const { return (folder / name).string(); }
  std::unique_ptr<Model> random_model(DType dtype = DType::f32) const {
    auto model = std::make_unique<Model>(config, dtype);
    Arena scratch(Device{}, "scratch");
    initialize({Device(), scratch}, model->set, 7, 0.5);
    return model;
  }
  void write(const Model& model, const std::string& name, const HfExport& options = {}) const {
    export_hf(path(name), config, tensors_of(model.set, model.set.values()), options);
  }
  static bool same_values(const Model& a, const Model& b) {
    return a.set.values().bytes() == b.set.values().bytes() && std::memcmp(a.set.values().data, b.set.values().data, a.set.values().bytes()) == 0;
  }
  static std::set<std::string> names_in(const fs::path& where) {
    std::set<std::string> out;
    for (const fs::directory_entry& entry : fs::directory_iterator(where)) out.insert(entry.path().filename().string());
    return out;
  }
  // Writes the folder's tensors again as one file, after `change` had its way with them.
  struct Content {
    SafetensorsInfo info;
    std::vector<char> bytes;
  };
  void rewrite(const std::string& name, const std::function<void(std::map<std::string, Content>&)>& change) const {
    std::map<std::string, Content> contents;
    {
      const SafetensorsFolder read(path(name));
      for (const auto& [tensor, entry] : read.tensors()) {
        Content& content = contents[tensor];
        content = {*entry.info, std::vector<char>(std::size_t(entry.info->bytes()))};
        entry.file->read(*entry.info, 0, entry.info->bytes(), content.bytes.data());
      }
    }
    change(contents);
    std::vector<SafetensorsInfo> infos;
    for (auto& [tensor, content] : contents) {
      content.info.name = tensor;
      infos.push_back(content.info);
    }
    SafetensorsWriter writer(path(name) + "/model.safetensors", infos, {});
    for (const SafetensorsInfo& info : writer.tensors()) writer.write(info, 0, info.bytes(), contents.at(info.name).bytes.data());
    writer.finish();
  }
  std::string import_error(const std::string& name) const {
    return error_of([&] {
      Model model(config, DType::f32);
      import_hf(path(name), config, model.set);
    });
  }

  fs::path folder;
  ModelConfig config;
};

TEST_F(HfCheckpoint, TheModelsSlabsAreThePublishedTensors) {
  const std::unique_ptr<Model> model = random_model();
  std::map<std::string, Shape> slabs;
  for (const Parameter& parameter : model->set.parameters())
    for (const Slab& slab : parameter.slabs) EXPECT_TRUE(slabs.emplace(slab.name, slab.global_shape).second) << slab.name;
  for (const PublishedTensor& tensor : published_tensors(config)) {
    ASSERT_TRUE(slabs.contains(tensor.name)) << tensor.name;
    EXPECT_EQ(slabs[tensor.name], tensor.shape) << tensor.name;
  }
  EXPECT_EQ(slabs.size(), published_tensors(config).size());
}

TEST_F(HfCheckpoint, GoesOutAndInAndOutBitByBit) {
  const std::unique_ptr<Model> model = random_model();
  write(*model, "one", {.dtype = "F32"});
  write(*model, "shards/", {.dtype = "F32", .max_shard_size = 5000});
  EXPECT_EQ(names_in(path("one")), (std::set<std::string>{"config.json", "model.safetensors"}));
  EXPECT_GT(names_in(path("shards")).size(), 5u);
  for (const char* name : {"one", "shards"}) {
    Model again(config, DType::f32);
    import_hf(path(name), read_hf_config(path(name)), again.set);
    EXPECT_TRUE(same_values(*model, again)) << name;
    write(again, std::string(name) + "2", {.source = path(name), .max_shard_size = name[0] == 'o' ? 1'000'000 : 5000});
    EXPECT_EQ(names_in(path(name)), names_in(path(std::string(name) + "2")));
    for (const std::string& file : names_in(path(name)))
      EXPECT_EQ(read_file(path(name) + "/" + file), read_file(path(std::string(name) + "2/") + file)) << file;
  }
}

TEST_F(HfCheckpoint, EveryTypeComesBackFromAnyComputeType) {
  const std::unique_ptr<Model> model = random_model();
  for (const char* type : {"BF16", "F16", "F32"}) {
    write(*model, type, {.dtype = type});
    for (const DType dtype : {DType::f32, DType::f64}) {
      Model again(config, dtype);
      import_hf(path(type), config, again.set);
      const std::string back = fmt::format("{}_{}", type, name_of(dtype));
      write(again, back, {.source = path(type)});  // each tensor's type as in the source
      EXPECT_EQ(read_file(path(type) + "/model.safetensors"), read_file(path(back) + "/model.safetensors")) << back;
      EXPECT_EQ(Json::parse_file(path(back) + "/config.json").find("torch_dtype")->string(), type[0] == 'B'   ? "bfloat16"
                                                                                             : type[1] == '1' ? "float16"
                                                                                                              : "float32");
    }
  }
  Model half(config, DType::bf16);
  import_hf(path("BF16"), config, half.set);
  write(half, "from_bf16");  // without a source: BF16
  EXPECT_EQ(read_file(path("BF16") + "/model.safetensors"), read_file(path("from_bf16") + "/model.safetensors"));
}

// A rank's part: some rows of one matrix beside some columns of another, and part of a norm.
TEST_F(HfCheckpoint, ReadsTheRectanglesThatARankHolds) {
  const std::unique_ptr<Model> model = random_model();
  write(*model, "whole", {.dtype = "F32"});
  const Shape q = {24, 16}, o = {16, 24};
  Parameter part;
  part.name = "part";
  part.shape = {5 * 16 + 16 * 7};
  part.slabs = {{"model.layers.0.self_attn.q_proj.weight", q, 3, 5, 0, 16, 0}, {"model.layers.2.self_attn.o_proj.weight", o, 0, 16, 9, 7, 5 * 16}};
  Parameter corner;
  corner.name = "corner";
  corner.shape = {2, 3};
  corner.slabs = {{"model.layers.2.self_attn.o_proj.weight", o, 4, 2, 21, 3, 0}};
  Parameter norm;
  norm.name = "norm";
  norm.shape = {4};
  norm.slabs = {{"model.norm.weight", {16}, 12, 4, 0, 1, 0}};
  ParameterSet set(Device{}, DType::f32);
  for (const Parameter& parameter : {part, corner, norm}) set.add(parameter);
  set.allocate();
  import_hf(path("whole"), config, set);
  const TensorSource whole = tensors_of(model->set, model->set.values());
  std::vector<float> q_values(24 * 16), o_values(16 * 24), norm_values(16);
  whole.read(part.slabs[0].name, 0, Tensor(q_values.data(), DType::f32, q));
  whole.read(part.slabs[1].name, 0, Tensor(o_values.data(), DType::f32, o));
  whole.read("model.norm.weight", 0, Tensor(norm_values.data(), DType::f32, {16, 1}));
  const float* got = set.parameters()[0].value.as<float>();
  for (int i = 0; i < 5 * 16; i++) EXPECT_EQ(got[i], q_values[std::size_t(3 * 16 + i)]);
  for (int r = 0; r < 16; r++)
    for (int c = 0; c < 7; c++) EXPECT_EQ(got[5 * 16 + r * 7 + c], o_values[std::size_t(r * 24 + 9 + c)]);
  for (int i = 0; i < 6; i++) EXPECT_EQ(set.parameters()[1].value.as<float>()[i], o_values[std::size_t((4 + i / 3) * 24 + 21 + i % 3)]);
  for (int i = 0; i < 4; i++) EXPECT_EQ(set.parameters()[2].value.as<float>()[i], norm_values[std::size_t(12 + i)]);
}

TEST_F(HfCheckpoint, CopiesTokenizerFilesAndTokenIds) {
  const std::unique_ptr<Model> model = random_model();
  write(*model, "source");
  write_file(path("source/tokenizer.json"), "{\"a\": 1}");
  write_file(path("source/generation_config.json"), "{\"top_k\": 20}");
  write_file(path("source/notes.txt"), "not the model's");
  Json json = Json::parse_file(path("source/config.json"));
  json.set("eos_token_id", 36);
  write_file(path("source/config.json"), json.dump());
  config.rope.theta = 5e6;  // as a stage may have set it
  write(*model, "out", {.source = path("source")});
  EXPECT_EQ(names_in(path("out")), (std::set<std::string>{"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"}));
  EXPECT_EQ(read_file(path("out/tokenizer.json")), "{\"a\": 1}");
  EXPECT_EQ(Json::parse_file(path("out/config.json")).find("eos_token_id")->integer(), 36);
  EXPECT_EQ(read_hf_config(path("out")).rope.theta, 5e6);
}

TEST_F(HfCheckpoint, NamesEveryTensorThatIsWrongAtOnce) {
  write(*random_model(), "bad", {.dtype = "F32"});
  rewrite("bad", [](std::map<std::string, Content>& contents) {
    contents.erase("model.layers.0.mlp.experts.2.up_proj.weight");
    contents.erase("model.norm.weight");
    contents["model.layers.7.mlp.gate.weight"] = contents["model.layers.0.mlp.gate.weight"];
    contents["lm_head.weight"].info.shape = {16, 37};
    contents["model.layers.0.mlp.gate.weight"].info.dtype = "I32";
  });
  config.rms_norm_eps = 1e-5;
  const std::string error = import_error("bad");
  for (const char* part : {"2 tensors missing: model.layers.0.mlp.experts.2.up_proj.weight, model.norm.weight",
                           "1 tensor not of this model: model.layers.7.mlp.gate.weight", "lm_head.weight is [16, 37], should be [37, 16]",
                           "model.layers.0.mlp.gate.weight is of type I32", "rms_norm_eps = 1e-06"}) {
    EXPECT_TRUE(contains(error, part)) << part << "\n" << error;
  }
}

TEST_F(HfCheckpoint, NamesTheElementThatIsNotFinite) {
  const std::unique_ptr<Model> model = random_model();
  write(*model, "nan", {.dtype = "F32"});
  rewrite("nan", [](std::map<std::string, Content>& contents) {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    std::memcpy(contents["model.layers.1.mlp.down_proj.weight"].bytes.data() + (3 * 20 + 5) * 4, &nan, 4);
  });
  EXPECT_EQ(import_error("nan"), path("nan") + "/model.safetensors: model.layers.1.mlp.down_proj.weight is not finite (NaN or infinity) at [3, 5]");
  model->set.parameters()[0].value.as<float>()[16 + 2] = INFINITY;
  EXPECT_TRUE(contains(error_of([&] { write(*model, "out"); }), "model.embed_tokens.weight is not finite as BF16 at [1, 2]"));
  model->set.parameters()[0].value.as<float>()[16 + 2] = 1e6f;
  EXPECT_TRUE(contains(error_of([&] { write(*model, "out", {.dtype = "F16"}); }), "model.embed_tokens.weight is not finite as F16"));
  EXPECT_EQ(names_in(folder), (std::set<std::string>{"nan"}));  // nothing half-written
}

TEST_F(HfCheckpoint, RefusesFoldersThatAreNotWhole) {
  EXPECT_TRUE(contains(import_error("none"), "none"));
  write(*random_model(), "cut", {.dtype = "F32"});
  fs::resize_file(path("cut/model.safetensors"), fs::file_size(path("cut/model.safetensors")) - 1);
  EXPECT_TRUE(contains(import_error("cut"), "truncated"));
  EXPECT_TRUE(contains(error_of([&] { write(*random_model(), "cut"); }), "exists already"));
  fs::remove(path("cut/model.safetensors"));
  EXPECT_TRUE(contains(import_error("cut"), "has neither model.safetensors"));
  fs::remove(path("cut/config.json"));
  EXPECT_TRUE(contains(import_error("cut"), "has no config.json"));
  write(*random_model(), "cut");  // empty by now
  EXPECT_EQ(import_error("cut"), "");
}

TEST_F(HfCheckpoint, ATiedModelMayComeWithItsHead) {
  config.tie_word_embeddings = true;
  write(*random_model(), "tied", {.dtype = "BF16"});
  EXPECT_FALSE(SafetensorsFolder(path("tied")).tensors().contains("lm_head.weight"));
  rewrite("tied", [](std::map<std::string, Content>& contents) { contents["lm_head.weight"] = contents["model.embed_tokens.weight"]; });
  Model model(config, DType::f32);
  import_hf(path("tied"), config, model.set);
  write(model, "again", {.source = path("tied")});
  const SafetensorsFolder tied(path("tied")), again(path("again"));
  ASSERT_EQ(tied.tensors().size(), again.tensors().size());
  for (const auto& [name, entry] : tied.tensors()) {
    const SafetensorsFolder::Entry& other = again.tensors().at(name);
    std::vector<char> a(std::size_t(entry.info->bytes())), b = a;
    entry.file->read(*entry.info, 0, entry.info->bytes(), a.data());
    other.file->read(*other.info, 0, entry.info->bytes(), b.data());
    EXPECT_EQ(a, b) << name;
  }
  rewrite("tied", [](std::map<std::string, Content>& contents) { contents["lm_head.weight"].bytes[0] ^= 1; });
  EXPECT_TRUE(contains(import_error("tied"), "lm_head.weight is not model.embed_tokens.weight"));
}

}  // namespace
}  // namespace af
