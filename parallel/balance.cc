#include "parallel/balance.h"

#include <algorithm>
#include <numeric>

namespace af {
namespace {

// f[s, e] as the loss takes it, for sequence s of S with `tokens` tokens in all.
double share(const BalanceSettings& settings, const RouterStatistics& statistics, const std::int64_t* counts, std::int64_t sequences, std::int64_t experts,
             std::int64_t tokens, std::int64_t top_k, std::int64_t s, std::int64_t e) {
  if (settings.type == BalanceType::global_aux_loss) return statistics.previous_share(e);
  if (settings.type == BalanceType::seq_aux_loss) return double(counts[s * experts + e]) * double(sequences) / double(tokens * top_k);
  std::int64_t total = 0;
  for (std::int64_t i = 0; i < sequences; ++i) total += counts[i * experts + e];
  return double(total) / double(tokens * top_k);
}

}  // namespace

RouterStatistics::RouterStatistics(std::int64_t num_experts) : previous_counts(num_experts), counts(num_experts), prob_sums(num_experts) {}

void RouterStatistics::add(const BalanceSettings& settings, const RouterLoad& own, const RouterLoad& whole, bool speaks, const Tensor& log_sum_exp,
                           std::int64_t top_k, std::int64_t micro_tokens) {
  std::int64_t sequences = own.counts.rows(), experts = own.counts.cols(), own_tokens = log_sum_exp.rows();
  for (std::int64_t i = 0; i < sequences * experts; ++i) {
    counts[std::size_t(i % experts)] += own.counts.as<std::int64_t>()[i];
    prob_sums[std::size_t(i % experts)] += own.prob_sums.as<double>()[i];
  }
  // sum over s of f P / S, with P = sum of probs of s * S / T; with the previous step's f it is linear in P: each rank adds its own.
  bool linear = settings.type == BalanceType::global_aux_loss;
  if (settings.type != BalanceType::none && (linear || speaks)) {
    const RouterLoad& load = linear ? own : whole;
    const std::int64_t* n = load.counts.as<std::int64_t>();
    double loss = 0;
    for (std::int64_t s = 0; s < sequences; ++s)
      for (std::int64_t e = 0; e < experts; ++e)
        loss += share(settings, *this, n, sequences, experts, micro_tokens, top_k, s, e) * load.prob_sums.as<double>()[s * experts + e] / double(micro_tokens);
    balance_loss_sum += settings.aux_loss_coeff * double(experts) * loss;
  }
  if (settings.z_loss_coeff != 0) {  // mean of lse^2
    double squares = 0;
    for (std::int64_t t = 0; t < own_tokens; ++t) {
      double lse = log_sum_exp.dtype == DType::f64 ? log_sum_exp.as<double>()[t] : double(log_sum_exp.as<float>()[t]);
      squares += lse * lse;
    }
    z_loss_sum += settings.z_loss_coeff * squares / double(micro_tokens);
  }
  tokens += double(own_tokens);
  micro_batches += double(own_tokens) / double(micro_tokens);
}

void reduce_over(const Comm& stage, std::vector<RouterStatistics>& layers) {
  if (stage.size() == 1) return;
  std::vector<double> numbers;  // counts are exact in fp64
  for (const RouterStatistics& layer : layers) {
    if (layer.counts.empty()) continue;
    numbers.insert(numbers.end(), layer.counts.begin(), layer.counts.end());
    numbers.insert(numbers.end(), layer.prob_sums.begin(), layer.prob_sums.end());
    numbers.insert(numbers.end(), {layer.balance_loss_sum, layer.z_loss_sum, layer.tokens, layer.micro_batches, layer.dropped, layer.in_rounds});
  }
  if (numbers.empty()) return;
  stage.all_reduce(Tensor(numbers.data(), DType::f64, {std::int64_t(numbers.size())})).wait();
  const double* next = numbers.data();
  for (RouterStatistics& layer : layers) {
    if (layer.counts.empty()) continue;
    for (std::int64_t& n : layer.counts) n = std::int64_t(*next++);
    for (double& p : layer.prob_sums) p = *next++;
    for (double* value : {&layer.balance_loss_sum, &layer.z_loss_sum, &layer.tokens, &layer.micro_batches, &layer.dropped, &layer.in_rounds}) *value = *next++;
  }
}

void RouterStatistics::end_step() {
  previous_counts = counts;
  std::fill(counts.begin(), counts.end(), 0);
  std::fill(prob_sums.begin(), prob_sums.end(), 0);
  balance_loss_sum = z_loss_sum = 0;
  tokens = micro_batches = dropped = in_rounds = 0;
}

double RouterStatistics::previous_share(std::int64_t expert) const {
  std::int64_t total = std::accumulate(previous_counts.begin(), previous_counts.end(), std::int64_t(0));
  return total ? double(previous_counts[expert]) / double(total) : 1.0 / double(previous_counts.size());
}

double RouterStatistics::loss_with_current_counts(const BalanceSettings& settings) const {
  std::int64_t total = std::accumulate(counts.begin(), counts.end(), std::int64_t(0));
  if (!total) return 0;
  double loss = 0;
  for (std::size_t e = 0; e < counts.size(); ++e) loss += double(counts[e]) / double(total) * prob_sums[e] / double(tokens);
  return settings.aux_loss_coeff * double(counts.size()) * loss;
}

void balance_gradient(const BalanceSettings& settings, const RouterStatistics& statistics, const Tensor& counts, std::int64_t tokens, std::int64_t top_k,
                      std::int64_t micro_batches, const Tensor& d_probs) {
  std::int64_t sequences = counts.rows(), experts = counts.cols();
  const std::int64_t* n = counts.as<std::int64_t>();
  for (std::int64_t s = 0; s < sequences; ++s)
    for (std::int64_t e = 0; e < experts; ++e) {
      double f = settings.type == BalanceType::none ? 0 : share(settings, statistics, n, sequences, experts, tokens, top_k, s, e);
      double d = settings.aux_loss_coeff * double(experts) * f / (double(tokens) * double(micro_batches));
      if (d_probs.dtype == DType::f64) d_probs.as<double>()[s * experts + e] = d;
      else d_probs.as<float>()[s * experts + e] = float(d);
    }
}

}  // namespace af
