// ParallelModel beyond what the equivalence program compares: evaluation, moving a running model from layout to layout, and shapes whose
// parts do not begin with a sequence. The oracle is one rank, in fp64.
#include "launch/parallel_model.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <memory>
#include <mutex>

#include <fmt/format.h>

#include "core/random.h"
#include "parallel/comm_threads.h"

namespace af {
namespace {

struct Task {
  ModelConfig model;
  std::int64_t length = 16, sequences = 8, size = 1;  // tokens; of a global batch; of a micro-batch
  BalanceSettings balance = {};
  RecomputeSettings recompute = {};
};

ModelConfig small(bool moe, bool tied = false) {
  ModelConfig m;
  m.model_type = moe ? "qwen3_moe" : "qwen3";
  m.vocab_size = 43;
  m.hidden_size = 12;
  m.num_hidden_layers = 4;
  m.num_attention_heads = 12;
  m.num_key_value_heads = 6;
  m.head_dim = 4;
  m.intermediate_size = 24;
  m.max_position_embeddings = 16;
  m.initializer_range = 0.2;
  m.rope.theta = 100;
  m.tie_word_embeddings = tied;
  if (!moe) return m;
  m.num_experts = 6;
  m.num_experts_per_tok = 2;
  m.moe_intermediate_size = 12;
  return m;
}

ParallelLayout layout(const MeshShape& mesh, ScheduleKind schedule = ScheduleKind::one_f_one_b, int virtual_size = 1) {
  ParallelLayout l;
  l.mesh = mesh;
  l.mesh.sequence_parallel = mesh.tp > 1;
  l.schedule = schedule;
  l.virtual_size = virtual_size;
  l.bucket_numel = 400;
  return l;
}

PackedSequence packed(const Task& s, std::int64_t index) {
  PackedSequence p;
  std::uint64_t n = 0;
  const auto draw = [&](std::int64_t limit) { return std::int64_t(random_below(8, std::uint64_t(index), n++, std::uint64_t(limit))); };
  p.document_begins = {0};
  while (std::int64_t(p.tokens.size()) < s.length) {
    const std::int64_t end = std::min<std::int64_t>(std::int64_t(p.tokens.size()) + 1 + draw(s.length), s.length);
    for (std::int64_t i = 0; std::int64_t(p.tokens.size()) < end; ++i) {
      p.tokens.push_back(std::int32_t(draw(s.model.vocab_size)));
      p.targets.push_back(draw(5) ? std::int32_t(draw(s.model.vocab_size)) : -1);
      p.positions.push_back(std::int32_t(i));
    }
    p.document_begins.push_back(end);
  }
  p.global_index = index;
  return p;
}

// Sequences first, first + D, ... of step `step`: those of a data-parallel rank.
std::vector<PackedSequence> share(const Task& s, const Mesh& mesh, std::int64_t step) {
  std::vector<PackedSequence> own;
  for (std::int64_t i = mesh.position.dp; i < s.sequences; i += mesh.shape.dp) own.push_back(packed(s, step * s.sequences + i));
  return own;
}
std::int64_t micro_batches(const Task& s, const Mesh& mesh) { return s.sequences / mesh.shape.dp / s.size; }

void on_ranks(int n, const std::function<void(const Comm&)>& f) {
  if (n == 1) return f(Comm());
  ThreadOptions options;
  options.comm.timeout_seconds = 20;
  run_ranks(n, options, f);
}

using Track = std::vector<std::array<double, 3>>;  // of each step: loss, gradient norm, balance loss

// Two steps in each of the layouts, one after the other.
Track train(const Task& s, const std::vector<ParallelLayout>& layouts) {
  Track track;
  on_ranks(layouts[0].mesh.world(), [&](const Comm& world) {
    std::unique_ptr<ParallelModel> model;
    std::int64_t step = 0;
    for (const ParallelLayout& next : layouts) {
      if (model) {
        model = std::make_unique<ParallelModel>(*model, next, world);
      } else {
        model = std::make_unique<ParallelModel>(s.model, Device{}, DType::f64, next, world);
        initialize(model->context(), model->parameters(), 3, s.model.initializer_range);
        model->optimizer().reset_master(model->context());
      }
      const Mesh& mesh = model->mesh();
      model->begin_stage(s.model.rope, s.length, s.size, micro_batches(s, mesh), {s.recompute, s.balance});
      GlobalBatch batch(Device{}, s.length, s.size, micro_batches(s, mesh), mesh.shape.cp, mesh.position.cp);
      for (int i = 0; i < 2; ++i, ++step) {
        batch.assign(share(s, mesh, step));
        std::array<double, 3> numbers = {model->forward_backward(batch, {s.recompute, s.balance}).lm_loss, 0, 0};
        for (const RouterStatistics& layer : model->router_statistics())
          if (!layer.counts.empty()) numbers[2] += (layer.balance_loss_sum + layer.z_loss_sum) / layer.micro_batches;
        model->end_router_step();
        OptimizerSettings settings;
        settings.clip_grad = 1;
        numbers[1] = model->update(settings, 1e-2).grad_norm;
        if (world.rank() == 0) track.push_back(numbers);
      }
    }
  });
  return track;
}

void expect_same(const Track& a, const Track& b) {
  ASSERT_EQ(a.size(), b.size());
  const char* names[] = {"loss", "gradient norm", "balance loss"};
  for (std::size_t i = 0; i < a.size(); ++i)
    for (std::size_t j = 0; j < 3; ++j) EXPECT_NEAR(a[i][j], b[i][j], 1e-9 * (std::abs(b[i][j]) + 1e-3)) << names[j] << " of step " << i + 1;
}

std::string text(const ParallelLayout& l) {
  const MeshShape& m = l.mesh;
  return fmt::format("tp {} cp {} dp {} pp {} ep {} etp {} {} x {}", m.tp, m.cp, m.dp, m.pp, m.ep, m.etp, name_of(l.schedule), l.virtual_size);
}

// NVIDIA/Megatron-LM #5996: with sequence parallelism a rank's tokens may begin and end within sequences of the micro-batch: 3 of 16 tokens
// are 24 and 24 on two ranks, and 8 on each of six.
TEST(ParallelModel, PartsThatBeginWithinASequence) {
  for (const BalanceType type : {BalanceType::aux_loss, BalanceType::seq_aux_loss, BalanceType::global_aux_loss}) {
    Task s{small(true)};
    s.sequences = 6, s.size = 3, s.balance = {type, 0.05, 0.002};
    const Track one = train(s, {layout({1, 1, 1, 1})});
    EXPECT_GT(one[0][2], 0);
    for (const MeshShape& m : {MeshShape{2, 1, 1, 1}, {6, 1, 1, 1}, {3, 1, 1, 1, 1, 3}, {2, 2, 1, 1, 1, 2}, {6, 1, 1, 1, 2, 3}, {2, 1, 1, 2, 1, 2}}) {
      SCOPED_TRACE(text(layout(m)));
      expect_same(train(s, {layout(m)}), one);
    }
  }
}

// A running model moves to other layouts, and goes on as one rank does.
TEST(ParallelModel, MovesBetweenLayouts) {
  for (const bool moe : {true, false}) {
    Task s{small(moe, !moe)};
    if (moe) s.balance = {BalanceType::global_aux_loss, 0.05, 0.002};  // it remembers the step before
    const ParallelLayout one = layout({1, 1, 1, 1});
    const Track expected = train(s, {one, one, one});
    const int e = moe ? 2 : 1;
    const ParallelLayout tp = layout({2, 1, 2, 1, 1, e}), cp = layout({1, 4, 1, 1, e, e}), pp = layout({1, 1, 2, 2, 1, e}, ScheduleKind::zero_bubble, 2),
                         dp = layout({1, 1, 4, 1, 1, e});
    for (const std::vector<ParallelLayout>& way : {std::vector<ParallelLayout>{tp, cp, pp}, {pp, dp, tp}, {cp, cp, dp}}) {
      SCOPED_TRACE(text(way[0]) + ", " + text(way[1]) + ", " + text(way[2]));
      expect_same(train(s, way), expected);
    }
  }
}

// The loss of every token of a global batch, by sequence and place.
std::vector<double> evaluate(const Task& s, const ParallelLayout& l, bool trained_before) {
  std::vector<double> losses(std::size_t(s.sequences * s.length), std::nan(""));
  std::mutex mutex;
  on_ranks(l.mesh.world(), [&](const Comm& world) {
    ParallelModel model(s.model, Device{}, DType::f64, l, world);
    initialize(model.context(), model.parameters(), 3, s.model.initializer_range);
    model.optimizer().reset_master(model.context());
    const Mesh& mesh = model.mesh();
    model.begin_stage(s.model.rope, s.length, s.size, micro_batches(s, mesh), {s.recompute, s.balance});
    GlobalBatch batch(Device{}, s.length, s.size, micro_batches(s, mesh), mesh.shape.cp, mesh.position.cp);
    if (trained_before) {  // values come while the evaluation begins
      batch.assign(share(s, mesh, 0));
      model.forward_backward(batch, {s.recompute, s.balance});
      model.end_router_step();
      model.update(OptimizerSettings{}, 1e-2);
    }
    const std::vector<PackedSequence> own = share(s, mesh, 1);
    batch.assign(own);
    const std::vector<Range> chunks = context_chunks(s.length, mesh.shape.cp, mesh.position.cp);
    for (std::int64_t m = 0; m < batch.micro_batches(); ++m) {
      std::vector<double> local(std::size_t(model.local_tokens(batch[m])));
      model.evaluate(batch[m], {s.recompute, s.balance}, Tensor(local.data(), DType::f64, {std::int64_t(local.size())}));
      if (!model.has_head()) continue;
      std::vector<std::size_t> places;  // in `losses`, of the tokens that the ranks of tp have together
      for (std::int64_t j = 0; j < s.size; ++j)
        for (const Range c : chunks)
          for (std::int64_t i = c.begin; i < c.end; ++i)
            places.push_back(std::size_t((own[std::size_t(m * s.size + j)].global_index - s.sequences) * s.length + i));
      const std::size_t first = l.mesh.sequence_parallel ? std::size_t(mesh.position.tp) * local.size() : 0;
      std::lock_guard lock(mutex);
      for (std::size_t i = 0; i < local.size(); ++i) {
        double& loss = losses[places[first + i]];
        AF_CHECK(std::isnan(loss) || loss == local[i], "ranks with the same token differ: {} and {}", loss, local[i]);
        loss = local[i];
      }
    }
    AF_CHECK(model.router_statistics()[0].counts.empty() || model.router_statistics()[0].tokens == 0, "evaluation counts as training");
  });
  return losses;
}

TEST(ParallelModel, EvaluationEqualsOneRank) {
  for (const bool moe : {false, true})
    for (const bool trained_before : {false, true}) {
      Task s{small(moe)};
      s.size = 2;
      const std::vector<double> one = evaluate(s, layout({1, 1, 1, 1}), trained_before);
      std::vector<ParallelLayout> layouts = {layout({2, 1, 1, 1}), layout({1, 2, 2, 1}), layout({1, 1, 1, 4}), layout({1, 1, 1, 2}, ScheduleKind::interleaved, 2),
                                             layout({2, 2, 1, 2}, ScheduleKind::zero_bubble)};
      if (moe) layouts.push_back(layout({1, 1, 2, 2, 1, 2})), layouts.push_back(layout({2, 1, 2, 1, 2, 2}));
      if (!moe) layouts.push_back(layout({6, 1, 1, 1})), layouts.back().mesh.sequence_parallel = false;
      for (const ParallelLayout& l : layouts) {
        SCOPED_TRACE(text(l));
        const std::vector<double> losses = evaluate(s, l, trained_before);
        for (std::size_t i = 0; i < one.size(); ++i) ASSERT_NEAR(losses[i], one[i], 1e-9) << "token " << i;
      }
    }
}

}  // namespace
}  // namespace af
