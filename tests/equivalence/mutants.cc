#include "mutants.h"

namespace af::test {

std::vector<std::pair<Case, Mutant>> mutants() {
  std::vector<std::pair<Case, Mutant>> all;
  auto base = [](const char* model, MeshShape mesh, ScheduleKind schedule = ScheduleKind::one_f_one_b) {
    Case c;
    c.model = model;
    c.layout.mesh = mesh;
    c.layout.schedule = schedule;
    c.layout.bucket_numel = 500;
    return c;
  };
  Case tp = base("dense", {2, 1, 1, 1, 1, 1, false}), sp = base("dense", {2, 1, 1, 1, 1, 1, true}), cp = base("dense", {1, 2, 1, 1, 1, 1, false});
  Case dp = base("dense", {1, 1, 2, 1, 1, 1, false}), pp = base("tied", {1, 1, 1, 2, 1, 1, false}), ep = base("moe", {1, 1, 4, 1, 1, 2, false});
  Case etp = base("moe", {1, 1, 4, 1, 2, 1, false}), kv = base("dense", {4, 1, 1, 1, 1, 1, true}), balance = base("moe", {2, 2, 1, 1, 1, 2, true});
  balance.balance = BalanceType::aux_loss;
  Case rounds = base("moe", {1, 1, 4, 1, 1, 4, false});
  rounds.skewed = true, rounds.memory_factor = 1;

  auto comm = [&](const Case& c, Axis axis, CommKind kind, CommFault::What what, int nth = -1) {
    Mutant m;
    m.fault.what = what;
    m.fault.axis = axis;
    m.fault.kind = kind;
    m.fault.nth = nth;
    m.what = std::string(what == CommFault::What::drop ? "dropped: " : "not waited for: ") + name_of(axis) + " " + name_of(kind);
    all.push_back({c, m});
  };
  using What = CommFault::What;
  comm(tp, Axis::tp, CommKind::all_reduce, What::drop);
  comm(tp, Axis::tp, CommKind::all_reduce, What::drop, 7);
  comm(sp, Axis::tp, CommKind::reduce_scatter, What::drop, 3);
  comm(sp, Axis::tp, CommKind::all_gather, What::drop, 5);
  comm(sp, Axis::tp, CommKind::all_reduce, What::drop, 0);  // a norm's gradient
  comm(kv, Axis::tp, CommKind::all_reduce, What::drop, 2);
  comm(cp, Axis::cp, CommKind::all_to_all_v, What::drop, 1);
  comm(ep, Axis::ep, CommKind::all_to_all_v, What::drop, 4);
  comm(etp, Axis::etp, CommKind::reduce_scatter, What::drop, 1);
  comm(ep, Axis::edp, CommKind::reduce_scatter, What::drop);
  comm(rounds, Axis::ep, CommKind::all_to_all_v, What::drop, 5);   // a round's answers: 3 messages in each of 4 rounds
  comm(rounds, Axis::ep, CommKind::all_to_all_v, What::drop, 44);  // a round's gradients, after the forward of 3 layers: 5 in each
  comm(dp, Axis::dp, CommKind::reduce_scatter, What::drop, 1);
  comm(dp, Axis::dp, CommKind::all_gather, What::drop, 1);
  comm(dp, Axis::world, CommKind::all_reduce, What::drop);
  comm(pp, Axis::pp, CommKind::send, What::drop, 2);
  comm(pp, Axis::pp, CommKind::all_reduce, What::drop);  // of tied embeddings
  comm(balance, Axis::tp, CommKind::all_reduce, What::drop, 0);
  comm(sp, Axis::tp, CommKind::reduce_scatter, What::early_wait, 3);
  comm(cp, Axis::cp, CommKind::all_to_all_v, What::early_wait, 1);
  comm(ep, Axis::ep, CommKind::all_to_all_v, What::early_wait, 4);
  comm(dp, Axis::dp, CommKind::reduce_scatter, What::early_wait, 1);
  comm(dp, Axis::dp, CommKind::all_gather, What::early_wait, 1);

  auto other = [&](const Case& c, const char* what, std::function<void(int, ParallelModel&)> model, std::function<void(int, GlobalBatch&)> batch) {
    Mutant m;
    m.what = what;
    m.model = std::move(model);
    m.batch = std::move(batch);
    all.push_back({c, m});
  };
  other(tp, "norm of replicated parameters counted twice",
        [](int, ParallelModel& model) {
          for (Parameter& p : model.parameters().parameters())
            std::erase_if(p.replicated, [](const ReplicatedRange& r) { return r.gradients == Gradients::equal; });
        },
        nullptr);
  other(kv, "gradients of shared key heads not summed",
        [](int, ParallelModel& model) {
          for (Parameter& p : model.parameters().parameters())
            if (p.name.find("qkv") != std::string::npos) p.replicated.clear();
        },
        nullptr);
  auto shift = [](const Tensor& t) {
    std::int32_t* x = t.as<std::int32_t>();
    for (std::int64_t i = 0; i + 1 < t.numel(); ++i)
      if (x[i] >= 0 && x[i + 1] >= 0) x[i] = x[i + 1];
  };
  other(cp, "targets shifted by one on a context-parallel rank", nullptr, [shift](int rank, GlobalBatch& batch) {
    if (rank == 1) shift(batch[0].targets);
  });
  other(cp, "positions restart at a cut", nullptr, [](int rank, GlobalBatch& batch) {
    std::int32_t* p = batch[0].positions.as<std::int32_t>();
    std::int32_t first = p[0];
    if (rank == 1)
      for (std::int64_t i = 0; i < 4; ++i) p[i] = std::max(0, p[i] - first);
  });
  return all;
}

}  // namespace af::test
