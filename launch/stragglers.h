// Which ranks are slow. Every step each rank tells how long it computed (its time less what it waited for others); over some steps
// the ranks of a pipeline stage, which have the same work, are compared with their median.
#pragma once
#include <span>
#include <string>
#include <vector>

#include "parallel/mesh.h"

namespace af {

struct Straggler {
  int rank = 0;
  std::string host;
  double seconds = 0, median = 0;  // computed per step: by this rank, and by its pipeline stage's ranks
};

class Stragglers {
 public:
  static constexpr double kSlow = 1.5;  // times the median
  static constexpr int kSteps = 10;     // that are looked at together

  explicit Stragglers(const Comm& world);  // collective: the ranks' hosts
  explicit Stragglers(std::vector<std::string> hosts) : hosts_(std::move(hosts)) {}
  // A stage of training begins: the ranks may have other work.
  void begin(const MeshShape& shape);
  // Seconds that each rank of the world computed in this step. Gives those that have become slow: in the steps looked at last, and not before.
  std::vector<Straggler> add(std::span<const double> seconds);

 private:
  std::vector<std::string> hosts_;
  std::vector<int> stage_of_;  // of each rank: its pipeline stage
  std::vector<double> sums_;
  std::vector<char> slow_;  // in the steps looked at before
  int steps_ = 0;
};

}  // namespace af
