// Accuracy of choices, by group, with what chance alone would give. Choices of one sample hang together: standard errors are those of
// independent samples, each with all of its choices (the delta method for a ratio of sums).
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "launch/json_line.h"

namespace af {

class Tally {
 public:
  // A choice that was right or not, and by chance would be with the given probability.
  void add(std::int64_t sample, bool right, double chance, double weight = 1);
  std::int64_t count() const { return count_; }
  std::int64_t samples() const { return std::int64_t(by_sample_.size()); }
  double accuracy() const;
  double chance() const;
  double standard_error() const;  // of the accuracy
  // (accuracy - chance) in standard errors of this difference; where all choices are right, or none is, in those of chance.
  double above_chance() const;

 private:
  struct Sums {
    double weight = 0, right = 0, chance = 0;
  };
  double error_of(double Sums::*value, double Sums::*minus) const;

  std::int64_t count_ = 0;
  double chance_variance_ = 0;  // of the weight that chance gets right
  std::map<std::int64_t, Sums> by_sample_;
  Sums total_;
};

// Groups in the order in which they are first named.
class TallyTable {
 public:
  Tally& operator[](const std::string& group);
  std::string text() const;  // a table, a line each
  JsonLine json() const;     // {"decision": {"count", "samples", "accuracy", "standard_error", "chance", "above_chance"}, ...}

 private:
  std::vector<std::pair<std::string, Tally>> groups_;
};

}  // namespace af
