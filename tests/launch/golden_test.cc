// Loss, gradients and ten AdamW steps against what PyTorch and transformers computed on the same weights and tokens
// (tests/oracle/make_goldens.py), with the design's bounds; and the mutants that these bounds must catch.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <functional>

#include "data/file.h"
#include "data/safetensors.h"
#include "tests/oracle/probe.h"

namespace af {
namespace {

namespace fs = std::filesystem;

constexpr double kLossBound = 1e-5, kGradientBound = 1e-4, kParameterBound = 1e-4;  // relative; gradients and parameters by their norm

// How far beyond its bound the worst of each kind is: up to 1 is allowed.
struct Result {
  double loss = 0, gradients = 0, parameters = 0;
  std::string worst_gradient, worst_parameter;
};

template <class T>
std::vector<T> read_tensor(const SafetensorsFile& file, const std::string& name) {
  const SafetensorsInfo* info = file.find(name);
  AF_CHECK(info && info->bytes() == info->numel() * std::int64_t(sizeof(T)), "{}: no {} of this type", file.path(), name);
  std::vector<T> out(std::size_t(info->numel()));
  file.read(*info, 0, info->bytes(), out.data());
  return out;
}

double relative_distance(const float* ours, const std::vector<float>& theirs) {
  double distance = 0, norm = 0;
  for (std::size_t i = 0; i < theirs.size(); i++) {
    distance += std::pow(double(ours[i]) - double(theirs[i]), 2);
    norm += std::pow(double(theirs[i]), 2);
  }
  return distance == 0 ? 0 : std::sqrt(distance / norm);
}

// Every published tensor in `flat` against prefix + its name in the reference.
void compare_tensors(const oracle::Probe& probe, const Tensor& flat, const SafetensorsFile& reference, const std::string& prefix, double bound,
                     double& worst, std::string& worst_name) {
  const TensorSource source = tensors_of(probe.parameters(), flat);
  for (const PublishedTensor& tensor : published_tensors(probe.config())) {
    const std::vector<float> theirs = read_tensor<float>(reference, prefix + tensor.name);
    std::vector<float> ours(theirs.size());
    source.read(tensor.name, 0, Tensor(ours.data(), DType::f32, {tensor.shape[0], tensor.shape.numel() / tensor.shape[0]}));
    const double excess = relative_distance(ours.data(), theirs) / bound;
    if (!(excess <= worst)) worst = excess, worst_name = tensor.name;
  }
}

Result compare(const std::string& hf_folder, oracle::Batch batch, const std::string& reference_path) {
  const SafetensorsFile reference(reference_path);
  const std::vector<double> losses = read_tensor<double>(reference, "loss");
  oracle::Probe probe(hf_folder, DType::f32);
  Result result;
  for (std::size_t i = 0; i < batch.steps.size(); i++) {
    const double loss = probe.forward_backward(batch.steps[i]);
    result.loss = std::max(result.loss, std::abs(loss / losses[i] - 1) / kLossBound);
    if (i == 0) compare_tensors(probe, probe.parameters().gradients(), reference, "grad.", kGradientBound, result.gradients, result.worst_gradient);
    probe.optimize(batch);
  }
  compare_tensors(probe, probe.parameters().values(), reference, "param.", kParameterBound, result.parameters, result.worst_parameter);
  return result;
}

class Golden : public testing::TestWithParam<const char*> {
 protected:
  std::string folder() const { return std::string(AF_SOURCE_DIR) + "/tests/oracle/goldens/" + GetParam(); }
  std::string reference() const { return folder() + "/reference.safetensors"; }
  oracle::Batch batch() const { return oracle::read_batch(folder() + "/batch.json"); }

  // The comparison with a changed config.json: same weights, another computation.
  Result with_config(const std::function<void(Json&)>& change) const {
    const fs::path copy = fs::path(testing::TempDir()) / (std::string("golden_mutant_") + GetParam());
    fs::remove_all(copy);
    fs::copy(folder() + "/hf", copy);
    Json config = Json::parse_file((copy / "config.json").string());
    change(config);
    write_file((copy / "config.json").string(), config.dump());
    const Result result = compare(copy.string(), batch(), reference());
    fs::remove_all(copy);
    return result;
  }
};

TEST_P(Golden, EqualsTransformers) {
  const Result result = compare(folder() + "/hf", batch(), reference());
  EXPECT_LE(result.loss, 1);
  EXPECT_LE(result.gradients, 1) << result.worst_gradient;
  EXPECT_LE(result.parameters, 1) << result.worst_parameter;
}

TEST_P(Golden, CatchesAShiftedTarget) {
  oracle::Batch shifted = batch();
  for (oracle::Step& step : shifted.steps) std::rotate(step.targets.begin(), step.targets.begin() + 1, step.targets.end());
  EXPECT_GT(compare(folder() + "/hf", shifted, reference()).gradients, 1);
}

TEST_P(Golden, CatchesAnIgnoredDocumentMask) {
  oracle::Batch merged = batch();
  for (oracle::Step& step : merged.steps) {
    const std::int64_t tokens = std::int64_t(step.tokens.size());
    step.documents = {{0, tokens, 0, tokens}};
  }
  EXPECT_GT(compare(folder() + "/hf", merged, reference()).gradients, 1);
}

TEST_P(Golden, CatchesAMovedEpsilon) {
  EXPECT_GT(with_config([](Json& config) { config.set("rms_norm_eps", 1e-5); }).gradients, 1);
}

class GoldenMoe : public Golden {};

TEST_P(GoldenMoe, CatchesTheOtherTopK) {
  EXPECT_GT(with_config([](Json& config) { config.set("norm_topk_prob", !config.find("norm_topk_prob")->boolean()); }).gradients, 1);
}

TEST_P(Golden, CatchesAnotherOptimizer) {
  oracle::Batch other = batch();
  other.optimizer.weight_decay = 0.2;
  EXPECT_GT(compare(folder() + "/hf", other, reference()).parameters, 1);
  other = batch();
  other.optimizer.clip_grad = 0;
  EXPECT_GT(compare(folder() + "/hf", other, reference()).parameters, 1);
}

std::string name_of_golden(const testing::TestParamInfo<const char*>& golden) { return golden.param; }
INSTANTIATE_TEST_SUITE_P(Oracle, Golden, testing::Values("moe_mixed_yarn", "moe_plain_topk_tied", "dense_tied"), name_of_golden);
INSTANTIATE_TEST_SUITE_P(Oracle, GoldenMoe, testing::Values("moe_mixed_yarn", "moe_plain_topk_tied"), name_of_golden);

}  // namespace
}  // namespace af
