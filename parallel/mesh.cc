#include "parallel/mesh.h"

#include <algorithm>
#include <array>
#include <cstdlib>

#include <fmt/format.h>

namespace af {

MeshPosition position_of(const MeshShape& s, int rank) {
  MeshPosition p;
  p.tp = rank % s.tp;
  p.cp = rank / s.tp % s.cp;
  p.dp = rank / (s.tp * s.cp) % s.dp;
  p.pp = rank / (s.tp * s.cp * s.dp);
  p.etp = rank % s.etp;
  p.ep = rank / s.etp % s.ep;
  p.edp = rank / (s.etp * s.ep) % s.edp();
  return p;
}

int dense_rank(const MeshShape& s, int tp, int cp, int dp, int pp) { return tp + s.tp * (cp + s.cp * (dp + s.dp * pp)); }
int expert_rank(const MeshShape& s, int etp, int ep, int edp, int pp) { return etp + s.etp * (ep + s.ep * (edp + s.edp() * pp)); }

namespace {

// The sizes closest to `wanted` that divide n, for messages.
std::string divisors_near(int n, int wanted) {
  int below = 0, above = 0;
  for (int d = 1; d <= n; ++d) {
    if (n % d) continue;
    if (d < wanted) below = d;
    if (d > wanted && !above) above = d;
  }
  if (below && above) return fmt::format("{} or {}", below, above);
  return fmt::format("{}", below ? below : above);
}

}  // namespace

std::vector<std::string> problems(const MeshShape& s, int world) {
  std::vector<std::string> found;
  int model = s.tp * s.cp * s.pp;
  if (model > world || world % model) {
    int larger = (world + model - 1) / model * model, smaller = world / model * model;
    std::string processes = smaller ? fmt::format("{} or {} processes", smaller, larger) : fmt::format("{} processes", larger);
    found.push_back(fmt::format("tensor_model_parallel_size {} x context_parallel_size {} x pipeline_model_parallel_size {} = {} does not divide the {} process{}; "
                                "possible: {}{}",
                                s.tp, s.cp, s.pp, model, world, world == 1 ? "" : "es", processes,
                                world % (s.tp * s.cp) == 0 ? fmt::format(", or pipeline_model_parallel_size {}", divisors_near(world / (s.tp * s.cp), s.pp))
                                : world % (s.tp * s.pp) == 0
                                    ? fmt::format(", or context_parallel_size {}", divisors_near(world / (s.tp * s.pp), s.cp))
                                : world % (s.cp * s.pp) == 0
                                    ? fmt::format(", or tensor_model_parallel_size {}", divisors_near(world / (s.cp * s.pp), s.tp))
                                    : ""));
    return found;
  }
  int stage = world / s.pp;
  if (stage % (s.etp * s.ep)) {
    found.push_back(fmt::format("expert_tensor_parallel_size {} x expert_model_parallel_size {} = {} does not divide the {} processes of a pipeline stage "
                                "({} processes / pipeline_model_parallel_size {}); {}",
                                s.etp, s.ep, s.etp * s.ep, stage, world, s.pp,
                                stage % s.etp == 0
                                    ? fmt::format("with expert_tensor_parallel_size {}: expert_model_parallel_size {}", s.etp, divisors_near(stage / s.etp, s.ep))
                                    : fmt::format("expert_tensor_parallel_size {} would divide it", divisors_near(stage, s.etp))));
  }
  return found;
}

Mesh::Mesh(const MeshShape& s, const Comm& all) : shape(s), position(position_of(s, all.rank())), world(all) {
  AF_CHECK(s.world() == all.size(), "a mesh of {} ranks on {} processes", s.world(), all.size());
  const MeshPosition& p = position;
  auto group = [&](Axis axis, int size, int color, int key) { return size > 1 ? all.split(axis, color, key) : Comm(); };
  tp = group(Axis::tp, s.tp, dense_rank(s, 0, p.cp, p.dp, p.pp), p.tp);
  cp = group(Axis::cp, s.cp, dense_rank(s, p.tp, 0, p.dp, p.pp), p.cp);
  dp = group(Axis::dp, s.dp, dense_rank(s, p.tp, p.cp, 0, p.pp), p.dp);
  pp = group(Axis::pp, s.pp, dense_rank(s, p.tp, p.cp, p.dp, 0), p.pp);
  dp_cp = group(Axis::dp, s.dp * s.cp, dense_rank(s, p.tp, 0, 0, p.pp), p.cp + s.cp * p.dp);
  tp_cp = group(Axis::tp, s.tp * s.cp, dense_rank(s, 0, 0, p.dp, p.pp), p.tp + s.tp * p.cp);
  stage = group(Axis::world, s.tp * s.cp * s.dp, p.pp, all.rank());
  etp = group(Axis::etp, s.etp, expert_rank(s, 0, p.ep, p.edp, p.pp), p.etp);
  ep = group(Axis::ep, s.ep, expert_rank(s, p.etp, 0, p.edp, p.pp), p.ep);
  edp = group(Axis::edp, s.edp(), expert_rank(s, p.etp, p.ep, 0, p.pp), p.edp);
  if (s.pp > 1) {  // every rank takes part in the split; those between are alone
    bool end = first_stage() || last_stage();
    Comm ends = all.split(Axis::pp, end ? dense_rank(s, p.tp, p.cp, p.dp, 0) : s.world() + all.rank(), p.pp);
    if (end) tied = ends;
  }
}

}  // namespace af
