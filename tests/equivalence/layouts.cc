#include "layouts.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/random.h"
#include "models/model_parallel.h"

namespace af::test {
namespace {

const char* kBalance[] = {"none", "aux", "seq", "global"};

// "tp2 cp2 dp2 pp2 ep4 etp1 sp zero_bubble vpp2": what is not named is 1.
ParallelLayout layout(int tp, int cp, int dp, int pp, int ep, int etp, bool sp, ScheduleKind schedule = ScheduleKind::one_f_one_b, int vpp = 1) {
  ParallelLayout l;
  l.mesh = {tp, cp, dp, pp, etp, ep, sp};
  l.schedule = schedule;
  l.virtual_size = vpp;
  l.bucket_numel = 500;  // several buckets
  return l;
}

}  // namespace

std::string Case::name() const {
  const MeshShape& m = layout.mesh;
  std::string text = fmt::format("{} {}", model, name_of(dtype));
  auto add = [&](const char* what, int n) {
    if (n > 1) text += fmt::format(" {}{}", what, n);
  };
  add("tp", m.tp), add("cp", m.cp), add("dp", m.dp), add("pp", m.pp), add("vpp", layout.virtual_size), add("ep", m.ep), add("etp", m.etp);
  if (m.sequence_parallel) text += " sp";
  if (m.pp > 1) text += fmt::format(" {}", af::name_of(layout.schedule));
  if (!layout.pipeline_layout.empty()) text += " " + layout.pipeline_layout;
  if (micro_batch_size > 1) text += fmt::format(" mbs{}", micro_batch_size);
  if (recompute != "none") text += " recompute=" + recompute;
  if (balance != BalanceType::none) text += fmt::format(" balance={}", kBalance[int(balance)]);
  if (skewed) text += " skewed";
  if (memory_factor < 16) text += fmt::format(" memory={}", memory_factor);
  if (capacity > 0) text += fmt::format(" capacity={} {}", capacity, drop_policy == DropPolicy::probs ? "probs" : "position");
  if (!layout.overlap_grad_reduce) text += " no-overlap";
  return text;
}

ModelConfig model_of(const Case& c) {
  ModelConfig m;
  bool moe = c.model == "moe";
  m.model_type = moe ? "qwen3_moe" : "qwen3";
  m.vocab_size = c.model == "odd" ? 67 : 61;
  m.hidden_size = 16;
  m.num_hidden_layers = c.model == "odd" ? 5 : 4;
  m.num_attention_heads = 8;
  m.num_key_value_heads = 2;
  m.head_dim = 4;
  m.intermediate_size = 24;
  m.max_position_embeddings = kSequence;
  m.initializer_range = 0.2;
  m.rope.theta = 100;
  m.tie_word_embeddings = c.model == "tied";
  if (moe) {
    m.num_experts = 8;
    m.num_experts_per_tok = 2;
    m.moe_intermediate_size = 12;
    m.mlp_only_layers = {1};
  }
  return m;
}

RecomputeSettings recompute_of(const Case& c) {
  RecomputeSettings r;
  using G = RecomputeSettings::Granularity;
  if (c.recompute == "selective") r.granularity = G::selective, r.core_attn = r.layernorm = r.moe_act = true;
  if (c.recompute == "modules") r.granularity = G::selective, r.mlp = r.moe = true;
  if (c.recompute == "full") r.granularity = G::full;
  if (c.recompute == "block") r.granularity = G::full, r.method = RecomputeSettings::Method::block;
  return r;
}

BalanceSettings balance_of(const Case& c) {
  BalanceSettings balance{c.balance, c.balance == BalanceType::none ? 0 : 0.05, c.model == "moe" ? 0.002 : 0, c.memory_factor};
  if (c.capacity > 0) balance.capacity_factor = c.capacity;
  balance.drop_policy = c.drop_policy;
  return balance;
}

bool possible(const Case& c, std::string* why) {
  const MeshShape& m = c.layout.mesh;
  std::vector<std::string> found = problems(m, m.world());
  std::vector<std::string> model = problems(m, model_of(c));
  found.insert(found.end(), model.begin(), model.end());
  std::int64_t own = kSequences / m.dp, tokens = kSequence * c.micro_batch_size / m.cp;
  if (kSequences % m.dp || own % c.micro_batch_size) found.push_back("sequences");
  if (kSequence % (2 * m.cp) && m.cp > 1) found.push_back("cp");
  if (m.sequence_parallel && tokens % m.tp) found.push_back("sp");
  if (c.layout.virtual_size > 1 && (m.pp == 1 || c.layout.schedule == ScheduleKind::one_f_one_b || c.layout.schedule == ScheduleKind::gpipe))
    found.push_back("vpp");
  if (c.layout.pipeline_layout.empty() && m.pp * c.layout.virtual_size > model_of(c).num_hidden_layers) found.push_back("layers");
  if (found.empty()) {
    ScheduleShape shape{c.layout.schedule, m.pp, c.layout.virtual_size, int(own / c.micro_batch_size)};
    found = problems(shape);
  }
  if (why && !found.empty()) *why = found[0];
  return found.empty();
}

std::vector<Case> fixed_cases() {
  using S = ScheduleKind;
  using B = BalanceType;
  std::vector<Case> cases;
  auto add = [&](const char* model, ParallelLayout l, std::int64_t mbs = 1, const char* recompute = "none", B balance = B::none) {
    Case c;
    c.model = model, c.layout = l, c.micro_batch_size = mbs, c.recompute = recompute, c.balance = balance;
    cases.push_back(c);
  };
  // Every axis alone.
  add("dense", layout(1, 1, 2, 1, 1, 1, false));
  add("dense", layout(1, 1, 8, 1, 1, 1, false));
  add("moe", layout(1, 1, 4, 1, 1, 1, false), 2, "none", B::global_aux_loss);
  add("dense", layout(2, 1, 1, 1, 1, 1, false));
  add("dense", layout(4, 1, 1, 1, 1, 1, false));
  add("dense", layout(8, 1, 1, 1, 1, 1, false));  // fewer key heads than ranks
  add("dense", layout(2, 1, 1, 1, 1, 1, true), 2);
  add("dense", layout(4, 1, 1, 1, 1, 1, true), 1, "selective");
  add("dense", layout(8, 1, 1, 1, 1, 1, true));
  add("odd", layout(4, 1, 1, 1, 1, 1, true));
  add("tied", layout(2, 1, 1, 1, 1, 1, true));
  add("dense", layout(1, 2, 1, 1, 1, 1, false), 2);
  add("dense", layout(1, 4, 1, 1, 1, 1, false));
  add("moe", layout(1, 2, 1, 1, 1, 1, false), 2, "none", B::seq_aux_loss);
  add("moe", layout(1, 4, 1, 1, 1, 1, false), 1, "modules", B::aux_loss);
  for (S s : {S::gpipe, S::one_f_one_b, S::zero_bubble}) {
    add("dense", layout(1, 1, 1, 2, 1, 1, false, s));
    add("tied", layout(1, 1, 1, 4, 1, 1, false, s), 1, "full");
    add("moe", layout(1, 1, 1, 4, 1, 1, false, s), 2, "selective", B::global_aux_loss);
  }
  add("dense", layout(1, 1, 1, 2, 1, 1, false, S::interleaved, 2));
  add("tied", layout(1, 1, 1, 2, 1, 1, false, S::interleaved, 2), 2, "block");
  add("moe", layout(1, 1, 1, 2, 1, 1, false, S::zero_bubble, 2), 1, "modules", B::aux_loss);
  ParallelLayout uneven = layout(1, 1, 1, 4, 1, 1, false);
  uneven.pipeline_layout = "1,2,2,0";
  add("odd", uneven);
  uneven = layout(1, 1, 2, 2, 1, 1, false, S::interleaved, 2);
  uneven.pipeline_layout = "Et|tt|t|tL";
  add("odd", uneven);
  add("moe", layout(1, 1, 2, 1, 2, 1, false), 1, "none", B::aux_loss);
  add("moe", layout(1, 1, 4, 1, 4, 1, false), 2, "selective", B::seq_aux_loss);
  add("moe", layout(1, 1, 8, 1, 8, 1, false), 1, "none", B::global_aux_loss);
  add("moe", layout(1, 1, 2, 1, 1, 2, false));
  add("moe", layout(1, 1, 4, 1, 2, 2, false), 1, "modules");
  add("moe", layout(1, 1, 8, 1, 2, 4, false), 1, "full", B::aux_loss);
  // Pairs.
  add("dense", layout(2, 1, 2, 1, 1, 1, false));
  add("dense", layout(2, 1, 4, 1, 1, 1, true));
  add("dense", layout(2, 2, 1, 1, 1, 1, false), 2);
  add("dense", layout(2, 2, 1, 1, 1, 1, true), 1, "full");
  add("tied", layout(2, 1, 1, 2, 1, 1, false));
  add("tied", layout(4, 1, 1, 4, 1, 1, true), 1, "none");
  add("moe", layout(2, 1, 1, 1, 1, 2, true), 1, "none", B::aux_loss);
  add("moe", layout(2, 1, 1, 1, 2, 1, true), 1, "none", B::seq_aux_loss);
  add("moe", layout(2, 1, 1, 1, 1, 1, true), 2, "none", B::seq_aux_loss);
  add("moe", layout(4, 1, 1, 1, 2, 2, true), 1, "selective", B::global_aux_loss);
  add("moe", layout(4, 1, 2, 1, 4, 2, true), 2, "none", B::seq_aux_loss);
  add("moe", layout(1, 2, 1, 1, 2, 1, false), 1, "none", B::aux_loss);
  add("moe", layout(1, 2, 2, 1, 2, 2, false));
  add("moe", layout(1, 2, 1, 2, 2, 1, false), 1, "none", B::global_aux_loss);
  add("moe", layout(1, 1, 2, 2, 2, 1, false, S::zero_bubble), 1, "none", B::aux_loss);
  add("moe", layout(1, 1, 2, 2, 2, 1, false, S::interleaved, 2), 1, "modules");
  add("moe", layout(2, 1, 1, 2, 2, 1, true, S::zero_bubble, 2), 1, "full", B::global_aux_loss);
  add("dense", layout(1, 2, 2, 1, 1, 1, false), 2);
  add("dense", layout(1, 2, 1, 2, 1, 1, false, S::zero_bubble));
  add("dense", layout(1, 1, 4, 2, 1, 1, false), 1, "block");
  add("tied", layout(1, 1, 2, 4, 1, 1, false, S::zero_bubble));
  // Products.
  add("dense", layout(2, 2, 2, 2, 1, 1, true), 1, "selective");
  add("dense", layout(2, 2, 2, 2, 1, 1, false, S::zero_bubble));
  add("tied", layout(2, 2, 1, 2, 1, 1, true, S::interleaved, 2));
  add("moe", layout(2, 2, 2, 1, 4, 2, true), 1, "none", B::seq_aux_loss);
  add("moe", layout(2, 2, 1, 2, 2, 2, true), 2, "selective", B::aux_loss);
  add("moe", layout(2, 2, 2, 2, 2, 2, true, S::zero_bubble), 1, "none", B::global_aux_loss);
  add("moe", layout(2, 2, 2, 2, 2, 2, true, S::zero_bubble, 2), 1, "modules", B::aux_loss);   // EP x ETP x CP x VPP x ZB
  add("moe", layout(2, 2, 2, 2, 4, 2, true, S::zero_bubble, 2), 1, "full", B::seq_aux_loss);  // likewise
  add("moe", layout(2, 2, 2, 2, 8, 1, true, S::interleaved, 2), 1, "selective", B::global_aux_loss);
  add("moe", layout(1, 4, 2, 2, 4, 2, false, S::gpipe), 1, "none", B::seq_aux_loss);
  add("moe", layout(4, 2, 2, 1, 8, 1, true), 1, "modules", B::aux_loss);
  add("moe", layout(4, 1, 2, 2, 2, 4, true), 1, "none", B::aux_loss);
  add("moe", layout(1, 1, 16 / 2, 2, 4, 2, false), 1, "none", B::aux_loss);
  ParallelLayout plain = layout(1, 2, 4, 1, 2, 1, false);
  plain.overlap_grad_reduce = plain.overlap_param_gather = false;
  add("moe", plain, 1, "none", B::global_aux_loss);
  // Experts in rounds: nearly all tokens to one rank, and less memory than balanced tokens take.
  auto rounds = [&](ParallelLayout l, double factor, const char* recompute = "none", B balance = B::none, std::int64_t mbs = 1) {
    add("moe", l, mbs, recompute, balance);
    cases.back().skewed = factor >= 1, cases.back().memory_factor = factor;
  };
  rounds(layout(1, 1, 4, 1, 4, 1, false), 1);
  rounds(layout(1, 1, 8, 1, 8, 1, false), 1.25, "selective", B::global_aux_loss);
  rounds(layout(1, 1, 4, 1, 4, 1, false), 1, "modules", B::aux_loss, 2);
  rounds(layout(1, 1, 4, 1, 4, 1, false), 1.5, "full");
  rounds(layout(1, 1, 4, 1, 2, 2, false), 1, "block", B::seq_aux_loss);
  rounds(layout(1, 1, 2, 1, 1, 2, false), 0.3);
  rounds(layout(1, 1, 2, 1, 2, 1, false), 0.05, "selective");
  rounds(layout(1, 1, 2, 2, 2, 1, false, S::zero_bubble), 1, "none", B::aux_loss);
  rounds(layout(1, 1, 2, 2, 2, 1, false, S::zero_bubble, 2), 1, "modules");
  rounds(layout(1, 1, 4, 2, 4, 1, false, S::zero_bubble), 1.1, "full");
  rounds(layout(1, 1, 2, 2, 1, 2, false, S::zero_bubble), 0.4, "selective");
  rounds(layout(2, 2, 2, 1, 4, 2, true), 1, "none", B::seq_aux_loss);
  rounds(layout(2, 2, 2, 2, 4, 2, true, S::zero_bubble, 2), 1, "selective", B::global_aux_loss);
  rounds(layout(2, 2, 2, 2, 2, 2, true, S::interleaved, 2), 0.6, "none", B::aux_loss);
  // A capacity, the same for all layouts.
  auto capacity = [&](ParallelLayout l, double factor, DropPolicy policy, bool skewed = false, double memory = 16, const char* recompute = "none",
                      B balance = B::none, std::int64_t mbs = 1) {
    rounds(l, memory, recompute, balance, mbs);
    cases.back().skewed = skewed, cases.back().capacity = factor, cases.back().drop_policy = policy;
  };
  for (DropPolicy policy : {DropPolicy::probs, DropPolicy::position}) {
    capacity(layout(1, 1, 2, 1, 1, 1, false), 1, policy, false, 16, "none", B::aux_loss, 2);
    capacity(layout(1, 1, 4, 1, 4, 1, false), 0.75, policy, false, 16, "selective", B::seq_aux_loss);
    capacity(layout(2, 1, 1, 1, 1, 1, true), 1.25, policy, true, 16, "none", B::global_aux_loss, 2);
    capacity(layout(1, 4, 1, 1, 2, 1, false), 1, policy, false, 16, "modules", B::aux_loss);
    capacity(layout(1, 2, 1, 1, 1, 2, false), 0.5, policy, true, 16, "full", B::none, 2);
    capacity(layout(2, 2, 2, 1, 4, 2, true), 1, policy, true, 1, "block", B::seq_aux_loss, 2);
    capacity(layout(1, 1, 2, 2, 2, 1, false, S::zero_bubble), 1, policy, false, 1, "selective", B::aux_loss);
    capacity(layout(2, 2, 2, 2, 2, 2, true, S::zero_bubble, 2), 0.9, policy, true, 1, "modules", B::global_aux_loss);
  }
  return cases;
}

std::vector<Case> random_cases(std::uint64_t seed, int count) {
  std::vector<Case> cases;
  std::uint64_t draw = 0;
  auto pick = [&](std::uint64_t n) { return int(random_below(seed, 11, draw++, n)); };
  while (int(cases.size()) < count) {
    Case c;
    const char* models[] = {"moe", "moe", "dense", "tied", "odd"};
    c.model = models[pick(5)];
    int ranks = 2 << pick(4), tp = 1 << pick(4), cp = 1 << pick(3), pp = 1 << pick(3);
    if (ranks % (tp * cp * pp)) continue;
    bool moe = c.model == "moe";
    int ep = moe ? 1 << pick(4) : 1, etp = moe ? 1 << pick(3) : 1;
    ScheduleKind schedule = ScheduleKind(pick(4));
    c.layout = layout(tp, cp, ranks / (tp * cp * pp), pp, ep, etp, tp > 1 && (moe || pick(2)), schedule,
                      schedule == ScheduleKind::interleaved || (schedule == ScheduleKind::zero_bubble && pick(2)) ? 2 : 1);
    c.layout.bucket_numel = 50 << pick(8);
    c.layout.overlap_grad_reduce = pick(4) > 0;
    c.layout.overlap_param_gather = pick(4) > 0;
    c.micro_batch_size = 1 + pick(2);
    const char* modes[] = {"none", "selective", "modules", "full", "block"};
    c.recompute = modes[pick(5)];
    c.balance = moe ? BalanceType(pick(4)) : BalanceType::none;
    if (moe && (ep > 1 || etp > 1) && pick(3) == 0) c.skewed = pick(2), c.memory_factor = 0.25 * (1 + pick(6));
    if (moe && pick(3) == 0) c.capacity = 0.5 + 0.25 * pick(5), c.drop_policy = DropPolicy(pick(2));
    if (possible(c)) cases.push_back(c);
  }
  return cases;
}

}  // namespace af::test
