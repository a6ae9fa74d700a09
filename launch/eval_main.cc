// af_eval: what a model has learnt of choosing actions.
#include "launch/eval_commands.h"

int main(int argc, char** argv) {
  return af::run_program({"af_eval", "what a model has learnt of choosing actions", {af::likelihood_command(), af::generate_command()}}, argc, argv);
}
