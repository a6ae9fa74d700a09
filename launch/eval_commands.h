// The commands of af_eval (launch/eval_main.cc). Each returns the exit code and throws UserError.
#pragma once
#include "launch/arguments.h"

namespace af {

Command likelihood_command();  // which of several texts the model holds for likelier

Command generate_command();    // what the model does about a question, with tools answered from a memory

}  // namespace af
