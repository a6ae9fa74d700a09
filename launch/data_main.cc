// af_data: makes, shows and checks token datasets.
#include "launch/data_commands.h"

int main(int argc, char** argv) {
  return af::run_program({"af_data",
                          "makes, shows and checks token datasets",
                          {af::tokenize_command(), af::import_command(), af::inspect_command(), af::verify_command(), af::train_tokenizer_command(),
                           af::contamination_command(), af::replay_command()}},
                         argc, argv);
}
