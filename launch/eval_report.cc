#include "launch/eval_report.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

namespace af {

void Tally::add(std::int64_t sample, bool right, double chance, double weight) {
  ++count_;
  chance_variance_ += weight * weight * chance * (1 - chance);
  for (Sums* sums : {&by_sample_[sample], &total_}) {
    sums->weight += weight;
    sums->right += right ? weight : 0;
    sums->chance += weight * chance;
  }
}

double Tally::accuracy() const { return total_.right / total_.weight; }
double Tally::chance() const { return total_.chance / total_.weight; }

// Of the mean r of (value - minus) over choices, S samples with weights n_s and sums x_s: sqrt(S / (S - 1) sum_s (x_s - r n_s)^2) / n.
double Tally::error_of(double Sums::*value, double Sums::*minus) const {
  const auto of = [&](const Sums& sums) { return sums.*value - (minus ? sums.*minus : 0); };
  const double mean = of(total_) / total_.weight, samples = double(by_sample_.size());
  double squares = 0;
  for (const auto& [sample, sums] : by_sample_) squares += std::pow(of(sums) - mean * sums.weight, 2);
  return samples > 1 ? std::sqrt(squares * samples / (samples - 1)) / total_.weight : 0;
}

double Tally::standard_error() const { return error_of(&Sums::right, nullptr); }

double Tally::above_chance() const {
  double error = error_of(&Sums::right, &Sums::chance);
  if (error < 1e-12) error = std::sqrt(chance_variance_) / total_.weight;  // all right or all wrong, but for rounding
  return error > 0 ? (accuracy() - chance()) / error : 0;
}

Tally& TallyTable::operator[](const std::string& group) {
  const auto found = std::find_if(groups_.begin(), groups_.end(), [&](const auto& entry) { return entry.first == group; });
  return found != groups_.end() ? found->second : groups_.emplace_back(group, Tally()).second;
}

std::string TallyTable::text() const {
  std::size_t width = 5;
  for (const auto& [name, tally] : groups_) width = std::max(width, name.size());
  std::string out = fmt::format("{:<{}}  {:>8}  {:>8}  {:>8}  {:>8}  {:>8}  {:>8}\n", "", width, "choices", "samples", "right %", "+- %", "chance %", "z");
  for (const auto& [name, tally] : groups_)
    out += fmt::format("{:<{}}  {:>8}  {:>8}  {:>8.2f}  {:>8.2f}  {:>8.2f}  {:>8.1f}\n", name, width, tally.count(), tally.samples(), 100 * tally.accuracy(),
                       100 * tally.standard_error(), 100 * tally.chance(), tally.above_chance());
  return out;
}

JsonLine TallyTable::json() const {
  JsonLine out;
  for (const auto& [name, tally] : groups_)
    out.add(name, JsonLine()
                      .add("count", tally.count())
                      .add("samples", tally.samples())
                      .add("accuracy", tally.accuracy())
                      .add("standard_error", tally.standard_error())
                      .add("chance", tally.chance())
                      .add("above_chance", tally.above_chance()));
  return out;
}

}  // namespace af
