// Bugs that users of Megatron-LM have reported where parallelisms meet: the layouts in question, run here. Each suite carries the number
// of the issue or pull request in NVIDIA/Megatron-LM. "Equals one rank" is the comparison of the equivalence program, in fp64.
#include <gtest/gtest.h>

#include <cmath>

#include <fmt/format.h>

#include "core/ops/elementwise.h"
#include "core/random.h"
#include "parallel/pipeline_layout.h"
#include "tests/equivalence/run.h"
#include "tests/parallel/toy_model.h"

namespace af::test {
namespace {

Case make_case(const char* model, const MeshShape& mesh, std::int64_t micro_batch_size = 1, BalanceType balance = BalanceType::none) {
  Case c;
  c.model = model;
  c.layout.mesh = mesh;
  c.layout.bucket_numel = 500;  // several buckets
  c.micro_batch_size = micro_batch_size;
  c.steps = 2;  // the second shows what the optimizer made of the first
  c.balance = balance;
  return c;
}
MeshShape mesh(int tp, int cp, int dp, int pp = 1, int ep = 1, int etp = 1) {
  return {tp, cp, dp, pp, etp, ep, tp > 1};  // sequence parallel wherever there is tensor parallelism
}

// The norm of the first step, from the whole gradients instead of what the ranks count.
double norm_of_gradients(const RunRecord& run) {
  double squares = 0;
  for (const auto& [name, gradient] : run.gradients)
    for (const double g : gradient) squares += g * g;
  return std::sqrt(squares);
}

RunRecord expect_one_ranks_numbers(const Case& c, const Mutant& data = {}) {
  SCOPED_TRACE(c.name());
  std::string why;
  EXPECT_TRUE(possible(c, &why)) << why;
  Worst worst;
  RunRecord run = run_case(c, data);
  EXPECT_EQ(difference(c, run_reference(c, data), run, &worst), "");
  EXPECT_NEAR(run.steps[0].grad_norm, norm_of_gradients(run), 1e-12 * run.steps[0].grad_norm);
  return run;
}

// A sequence of packed documents with these lengths; targets where `counted(i)`.
PackedSequence sequence(std::int64_t index, std::int64_t vocab, const std::vector<std::int64_t>& lengths, const std::function<bool(std::int64_t)>& counted) {
  PackedSequence s;
  s.document_begins = {0};
  for (const std::int64_t n : lengths) {
    for (std::int64_t i = 0; i < n; ++i) {
      const std::uint64_t at = s.tokens.size();
      const auto draw = [&](std::uint64_t stream) { return std::int32_t(random_below(stream, std::uint64_t(index), at, std::uint64_t(vocab))); };
      s.tokens.push_back(draw(41));
      s.targets.push_back(counted(std::int64_t(at)) ? draw(42) : -1);
      s.positions.push_back(std::int32_t(i));
    }
    s.document_begins.push_back(std::int64_t(s.tokens.size()));
  }
  s.global_index = index;
  return s;
}
bool always(std::int64_t) { return true; }

// Fix gradient-norm undercounting when using EP and TP: experts were left out of the norm, clipping did too little.
TEST(MegatronBug5916, GradientNormWithExpertAndTensorParallelism) {
  for (const MeshShape& m : {mesh(2, 1, 1, 1, 2), mesh(4, 1, 1, 1, 4), mesh(2, 1, 2, 1, 4), mesh(4, 1, 1, 1, 2, 2), mesh(2, 1, 1, 2, 2)}) {
    const RunRecord run = expect_one_ranks_numbers(make_case("moe", m));
    EXPECT_GT(run.steps[0].grad_norm, 1) << "clipped to 1, so that the norm decides the weights";
  }
}

// The same report, second part: with ETP != TP and EP = 1 each expert had a part of its gradient, another on each rank.
TEST(MegatronBug5916, GradientsWhereExpertTensorParallelismDiffers) {
  for (const MeshShape& m : {mesh(2, 1, 1), mesh(4, 1, 1, 1, 1, 2), mesh(2, 1, 2, 1, 1, 4), mesh(1, 2, 2, 1, 1, 2)}) expect_one_ranks_numbers(make_case("moe", m));
}

// Parallel folding, etp > 1 and ep = 1: wrong gradient synchronisation, a bad loss curve (#1622 is its fix).
TEST(MegatronBug1628, ExpertTensorParallelGradientsAreSynchronised) {
  const RunRecord by_expert = expect_one_ranks_numbers(make_case("moe", mesh(1, 1, 4, 1, 4, 1)));
  const RunRecord by_width = expect_one_ranks_numbers(make_case("moe", mesh(1, 1, 4, 1, 1, 4)));
  for (std::size_t i = 0; i < by_width.steps.size(); ++i) EXPECT_NEAR(by_width.steps[i].loss, by_expert.steps[i].loss, 1e-10) << "the report's two curves";
}

// Wrong attention gradient when context parallelism is on: documents that cross every cut.
TEST(MegatronBug1464, AttentionGradientUnderContextParallelism) {
  for (const MeshShape& m : {mesh(1, 2, 1), mesh(1, 4, 1), mesh(2, 2, 1), mesh(1, 2, 2, 2)})
    for (const std::vector<std::int64_t>& lengths : {std::vector<std::int64_t>{kSequence}, {3, kSequence - 3}}) {
      Case c = make_case("dense", m);
      c.data = [&](std::int64_t index, std::int64_t vocab) { return sequence(index, vocab, lengths, always); };
      expect_one_ranks_numbers(c);
    }
}

// A vocabulary that the ranks cannot share evenly: 67 ids.
TEST(MegatronBug1754, VocabularyNotDivisibleByTensorParallelSize) {
  for (const MeshShape& m : {mesh(2, 1, 1), mesh(4, 1, 1), mesh(8, 1, 1), mesh(4, 1, 1, 2)}) {
    expect_one_ranks_numbers(make_case("odd", m));
    Case replicated = make_case("odd", m);
    replicated.layout.mesh.sequence_parallel = false;
    expect_one_ranks_numbers(replicated);
  }
}

// The load-balancing loss was counted once more for every recomputation (#1330 of a MoE layer, #1514 of everything).
TEST(MegatronBug1330, BalanceLossIsCountedOnceUnderRecomputation) {
  for (const BalanceType balance : {BalanceType::aux_loss, BalanceType::seq_aux_loss, BalanceType::global_aux_loss})
    for (const MeshShape& m : {mesh(1, 1, 1), mesh(2, 1, 1, 1, 2), mesh(1, 2, 1, 2)}) {
      Case c = make_case("moe", m, 2, balance);
      const RunRecord kept = run_case(c);
      EXPECT_GT(kept.steps[0].balance_loss, 0);
      for (const char* mode : {"selective", "modules", "full", "block"}) {
        c.recompute = mode;
        SCOPED_TRACE(c.name());
        const RunRecord again = run_case(c);
        for (std::size_t i = 0; i < kept.steps.size(); ++i) {
          EXPECT_EQ(again.steps[i].balance_loss, kept.steps[i].balance_loss);
          EXPECT_EQ(again.steps[i].counts, kept.steps[i].counts);
          EXPECT_EQ(again.steps[i].grad_norm, kept.steps[i].grad_norm);
        }
        EXPECT_EQ(again.gradients, kept.gradients);
      }
    }
}

// Auxiliary losses whose strength depended on TP, CP, DP and their own kind (#3672, #2217).
TEST(MegatronBug5047, BalanceLossesDoNotDependOnTheLayout) {
  for (const BalanceType balance : {BalanceType::aux_loss, BalanceType::seq_aux_loss, BalanceType::global_aux_loss}) {
    Case plain = make_case("moe", mesh(1, 1, 1), 2);
    const RunRecord without = run_case(plain);
    plain.balance = balance;
    EXPECT_NE(run_case(plain).gradients.at("model.layers.0.mlp.gate.weight"), without.gradients.at("model.layers.0.mlp.gate.weight"));
    for (const MeshShape& m : {mesh(2, 1, 1), mesh(4, 1, 1, 1, 2), mesh(1, 2, 1), mesh(1, 4, 1, 1, 2), mesh(2, 2, 1), mesh(1, 1, 2), mesh(2, 1, 2, 2)})
      expect_one_ranks_numbers(make_case("moe", m, 2, balance));
  }
}

// seq_aux_loss with packed documents, sequence parallelism and more than one sequence in a micro-batch took these for one.
TEST(MegatronBug5996, SequenceBalanceLossOfSeveralPackedSequences) {
  for (const std::int64_t size : {2, 4, 8})
    for (const MeshShape& m : {mesh(2, 1, 1), mesh(4, 1, 1), mesh(8, 1, 1), mesh(2, 2, 1)})
      expect_one_ranks_numbers(make_case("moe", m, size, BalanceType::seq_aux_loss));
}

// An expert-parallel rank without a token hung or crashed (#3626, #4851): here the router's weights are zero, so that every token goes
// to experts 0 and 1. One step: afterwards rounding would decide between experts that are equal.
TEST(MegatronBug1877, ExpertParallelRanksWithoutATokenGoOn) {
  Mutant zero_router;
  zero_router.model = [](int, ParallelModel& model) {
    for (Parameter& p : model.parameters().parameters())
      if (p.name.ends_with("router")) fill(model.context(), p.value, 0);
    model.optimizer().reset_master(model.context());
  };
  for (const MeshShape& m : {mesh(1, 1, 4, 1, 4), mesh(1, 1, 8, 1, 8), mesh(4, 1, 1, 1, 4), mesh(1, 1, 4, 1, 2, 2), mesh(1, 2, 1, 2, 2)})
    for (const char* recompute : {"none", "modules", "full"}) {
      Case c = make_case("moe", m);
      c.recompute = recompute;
      c.steps = 1;
      if (m.pp > 1) c.layout.schedule = ScheduleKind::zero_bubble;
      SCOPED_TRACE(c.name());
      RunRecord run = run_case(c, zero_router), reference = run_reference(c, zero_router);
      run.parameters.clear();
      Worst worst;
      EXPECT_EQ(difference(c, reference, run, &worst), "");
      for (const std::vector<std::int64_t>& counts : run.steps[0].counts)
        EXPECT_TRUE(counts.empty() || counts == (std::vector<std::int64_t>{kSequence * kSequences, kSequence * kSequences, 0, 0, 0, 0, 0, 0}));
    }
}

// Layers silently dropped by a pipeline split that does not come out even (#468, #2718).
TEST(MegatronBug1304, EveryLayerIsPlacedOnce) {
  struct Split {
    std::int64_t layers;
    int pp, vpp;
  };
  for (const Split s : {Split{30, 4, 1}, {80, 16, 2}, {48, 5, 1}, {94, 8, 3}, {5, 4, 1}, {5, 2, 2}}) {
    std::int64_t next = 0;
    for (const StageLayers& stage : even_layout(s.layers, s.pp, s.vpp)) {
      EXPECT_EQ(stage.begin, next);
      next = stage.end;
    }
    EXPECT_EQ(next, s.layers) << s.pp << " x " << s.vpp;
  }
  EXPECT_THROW(parse_layout("11,13", 48, 2, 1), UserError);  // #2718: 24 layers gone
  EXPECT_THROW(parse_layout("7,7,7,7", 30, 4, 1), UserError);
  EXPECT_THROW(even_layout(4, 8, 1), UserError);
  for (const MeshShape& m : {mesh(1, 1, 1, 4), mesh(1, 1, 1, 2)}) {  // and by the model that is run: each tensor of 5 layers
    const RunRecord run = expect_one_ranks_numbers(make_case("odd", m));
    EXPECT_EQ(run.gradients.size(), 3u + 5u * 11u);
  }
}

// The mask between packed documents was silently ignored: what stands in one document decides nothing of another.
TEST(MegatronBug2357, PackedDocumentsDoNotSeeEachOther) {
  const std::int64_t first = 20;  // tokens of the first document; the second alone has targets
  const auto run = [&](const MeshShape& m, std::int32_t added, const std::vector<std::int64_t>& lengths) {
    Case c = make_case("dense", m);
    c.steps = 1;
    c.data = [=](std::int64_t index, std::int64_t vocab) {
      PackedSequence s = sequence(index, vocab, lengths, [&](std::int64_t i) { return i >= first; });
      for (std::int64_t i = 0; i < first; ++i) s.tokens[std::size_t(i)] = std::int32_t((s.tokens[std::size_t(i)] + added) % vocab);
      return s;
    };
    return run_case(c);
  };
  for (const MeshShape& m : {mesh(1, 1, 1), mesh(2, 1, 1), mesh(1, 2, 1), mesh(1, 4, 1), mesh(2, 2, 1), mesh(1, 2, 1, 2)}) {
    const RunRecord a = run(m, 0, {first, kSequence - first}), b = run(m, 7, {first, kSequence - first});
    EXPECT_EQ(a.steps[0].loss, b.steps[0].loss);
    EXPECT_EQ(a.gradients, b.gradients);
    EXPECT_NE(run(m, 0, {kSequence}).steps[0].loss, run(m, 7, {kSequence}).steps[0].loss) << "of one document they would";
  }
}

// NaN where all tokens of a context-parallel rank are masked; here also those of a sequence-parallel and a data-parallel one.
TEST(MegatronBug1764, ARankWhoseTokensAreAllMasked) {
  const std::int64_t n = 8;  // tokens that are no padding
  for (const MeshShape& m : {mesh(1, 2, 1), mesh(1, 4, 1), mesh(2, 2, 1), mesh(4, 1, 1)}) {
    Case c = make_case("dense", m);
    c.data = [&](std::int64_t index, std::int64_t vocab) { return sequence(index, vocab, {n, kSequence - n}, [&](std::int64_t i) { return i + 1 < n; }); };
    const RunRecord run = expect_one_ranks_numbers(c);
    for (const StepRecord& step : run.steps) EXPECT_TRUE(std::isfinite(step.loss) && std::isfinite(step.grad_norm));
  }
  Case c = make_case("moe", mesh(1, 2, 2, 1, 2), 1, BalanceType::seq_aux_loss);
  c.data = [&](std::int64_t index, std::int64_t vocab) { return sequence(index, vocab, {kSequence}, [&](std::int64_t) { return index % 2 == 0; }); };
  expect_one_ranks_numbers(c);
}

TEST(MegatronBug1764, NoTargetAtAll) {
  for (const MeshShape& m : {mesh(1, 1, 1), mesh(1, 2, 1), mesh(2, 1, 2), mesh(1, 1, 1, 2)}) {
    Case c = make_case("dense", m);
    c.data = [](std::int64_t index, std::int64_t vocab) { return sequence(index, vocab, {kSequence}, [](std::int64_t) { return false; }); };
    const RunRecord run = run_case(c);
    for (const StepRecord& step : run.steps) {
      EXPECT_EQ(step.loss, 0);
      EXPECT_EQ(step.grad_norm, 0);
    }
    EXPECT_EQ(norm_of_gradients(run), 0);
  }
}

// Losses divided by each shard's own number of targets (finding 9; #7513): with one valid token CP = 2 halved the gradient.
TEST(MegatronBug7452, UnequalMasksDoNotChangeTheGradient) {
  for (const MeshShape& m : {mesh(1, 2, 1), mesh(1, 4, 1), mesh(1, 1, 4), mesh(2, 1, 2), mesh(1, 2, 2), mesh(1, 1, 2, 2)}) {
    Case c = make_case("dense", m);
    c.data = [](std::int64_t index, std::int64_t vocab) {
      return sequence(index, vocab, {5, kSequence - 5}, [&](std::int64_t i) { return index % kSequences == 3 && i == 21; });
    };
    const RunRecord run = expect_one_ranks_numbers(c);
    EXPECT_GT(run.steps[0].loss, 1) << "the loss of that token, not its share among all";
  }
}

// Initial weights that depend on the layout (seed + 100 pp, + 2718 + tp, + 1024 + 100 ep): no two layouts could be compared.
TEST(MegatronBug6985, InitialWeightsAreAFunctionOfTheSeedAlone) {
  for (const char* model : {"moe", "tied", "odd"})
    for (const DType dtype : {DType::f32, DType::bf16}) {
      Tensors whole;
      std::mutex mutex;
      std::size_t elements = 0;
      const auto take = [&](const Case& c, bool first) {
        SCOPED_TRACE(c.name());
        const auto rank = [&](const Comm& world) {
          ParallelModel parallel(model_of(c), Device{}, dtype, c.layout, world);
          initialize(parallel.context(), parallel.parameters(), 3, 0.2);
          std::lock_guard lock(mutex);
          for (const Parameter& p : parallel.parameters().parameters())
            for_each_element(p, 0, p.numel(), [&](const Slab& slab, std::int64_t i, std::int64_t global) {
              std::vector<double>& tensor = whole[slab.name];
              tensor.resize(std::size_t(slab.global_shape.numel()));
              const double value = element(p.value.view({p.numel()}), i);
              if (first) tensor[std::size_t(global)] = value, ++elements;
              else AF_CHECK(tensor[std::size_t(global)] == value, "{} element {} is {}, not {}", slab.name, global, value, tensor[std::size_t(global)]);
            });
        };
        if (first) rank(Comm());
        else EXPECT_NO_THROW(run_ranks(c.layout.mesh.world(), {}, rank));
      };
      const bool moe = std::string(model) == "moe";
      take(make_case(model, mesh(1, 1, 1)), true);
      EXPECT_GT(elements, 5000u);
      const std::size_t names = whole.size();
      for (const MeshShape& m : {mesh(2, 1, 1), mesh(8, 1, 1), mesh(1, 2, 2), mesh(1, 1, 1, 4), mesh(2, 2, 2, 2)}) take(make_case(model, m), false);
      if (moe)
        for (const MeshShape& m : {mesh(1, 1, 8, 1, 8), mesh(1, 1, 4, 1, 2, 2), mesh(2, 2, 2, 2, 2, 4)}) take(make_case(model, m), false);
      EXPECT_EQ(whole.size(), names);
    }
}

}  // namespace
}  // namespace af::test
