// Pictures of a simulated schedule: as text, one line per rank, and as an SVG file.
#pragma once
#include <string>

#include "parallel/schedule_simulator.h"

namespace af {

// Each action begins with its name (F forward, B backward or its input gradient, W weight gradient; the micro-batch; the chunk as a letter
// where there are several), then blanks; '.' is idle. `column`: seconds; 0: such that the shortest action shows its name.
std::string draw_text(const ScheduleShape& shape, const Simulation& simulation, double column = 0);

// A picture that needs no other file: colours by kind, darker for later chunks, a legend, idle share per rank.
std::string draw_svg(const ScheduleShape& shape, const Simulation& simulation, int width = 1200);

}  // namespace af
