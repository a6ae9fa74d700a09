// The commands of af_synth (launch/synth_main.cc). Each returns the exit code and throws UserError.
#pragma once
#include "launch/arguments.h"

namespace af {

Command memory_command();  // documents, trajectories, triples and package indices -> memory
Command fas_command();     // memory -> questions, planning steps, reasoning
Command has_command();     // trajectories -> choices among options

}  // namespace af
