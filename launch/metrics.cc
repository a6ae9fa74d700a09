#include "launch/metrics.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <cmath>
#include <ctime>
#include <fstream>

#include "core/error.h"

namespace af {

JsonLine event(std::string_view name) { return JsonLine().add("event", name); }

JsonLine to_json(const StepMetrics& step) {
  JsonLine line;
  line.add("iteration", step.iteration).add("stage", step.stage);
  line.add("consumed_samples", step.consumed_samples).add("consumed_tokens", step.consumed_tokens);
  if (step.packing_utilization) line.add("packing_utilization", *step.packing_utilization);
  line.add("lm_loss", step.lm_loss);
  if (step.load_balancing_loss) line.add("load_balancing_loss", *step.load_balancing_loss);
  if (step.load_balancing_loss_current_f) line.add("load_balancing_loss_current_f", *step.load_balancing_loss_current_f);
  if (step.z_loss) line.add("z_loss", *step.z_loss);
  line.add("grad_norm", step.grad_norm).add("params_norm", step.params_norm).add("learning_rate", step.learning_rate);
  line.add("global_batch_size", step.global_batch_size).add("iteration_time_ms", step.iteration_time_ms);
  line.add("tokens_per_second", step.tokens_per_second()).add("tflops_per_gpu", step.tflops_per_gpu());
  if (step.peak_tflops > 0) line.add("mfu", step.mfu());
  line.add("memory_bytes", step.memory_bytes);
  const SentBytes& comm = step.comm_bytes;
  line.add("comm_bytes", JsonLine().add("tp", comm.tp).add("cp", comm.cp).add("ep", comm.ep).add("dp", comm.dp).add("pp", comm.pp));
  if (!step.pipeline_idle.empty()) line.add("pipeline_idle", step.pipeline_idle);
  if (step.rank_times) {
    const RankTimes& times = *step.rank_times;
    line.add("rank_times", JsonLine().add("median", times.median).add("max", times.max).add("slowest", times.slowest));
  }
  if (step.tokens_per_expert) {
    const TokensPerExpert& tokens = *step.tokens_per_expert;
    line.add("tokens_per_expert", JsonLine().add("min", tokens.min).add("max", tokens.max).add("cv", tokens.cv));
  }
  if (step.tokens_dropped) line.add("tokens_dropped", *step.tokens_dropped);
  if (step.experts_in_rounds) line.add("experts_in_rounds", *step.experts_in_rounds);
  return line.add("skipped", step.skipped).add("nan", step.nan);
}

MetricsFile::MetricsFile(const std::string& path) : file_(path) {
  std::ifstream before(path, std::ios::binary | std::ios::ate);
  if (before.tellg() > 0 && before.seekg(-1, std::ios::end).get() != '\n') file_.append("\n");
}

void MetricsFile::write(const JsonLine& line) { file_.append(line.text() + "\n"); }

void LogWindow::add(const StepMetrics& step) {
  StepMetrics sum = step;
  if (steps_ > 0) {
    sum.lm_loss += sum_.lm_loss;
    sum.iteration_time_ms += sum_.iteration_time_ms;
    sum.tokens += sum_.tokens;
    sum.model_flops += sum_.model_flops;
    sum.skipped += sum_.skipped;
    sum.nan += sum_.nan;
    if (sum.load_balancing_loss) *sum.load_balancing_loss += sum_.load_balancing_loss.value_or(0);
    if (sum.z_loss) *sum.z_loss += sum_.z_loss.value_or(0);
    if (sum.tokens_dropped) *sum.tokens_dropped += sum_.tokens_dropped.value_or(0);
    if (sum.experts_in_rounds) *sum.experts_in_rounds += sum_.experts_in_rounds.value_or(0);
  }
  sum_ = sum;
  ++steps_;
}

std::string LogWindow::line(std::int64_t total_iterations, double remaining_flops) {
  AF_CHECK(steps_ > 0, "a log line without a step");
  const StepMetrics& s = sum_;
  const double n = double(steps_);
  std::string out = fmt::format(" [{:%Y-%m-%d %H:%M:%S}]", fmt::localtime(std::time(nullptr)));
  out += fmt::format(" iteration {:8d}/{:8d} | consumed samples: {:12d} | consumed tokens: {:14d} |", s.iteration, total_iterations,
                     s.consumed_samples, s.consumed_tokens);
  out += fmt::format(" elapsed time per iteration (ms): {:.1f} | tokens/s: {:.0f} | throughput per GPU (TFLOP/s/GPU): {:.{}f} |",
                     s.iteration_time_ms / n, s.tokens_per_second(), s.tflops_per_gpu(), s.tflops_per_gpu() < 10 ? 3 : 1);
  if (s.peak_tflops > 0) out += fmt::format(" MFU: {:.1f}% |", 100 * s.mfu());
  out += fmt::format(" learning rate: {:.6E} | global batch size: {:5d} | lm loss: {:.6E} |", s.learning_rate, s.global_batch_size, s.lm_loss / n);
  if (s.load_balancing_loss) out += fmt::format(" load_balancing_loss: {:.6E} |", *s.load_balancing_loss / n);
  if (s.z_loss) out += fmt::format(" z_loss: {:.6E} |", *s.z_loss / n);
  out += fmt::format(" grad norm: {:.3f} | params norm: {:.3f} |", s.grad_norm, s.params_norm);
  if (s.tokens_per_expert) {
    out += fmt::format(" tokens per expert (min/max/cv): {:.0f}/{:.0f}/{:.2f} |", s.tokens_per_expert->min, s.tokens_per_expert->max,
                       s.tokens_per_expert->cv);
  }
  if (s.tokens_dropped) out += fmt::format(" tokens dropped: {:.0f} |", *s.tokens_dropped);
  if (s.experts_in_rounds.value_or(0) > 0) out += fmt::format(" experts in rounds: {:.0f} |", *s.experts_in_rounds);
  out += fmt::format(" number of skipped iterations: {:3d} | number of nan iterations: {:3d} |", s.skipped, s.nan);
  out += fmt::format(" ETA: {} |", duration(remaining_flops / s.model_flops * s.iteration_time_ms * 1e-3));
  steps_ = 0;
  return out;
}

std::string duration(double seconds) {
  if (!std::isfinite(seconds) || seconds >= 1e13) return "?";
  const std::int64_t all = std::llround(seconds), days = all / 86400, rest = all % 86400;
  const std::string clock = fmt::format("{:02d}:{:02d}:{:02d}", rest / 3600, rest / 60 % 60, rest % 60);
  return days > 0 ? fmt::format("{}d {}", days, clock) : clock;
}

}  // namespace af
