// af_train: trains the stages of a configuration. The story from here down: launch/trainer.cc -> models/qwen3.cc -> core/ops/*.
#include <cstdio>

#include <fmt/format.h>

#include "launch/arguments.h"
#include "launch/config_checks.h"
#include "launch/config_yaml.h"
#include "launch/environment.h"
#include "launch/plan.h"
#include "launch/trainer.h"

namespace {

using namespace af;

int train(const Arguments& arguments) {
  const std::vector<std::string>& words = arguments.positionals();
  Config config = read_config(words[0], {words.begin() + 1, words.end()});
  if (arguments.has("--print-config")) {
    fmt::print("{}", to_yaml(config));
    return kExitDone;
  }
  for (const std::string& warning : warnings(config)) fmt::print(stderr, "warning: {}\n", warning);
  if (arguments.has("--dry-run")) {
    fmt::print("{}", describe_plan(config, make_plan(config)));
    return kExitDone;
  }
  for (auto* problems_of : {missing_files, data_problems})
    if (std::vector<std::string> found = problems_of(config); !found.empty()) throw UserError(fmt::format("{}", fmt::join(found, "\n")));
  RunOptions options;
  options.resume = arguments.value("--resume", "auto");
  options.only_stage = arguments.value("--stage");
  Device device = start_device(config.runtime);
  Trainer(config, device).run(options);
  return kExitDone;
}

}  // namespace

int main(int argc, char** argv) {
  Command command;
  command.summary = "continual pre-training of Qwen3 and Qwen3-MoE in stages";
  command.positionals = "CONFIG.yaml [key.path=value ...]";
  command.least_positionals = 1;
  command.most_positionals = 1000;
  command.options = {
      {"--dry-run", Takes::nothing, "", "say what would be trained: shapes, parameters, memory, FLOPs, steps; run nothing", {}, false},
      {"--print-config", Takes::nothing, "", "print the resolved configuration, with every default, and stop", {}, false},
      {"--stage", Takes::one_value, "NAME", "train this stage alone; the one before must be finished", {}, false},
      {"--resume", Takes::one_value, "auto|never|PATH", "auto (default): go on from the newest checkpoint in output_dir; never: begin anew", {}, false},
  };
  command.examples = {"af_train agentic_cpt.yaml", "af_train agentic_cpt.yaml stages.0.lr.lr=1e-5 output_dir=runs/lr1e-5",
                      "af_train agentic_cpt.yaml --dry-run", "af_train agentic_cpt.yaml --stage stage2 --resume runs/a/checkpoints/latest"};
  command.run = train;
  return run_program({"af_train", "trains Qwen3 models in stages", {command}}, argc, argv);
}
