// af_train: trains the stages of a configuration. The story from here down: launch/trainer.cc -> models/qwen3.cc -> core/ops/*.
#include <chrono>
#include <cstdio>
#include <ctime>
#include <optional>
#include <thread>

#include <fmt/format.h>

#include "data/file.h"
#include "launch/arguments.h"
#include "launch/config_checks.h"
#include "launch/config_yaml.h"
#include "launch/environment.h"
#include "launch/layout.h"
#include "launch/plan.h"
#include "launch/run_lock.h"
#include "launch/stop.h"
#include "launch/trainer.h"
#include "parallel/comm_mpi.h"
#include "parallel/comm_trace.h"
#include "parallel/schedule_drawing.h"

namespace {

using namespace af;

// Errors of a job's ranks: the first one to fail says why and ends them all.
int run_ranks_of_job(const Config& config, const RunOptions& options, const JobEnvironment& job, const std::string& trace) {
  CommOptions comm;
  comm.timeout_seconds = config.runtime.distributed_timeout_minutes * 60;
  comm.heartbeat_seconds = config.runtime.heartbeat_seconds;
  comm.recorder_directory = config.output_dir + "/flight";
  comm.trace = !trace.empty();
  comm.ranks_on_host = job.ranks_on_host;
  make_folder(comm.recorder_directory);
  MpiWorld mpi(comm);
  Comm world = mpi.world();
  if (std::vector<std::string> found = layout_problems(of_stage(config, options.only_stage), world.size()); !found.empty())
    throw UserError(fmt::format("{}", fmt::join(found, "\n")));
  int code = kExitFailed;
  std::optional<RunLock> lock;
  try {
    if (world.rank() == 0) lock.emplace(config.output_dir, [] { return stop_signal() != 0; });  // the others wait: it writes first
    Device device = start_device(config.runtime, job);
    code = Trainer(config, options, device, world).run();
    if (comm.trace) write_trace(world, trace);
  } catch (const UserError& error) {
    // Most mistakes are found by every rank: the first shall say so alone, and has the time to.
    if (world.rank() > 0) std::this_thread::sleep_for(std::chrono::seconds(3));
    mpi.abort(error.what(), kExitUsage);
  } catch (const std::exception& error) {
    mpi.abort(error.what(), kExitFailed);
  }
  return code;
}

// What would be done on the processes of this job, or on as many as are asked for.
int plan(const Config& config, const Arguments& arguments, const JobEnvironment& job) {
  std::int64_t ranks = job.mpi ? MpiWorld({}).world().size() : arguments.integer("--ranks", least_ranks(config), 1, 1 << 20);
  if (std::vector<std::string> found = layout_problems(config, int(ranks)); !found.empty()) throw UserError(fmt::format("{}", fmt::join(found, "\n")));
  if (job.rank > 0) return kExitDone;
  Plan made = make_plan(config, int(ranks));
  fmt::print("{}", describe_plan(config, made));
  if (std::string file = arguments.value("--draw-schedule"); !file.empty()) {
    const StagePlan& stage = pipelined_stage(config, made, arguments.value("--stage"));
    write_file(file, draw_svg(stage.schedule, stage.simulation));
    fmt::print("{}", small_drawing(stage));
  }
  return kExitDone;
}

// When the time of this process ends: what the user says, counted from `start`, and what Slurm says.
TimeLimit::Clock::time_point end_of_time(const Arguments& arguments, const JobEnvironment& job, TimeLimit::Clock::time_point start) {
  using Clock = TimeLimit::Clock;
  Clock::time_point end = Clock::time_point::max();
  auto within = [&](Clock::time_point from, double seconds) {
    if (seconds < 1e9) end = std::min(end, from + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds)));
  };
  if (arguments.has("--time-limit")) within(start, duration_seconds("--time-limit", arguments.value("--time-limit")));
  if (job.end_time > 0) within(Clock::now(), double(job.end_time - std::time(nullptr)));
  return end;
}

int train(const Arguments& arguments, const JobEnvironment& job, TimeLimit::Clock::time_point start) {
  const std::vector<std::string>& words = arguments.positionals();
  Config config = read_config(words[0], {words.begin() + 1, words.end()});
  const bool speaks = job.rank == 0;
  if (arguments.has("--print-config")) {
    if (speaks) fmt::print("{}", to_yaml(config));
    return kExitDone;
  }
  if (speaks)
    for (const std::string& warning : warnings(config)) fmt::print(stderr, "warning: {}\n", warning);
  if (arguments.has("--dry-run")) return plan(config, arguments, job);
  for (const char* option : {"--ranks", "--draw-schedule"})
    if (arguments.has(option)) throw UserError(fmt::format("{} belongs to --dry-run", option));
  const Config needed = of_stage(config, arguments.value("--stage"));
  for (auto* problems_of : {missing_files, data_problems})
    if (std::vector<std::string> found = problems_of(needed); !found.empty()) throw UserError(fmt::format("{}", fmt::join(found, "\n")));
  RunOptions options;
  options.resume = arguments.value("--resume", "auto");
  options.only_stage = arguments.value("--stage");
  options.end = end_of_time(arguments, job, start);
  if (!job.mpi)
    if (std::vector<std::string> found = layout_problems(needed, 1); !found.empty()) throw UserError(fmt::format("{}", fmt::join(found, "\n")));
  if (job.mpi) return run_ranks_of_job(config, options, job, arguments.value("--trace"));
  const RunLock lock(config.output_dir, [] { return stop_signal() != 0; });
  Device device = start_device(config.runtime);
  return Trainer(config, options, device, Comm()).run();
}

}  // namespace

int main(int argc, char** argv) {
  const auto start = TimeLimit::Clock::now();
  const JobEnvironment job = job_environment();
  catch_stop_signals(job.rank == 0);
  Command command;
  command.summary = "continual pre-training of Qwen3 and Qwen3-MoE in stages";
  command.positionals = "CONFIG.yaml [key.path=value ...]";
  command.least_positionals = 1;
  command.most_positionals = 1000;
  command.options = {
      {"--dry-run", Takes::nothing, "", "say what would be trained: shapes, parameters, memory, FLOPs, steps, layouts, bytes between ranks; run nothing", {}, false},
      {"--ranks", Takes::one_value, "N", "with --dry-run: on N processes; else those of the job, or the fewest that the layouts can have", {}, false},
      {"--draw-schedule", Takes::one_value, "FILE.svg", "with --dry-run: the pipeline schedule of --stage, or of the first stage that has one", {}, false},
      {"--print-config", Takes::nothing, "", "print the resolved configuration, with every default, and stop", {}, false},
      {"--stage", Takes::one_value, "NAME", "train this stage alone; the one before must be finished", {}, false},
      {"--resume", Takes::one_value, "auto|never|PATH", "auto (default): go on from the newest checkpoint in output_dir; never: begin anew; PATH: from that checkpoint, or the latest in it", {}, false},
  };
  command.options.push_back({"--time-limit", Takes::one_value, "3h30m", "save and exit with 75 before this time has passed (SLURM_JOB_END_TIME likewise)", {}, false});
  command.options.push_back({"--trace", Takes::one_value, "FILE", "what the ranks said to each other, as a Chrome trace (chrome://tracing, Perfetto)", {}, false});
  command.examples = {"af_train agentic_cpt.yaml", "mpirun -np 16 af_train agentic_cpt.yaml parallel.tensor_model_parallel_size=2", "af_train agentic_cpt.yaml stages.0.lr.lr=1e-5 output_dir=runs/lr1e-5",
                      "af_train agentic_cpt.yaml --dry-run --ranks 64 --draw-schedule schedule.svg", "af_train agentic_cpt.yaml --stage stage2 --resume runs/a/checkpoints/latest"};
  command.run = [&](const Arguments& arguments) {
    try {
      return train(arguments, job, start);
    } catch (const UserError& error) {
      if (job.rank == 0) throw;
      // Most mistakes are found by every rank: the first says so and ends the job meanwhile. What this one alone has met it says itself.
      std::this_thread::sleep_for(std::chrono::seconds(3));
      throw UserError(fmt::format("rank {}: {}", job.rank, error.what()));
    }
  };
  return run_program({"af_train", "trains Qwen3 models in stages", {command}}, argc, argv);
}
