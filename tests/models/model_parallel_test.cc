// Which models can be cut how: accepted are those of which every rank has whole heads and equal parts, and what a refusal calls possible is.
#include "models/model_parallel.h"

#include <gtest/gtest.h>

#include <cctype>
#include <set>

#include "core/random.h"

namespace af {
namespace {

ModelConfig random_config(std::uint64_t seed) {
  std::uint64_t n = 0;
  const auto draw = [&](std::initializer_list<int> of) { return std::int64_t(of.begin()[random_below(seed, 51, n++, of.size())]); };
  ModelConfig c;
  c.num_hidden_layers = 2;
  c.hidden_size = 16;
  c.head_dim = 4;
  c.num_key_value_heads = draw({1, 2, 3, 4, 6, 8});
  c.num_attention_heads = c.num_key_value_heads * draw({1, 2, 3, 4, 8});
  c.intermediate_size = draw({12, 20, 24, 48, 96});
  c.vocab_size = draw({3, 7, 61, 512});
  c.num_experts = draw({0, 4, 6, 16});
  c.num_experts_per_tok = 2;
  c.moe_intermediate_size = draw({6, 8, 12});
  if (c.num_experts && draw({0, 1})) c.mlp_only_layers = {1};
  return c;
}
bool has_dense_layers(const ModelConfig& c) { return c.num_experts == 0 || !c.mlp_only_layers.empty(); }

// By looking at every rank: its query heads are whole, and read key heads that it has.
bool tensor_parallel_is_possible(const ModelConfig& c, std::int64_t tp) {
  std::set<std::int64_t> key_heads_of_a_rank;
  for (std::int64_t rank = 0; rank < tp; ++rank) {
    if (c.num_attention_heads * rank % tp) return false;
    const std::int64_t begin = c.num_attention_heads * rank / tp, end = c.num_attention_heads * (rank + 1) / tp;
    std::set<std::int64_t> keys;
    for (std::int64_t q = begin; q < end; ++q) keys.insert(q * c.num_key_value_heads / c.num_attention_heads);
    if (keys.empty()) return false;
    // Whole groups, or a part of one: never parts of two.
    const std::int64_t group = c.num_attention_heads / c.num_key_value_heads;
    if (keys.size() > 1 && (begin % group || end % group)) return false;
    key_heads_of_a_rank.insert(std::int64_t(keys.size()));
  }
  if (key_heads_of_a_rank.size() != 1) return false;
  if (tp > c.num_key_value_heads && tp % c.num_key_value_heads) return false;
  return (!has_dense_layers(c) || c.intermediate_size % tp == 0) && c.vocab_size >= tp;
}

std::vector<int> possible_ones(const std::string& message) {
  const std::size_t begin = message.find("possible: ");
  std::vector<int> numbers;
  if (begin == std::string::npos) return numbers;
  for (std::size_t i = begin; i < message.size(); ++i)
    if (std::isdigit(static_cast<unsigned char>(message[i]))) {
      std::size_t used = 0;
      numbers.push_back(std::stoi(message.substr(i), &used));
      i += used;
    }
  return numbers;
}

TEST(ModelParallel, RefusalsNameWhatIsPossible) {
  int refused = 0, accepted = 0;
  for (std::uint64_t seed = 0; seed < 3000; ++seed) {
    const ModelConfig c = random_config(seed);
    MeshShape s;
    s.tp = 1 + int(random_below(seed, 52, 0, 12));
    s.sequence_parallel = s.tp > 1;
    const std::vector<std::string> found = problems(s, c);
    const bool possible = tensor_parallel_is_possible(c, s.tp);
    ASSERT_EQ(found.empty(), possible) << "tp " << s.tp << ", heads " << c.num_attention_heads << " and " << c.num_key_value_heads;
    (possible ? accepted : refused)++;
    if (possible) continue;
    ASSERT_EQ(found.size(), 1u);
    std::vector<int> expected;
    for (int tp = 1; tp <= c.num_attention_heads; ++tp)
      if (tensor_parallel_is_possible(c, tp)) expected.push_back(tp);
    EXPECT_EQ(possible_ones(found[0]), expected) << found[0];
  }
  EXPECT_GT(refused, 500);
  EXPECT_GT(accepted, 500);
}

TEST(ModelParallel, Experts) {
  for (std::uint64_t seed = 0; seed < 500; ++seed) {
    const ModelConfig c = random_config(seed);
    MeshShape s;
    s.ep = 1 + int(random_below(seed, 53, 0, 8));
    s.etp = 1 + int(random_below(seed, 54, 0, 8));
    const std::vector<std::string> found = problems(s, c);
    const bool ep = c.num_experts ? c.num_experts % s.ep == 0 : s.ep == 1, etp = c.num_experts ? c.moe_intermediate_size % s.etp == 0 : s.etp == 1;
    ASSERT_EQ(found.size(), std::size_t(!ep) + std::size_t(!etp));
    for (const std::string& message : found)
      for (const int n : possible_ones(message)) {
        MeshShape other = s;
        (message.find("expert_model_parallel_size") != std::string::npos ? other.ep : other.etp) = n;
        EXPECT_LT(problems(other, c).size(), found.size()) << message << ": " << n;
      }
  }
}

// Without sequence parallelism every rank of tp would route the same tokens.
TEST(ModelParallel, ExpertsNeedSequenceParallelism) {
  ModelConfig c = random_config(1);
  c.num_experts = 4, c.num_key_value_heads = 2, c.num_attention_heads = 4, c.intermediate_size = 24, c.vocab_size = 61;
  MeshShape s;
  s.tp = 2;
  EXPECT_EQ(problems(s, c).size(), 1u);
  s.sequence_parallel = true;
  EXPECT_TRUE(problems(s, c).empty());
}

}  // namespace
}  // namespace af
