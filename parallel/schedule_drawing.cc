#include "parallel/schedule_drawing.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace af {
namespace {

std::string label(const ScheduleShape& shape, const Action& action) {
  const char kind = action.kind == Action::forward ? 'F' : action.kind == Action::backward_weight ? 'W' : 'B';
  std::string text = fmt::format("{}{}", kind, action.micro_batch);
  if (shape.virtual_size > 26)
    text += fmt::format(".{}", action.chunk);
  else if (shape.virtual_size > 1)
    text += char('a' + action.chunk);
  return text;
}

struct Rgb {
  int r, g, b;
};
const Rgb kForward = {0x9e, 0xc9, 0xf5}, kBackward = {0xa6, 0xdb, 0xa0}, kInput = {0xf7, 0xd0, 0x8a}, kWeight = {0xd9, 0xb8, 0xe8};

std::string colour(const ScheduleShape& shape, Action::Kind kind, int chunk) {
  const Rgb c = kind == Action::forward ? kForward : kind == Action::backward ? kBackward : kind == Action::backward_input ? kInput : kWeight;
  const double light = 1 - 0.3 * chunk / std::max(1, shape.virtual_size - 1);  // black text stays readable
  return fmt::format("#{:02x}{:02x}{:02x}", int(c.r * light), int(c.g * light), int(c.b * light));
}

}  // namespace

std::string draw_text(const ScheduleShape& shape, const Simulation& simulation, double column) {
  AF_CHECK(simulation.problem.empty(), "draw_text: {}", simulation.problem);
  if (column <= 0) {
    column = simulation.makespan;
    for (const auto& line : simulation.timeline) {
      for (const TimedAction& t : line) {
        if (t.end > t.begin) column = std::min(column, (t.end - t.begin) / (double(label(shape, t.action).size()) + 1));
      }
    }
  }
  const auto at = [&](double seconds) { return column > 0 ? std::size_t(std::lround(seconds / column)) : 0; };
  std::string text;
  for (std::size_t r = 0; r < simulation.timeline.size(); ++r) {
    std::string line(at(simulation.makespan), '.');
    for (const TimedAction& t : simulation.timeline[r]) {
      const std::size_t begin = at(t.begin), width = at(t.end) - begin;
      std::string name = label(shape, t.action);
      name.resize(width, ' ');
      line.replace(begin, width, name);
    }
    while (!line.empty() && line.back() == ' ') line.pop_back();
    text += fmt::format("rank {:<3} {}\n", r, line);
  }
  return text;
}

std::string draw_svg(const ScheduleShape& shape, const Simulation& simulation, int width) {
  AF_CHECK(simulation.problem.empty(), "draw_svg: {}", simulation.problem);
  const int left = 60, right = 90, row = 26, top = 40, ranks = int(simulation.timeline.size());
  const double scale = simulation.makespan > 0 ? (width - left - right) / simulation.makespan : 0;
  const bool split = shape.kind == ScheduleKind::zero_bubble;
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} {1}\" font-family=\"sans-serif\" font-size=\"11\">\n"
      "<rect width=\"{0}\" height=\"{1}\" fill=\"#ffffff\"/>\n<text x=\"{2}\" y=\"16\" font-size=\"13\">{3}: {4} ranks, {5} chunks a rank, {6} "
      "micro-batches; "
      "makespan {7:.4g}</text>\n<text x=\"{8}\" y=\"{9}\">idle</text>\n",
      width, top + ranks * row + 40, left, name_of(shape.kind), ranks, shape.virtual_size, shape.micro_batches, simulation.makespan,
      width - right + 10, top - 6, shape.virtual_size == 1 ? "" : "s");
  for (int r = 0; r < ranks; ++r) {
    const int y = top + r * row;
    svg += fmt::format("<text x=\"8\" y=\"{}\">rank {}</text>\n<rect x=\"{}\" y=\"{}\" width=\"{:.2f}\" height=\"{}\" fill=\"#eeeeee\"/>\n", y + 16,
                       r, left, y, simulation.makespan * scale, row - 4);
    for (const TimedAction& t : simulation.timeline[r]) {
      const double x = left + t.begin * scale, w = (t.end - t.begin) * scale;
      const std::string name = label(shape, t.action);
      svg += fmt::format(
          "<rect x=\"{:.2f}\" y=\"{}\" width=\"{:.2f}\" height=\"{}\" fill=\"{}\" stroke=\"#ffffff\" stroke-width=\"0.5\"><title>{} {:.4g} to "
          "{:.4g}</title></rect>\n",
          x, y, w, row - 4, colour(shape, t.action.kind, t.action.chunk), name, t.begin, t.end);
      if (w > 6.5 * double(name.size()))
        svg += fmt::format("<text x=\"{:.2f}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n", x + w / 2, y + 15, name);
    }
    svg += fmt::format("<text x=\"{}\" y=\"{}\">{:.1f} %</text>\n", width - right + 10, y + 16, 100 * simulation.bubble_share[r]);
  }
  int x = left;
  const int y = top + ranks * row + 12;
  const auto entry = [&](const std::string& fill, const std::string& name) {
    svg += fmt::format("<rect x=\"{}\" y=\"{}\" width=\"14\" height=\"14\" fill=\"{}\"/><text x=\"{}\" y=\"{}\">{}</text>\n", x, y, fill, x + 18,
                       y + 11, name);
    x += 30 + 7 * int(name.size());
  };
  entry(colour(shape, Action::forward, 0), "forward");
  if (split) {
    entry(colour(shape, Action::backward_input, 0), "input gradient");
    entry(colour(shape, Action::backward_weight, 0), "weight gradient");
  } else {
    entry(colour(shape, Action::backward, 0), "backward");
  }
  entry("#eeeeee", "idle");
  if (shape.virtual_size > 1) svg += fmt::format("<text x=\"{}\" y=\"{}\">darker: later chunks (a, b, ...)</text>\n", x, y + 11);
  return svg + "</svg>\n";
}

}  // namespace af
