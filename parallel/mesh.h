// Where a rank stands: two grids on one set of ranks (design decision "parallel folding", Megatron-LM's parallel_state).
//   dense  rank = tp + TP (cp + CP (dp + DP pp))
//   expert rank = etp + ETP (ep + EP (edp + EDP pp))     ETP EP EDP = TP CP DP
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "parallel/comm.h"

namespace af {

struct MeshShape {
  int tp = 1, cp = 1, dp = 1, pp = 1;  // dense
  int etp = 1, ep = 1;                 // expert
  bool sequence_parallel = false;      // between the blocks of a layer each rank of tp holds its part of the tokens
  int world() const { return tp * cp * dp * pp; }
  int edp() const { return tp * cp * dp / (etp * ep); }
  bool operator==(const MeshShape&) const = default;
};

struct MeshPosition {
  int tp = 0, cp = 0, dp = 0, pp = 0;
  int etp = 0, ep = 0, edp = 0;
  bool operator==(const MeshPosition&) const = default;
};

MeshPosition position_of(const MeshShape& shape, int rank);
// World rank of a place in the dense grid, and in the expert grid of a pipeline stage.
int dense_rank(const MeshShape& shape, int tp, int cp, int dp, int pp);
int expert_rank(const MeshShape& shape, int etp, int ep, int edp, int pp);

// What is wrong with a mesh on `world` processes, with the arithmetic and the nearest possible ones; empty: nothing.
// shape.dp is not looked at: it follows from the others.
std::vector<std::string> problems(const MeshShape& shape, int world);

// The groups of this rank. Every member with one rank is a default Comm.
struct Mesh {
  Mesh() = default;  // one rank
  Mesh(const MeshShape& shape, const Comm& world);

  MeshShape shape;
  MeshPosition position;
  Comm world;
  Comm tp, cp, dp, pp;      // ranks that differ in that coordinate alone
  Comm dp_cp;               // of one tp and pp: they hold the same dense parameters. Rank: cp + CP dp
  Comm tp_cp;               // of one dp and pp: they share the micro-batches. Rank: tp + TP cp
  Comm etp, ep, edp;        // expert grid
  Comm tied;                // first and last stage of one (tp, cp, dp): they both hold a tied embedding; others: one rank alone
  bool first_stage() const { return position.pp == 0; }
  bool last_stage() const { return position.pp == shape.pp - 1; }
};

}  // namespace af
