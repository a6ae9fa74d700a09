#include "launch/loss_spike.h"

#include <algorithm>
#include <cmath>

namespace af {

std::optional<double> median_below(const std::vector<double>& losses, double loss, double factor, std::int64_t window) {
  const auto n = std::ptrdiff_t(window);
  if (std::ptrdiff_t(losses.size()) < n || !std::isfinite(loss)) return std::nullopt;
  std::vector<double> last(losses.end() - n, losses.end());
  std::sort(last.begin(), last.end());
  const double median = (last[std::size_t((n - 1) / 2)] + last[std::size_t(n / 2)]) / 2;
  return loss > factor * median ? std::optional(median) : std::nullopt;
}

LossSpike spike_of(const StreamState& stream, std::int64_t first, std::int64_t batch, std::int64_t steps) {
  LossSpike spike;
  spike.steps = steps;
  spike.first_sequence = first - (steps - 1) * batch;
  const std::int64_t begin = stream.place_of(spike.first_sequence), end = stream.place_of(first + batch - 1) + 1;
  spike.samples = {begin, end - begin};
  return spike;
}

Json to_json(const LossSpike& spike) {
  Json j;
  j.set("stage", spike.stage);
  j.set("iteration", spike.iteration);
  j.set("lm_loss", spike.lm_loss);
  j.set("median", spike.median);
  j.set("steps", spike.steps);
  j.set("first_sequence", spike.first_sequence);
  j.set("begin", spike.samples.begin);
  j.set("count", spike.samples.count);
  j.set("back_to", spike.back_to);
  return j;
}

LossSpike loss_spike_from(const JsonView& j) {
  return {j["stage"].string(),  j["iteration"].integer(),      j["lm_loss"].number(),                            j["median"].number(),
          j["steps"].integer(), j["first_sequence"].integer(), {j["begin"].integer(), j["count"].integer()}, j["back_to"].integer()};
}

}  // namespace af
