#include "parallel/mesh.h"

#include <algorithm>
#include <initializer_list>
#include <numeric>

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

struct Size {
  const char* name;
  int MeshShape::* value;
};
constexpr Size kTp{"tensor_model_parallel_size", &MeshShape::tp}, kCp{"context_parallel_size", &MeshShape::cp},
    kPp{"pipeline_model_parallel_size", &MeshShape::pp}, kEtp{"expert_tensor_parallel_size", &MeshShape::etp},
    kEp{"expert_model_parallel_size", &MeshShape::ep};

constexpr std::int64_t kMost = std::int64_t(1) << 31;  // no job has as many processes
std::int64_t product(std::int64_t a, std::int64_t b) { return std::min(a * b, kMost); }

bool fits(const MeshShape& s, int world) {
  std::int64_t stage = product(s.tp, s.cp), model = product(stage, s.pp);
  return world % model == 0 && world / s.pp % product(s.etp, s.ep) == 0;
}

std::string either(std::int64_t below, std::int64_t above) {
  return below && above ? fmt::format("{} or {}", below, above) : fmt::format("{}", below ? below : above);
}

// Meshes that fit and differ from s in one of `sizes`, the nearest ones of each, and the nearest numbers of processes.
std::string neighbours(const MeshShape& s, int world, std::initializer_list<Size> sizes) {
  std::string text;
  for (const Size& size : sizes) {
    MeshShape other = s;
    int& n = other.*size.value;
    const int wanted = n;
    int below = 0, above = 0;
    for (n = 1; n <= world && !above; ++n)
      if (n != wanted && fits(other, world)) (n < wanted ? below : above) = n;
    if (below || above) text += fmt::format("{} {}, or ", size.name, either(below, above));
  }
  std::int64_t dense = product(s.tp, s.cp), expert = product(s.etp, s.ep);
  std::int64_t unit = product(product(dense / std::gcd(dense, expert), expert), s.pp), below = world / unit * unit;
  return fmt::format("possible: {}{} processes", text, either(below, below + unit));
}

}  // namespace

std::vector<std::string> problems(const MeshShape& s, int world) {
  for (const Size& size : {kTp, kCp, kPp, kEtp, kEp})
    if (s.*size.value < 1) return {fmt::format("{} {}: at least 1", size.name, s.*size.value)};
  std::int64_t model = product(product(s.tp, s.cp), s.pp), expert = product(s.etp, s.ep);
  if (world % model)
    return {fmt::format("tensor_model_parallel_size {} x context_parallel_size {} x pipeline_model_parallel_size {} = {} does not divide the {} process{}; {}",
                        s.tp, s.cp, s.pp, model, world, world == 1 ? "" : "es", neighbours(s, world, {kPp, kCp, kTp}))};
  if (int stage = world / s.pp; stage % expert)
    return {fmt::format("expert_tensor_parallel_size {} x expert_model_parallel_size {} = {} does not divide the {} processes of a pipeline stage "
                        "({} processes / pipeline_model_parallel_size {}); {}",
                        s.etp, s.ep, expert, stage, world, s.pp, neighbours(s, world, {kEp, kEtp}))};
  return {};
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
