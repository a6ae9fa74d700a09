// af_synth: makes training data of actions from what is known (FAS) and from what was done (HAS).
#include "launch/synth_commands.h"

int main(int argc, char** argv) {
  return af::run_program({"af_synth", "makes training data: the memory, and actions synthesized from it", {af::memory_command(), af::fas_command(), af::has_command()}}, argc, argv);
}
