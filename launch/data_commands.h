// The commands of af_data (launch/data_main.cc). Each returns the exit code and throws UserError.
#pragma once
#include "launch/arguments.h"

namespace af {

Command tokenize_command();         // text and chat messages -> token dataset
Command train_tokenizer_command();  // text -> vocabulary
Command import_command();           // Megatron's datasets -> token dataset
Command inspect_command();          // what a token dataset holds; the bigram baseline
Command verify_command();           // reads all of it and checks it
Command contamination_command();    // which documents repeat a benchmark's questions
Command replay_command();           // which documents made up an optimizer step of a run

}  // namespace af
