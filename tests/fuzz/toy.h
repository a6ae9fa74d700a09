// A model of a few thousand numbers with its optimizer state.
#pragma once
#include <memory>

#include "data/sha256.h"
#include "launch/checkpoint.h"
#include "models/config.h"
#include "parallel/optimizer.h"
#include "tests/parallel/toy_model.h"

namespace af::fuzz {

inline constexpr test::ToyConfig kToy{2, 8, 2, 1, 4, 2, 4, 37, false};

inline ModelConfig toy_model() {
  ModelConfig c;
  c.vocab_size = kToy.vocab;
  c.hidden_size = kToy.hidden;
  c.num_hidden_layers = kToy.layers;
  c.num_attention_heads = kToy.query_heads;
  c.num_key_value_heads = kToy.key_heads;
  c.head_dim = kToy.head_dim;
  c.intermediate_size = 8;
  c.num_experts = kToy.experts;
  c.num_experts_per_tok = 1;
  c.moe_intermediate_size = kToy.width;
  c.max_position_embeddings = 64;
  return c;
}

struct ToyState {
  ToyState() {
    test::add_toy_parameters(kToy, Mesh(), set);
    set.allocate(Sharding{});
    optimizer = std::make_unique<Optimizer>(device, set, Comm());
    router.assign(std::size_t(kToy.layers), RouterStatistics(kToy.experts));
  }
  CheckpointParts parts() { return {config, set, *optimizer, router}; }
  std::string text() const {
    const Tensor values = set.values();
    return sha256_hex({static_cast<const char*>(values.data), std::size_t(values.numel()) * size_of(values.dtype)});
  }

  ModelConfig config = toy_model();
  Device device;
  Arena scratch{device, "scratch"};
  Context context{device, scratch};
  ParameterSet set{device, DType::f32};
  std::unique_ptr<Optimizer> optimizer;
  std::vector<RouterStatistics> router;
};

}  // namespace af::fuzz
