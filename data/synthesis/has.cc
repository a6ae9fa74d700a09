#include "data/synthesis/has.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_set>

#include "core/error.h"
#include "core/random.h"
#include "data/synthesis/answer_match.h"
#include "data/synthesis/reply.h"

namespace af {
namespace {

bool is_answer(std::string_view step) {
  const std::size_t thought = step.rfind("</think>");
  return inside_tag(thought == std::string_view::npos ? step : step.substr(thought), "answer").has_value();
}

// What a step does, whatever it thinks: of two steps that do the same neither is the better choice.
std::string act_of(const std::string& step) {
  if (const std::optional<ToolCall> call = tool_call_in(step)) return tool_call_text(*call);
  return is_answer(step) ? "answer " + normalised_answer(*last_in_tag(step, "answer")) : step;
}

// The blocks <alternative>..</alternative>, or the whole reply where there is none.
std::vector<std::string_view> blocks_of(std::string_view reply) {
  constexpr std::string_view kOpen = "<alternative>", kClose = "</alternative>";
  std::vector<std::string_view> blocks;
  for (std::size_t at = reply.find(kOpen); at != std::string_view::npos; at = reply.find(kOpen, at)) {
    const std::size_t begin = at + kOpen.size(), close = reply.find(kClose, begin), next = reply.find(kOpen, begin);
    const std::size_t end = std::min({close, next, reply.size()});  // a block that is not closed ends where the next begins
    blocks.push_back(reply.substr(begin, end - begin));
    at = end;
  }
  if (blocks.empty()) blocks.push_back(reply);
  return blocks;
}

std::string history_of(const Trajectory& trajectory, std::size_t k) {
  std::string history;
  for (std::size_t i = 0; i < k; ++i) {
    history += trajectory.steps[i].content + "\n";
    if (trajectory.steps[i].response) history += *trajectory.steps[i].response + "\n";
  }
  return history.empty() ? "(nothing yet)" : history;
}

std::uint64_t stream_of(const char* what, const Trajectory& trajectory, std::size_t k) {
  return hash_name(fmt::format("{} {} {}", what, k, trajectory.id));
}

}  // namespace

AlternativeSource::Found TeacherAlternatives::find(const Trajectory& trajectory, std::size_t k, const Wish& wish) {
  ChatRequest request;
  const std::string number = fmt::format("{}", wish.count);
  request.messages = {
      {"user",
       prompts_.fill("has_alternatives",
                     {{"question", trajectory.question}, {"history", history_of(trajectory, k)}, {"count", number}, {"tools", tools_.text()}})}};
  request.temperature = options_.temperature, request.top_p = options_.top_p, request.max_tokens = options_.max_tokens;
  request.seed = random_bits(options_.seed, stream_of("has.alternatives", trajectory, k), std::uint64_t(wish.round));
  request.purpose = "has.alternatives";
  const ChatReply reply = teacher_.chat(request);
  Found found;
  for (std::string_view block : blocks_of(reply.text)) {
    ReadStep step = step_in(block, tools_);
    if (step.problem.empty()) {
      found.steps.push_back(std::move(step.text));
    } else {
      ++(step.invalid_tool ? found.invalid_tools : found.unreadable);
    }
  }
  if (found.steps.size() > std::size_t(wish.count)) found.steps.resize(std::size_t(wish.count));
  return found;
}

std::size_t OtherTrajectories::place_of(const Trajectory& trajectory, std::size_t k) {
  return is_answer(trajectory.steps[k].content) ? 2 : k == 0 ? 0 : 1;
}

void OtherTrajectories::add(const Trajectory& trajectory) {
  const std::string question = normalised_answer(trajectory.question), answer = normalised_answer(trajectory.answer);
  for (std::size_t k = 0; k < trajectory.steps.size(); ++k) {
    Place& place = places_[place_of(trajectory, k)];
    const std::uint64_t number = place.seen++;  // each of those seen is kept with the same probability
    Entry entry{trajectory.steps[k].content, question, answer};
    if (place.entries.size() < most_steps_) {
      place.entries.push_back(std::move(entry));
    } else if (const std::uint64_t at = random_below(seed_, hash_name("has.pool"), number, number + 1); at < most_steps_) {
      place.entries[at] = std::move(entry);
    }
  }
}

AlternativeSource::Found OtherTrajectories::find(const Trajectory& trajectory, std::size_t k, const Wish& wish) {
  Found found;
  const std::vector<Entry>& entries = places_[place_of(trajectory, k)].entries;
  const std::string question = normalised_answer(trajectory.question), answer = normalised_answer(trajectory.answer);
  // The first of a random order, made as far as it is needed.
  std::vector<std::uint32_t> order(entries.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = std::uint32_t(i);
  const std::uint64_t stream = stream_of("has.other", trajectory, k);
  for (std::size_t i = 0; i < order.size() && found.steps.size() < std::size_t(wish.given + wish.count); ++i) {
    std::swap(order[i], order[i + random_below(seed_, stream, i, order.size() - i)]);
    const Entry& entry = entries[order[i]];
    if (entry.question == question || (!answer.empty() && entry.answer == answer)) continue;
    if (std::find(found.steps.begin(), found.steps.end(), entry.step) == found.steps.end()) found.steps.push_back(entry.step);
  }
  found.steps.erase(found.steps.begin(), found.steps.begin() + std::min<std::ptrdiff_t>(wish.given, std::ptrdiff_t(found.steps.size())));
  return found;
}

namespace {

const std::vector<std::string> kReasons{kTeacherFailed, kTeacherRefused, "too few options", "too short", "too long"};

// The alternatives to each step of one trajectory, gathered until there are enough.
class Gathering {
 public:
  Gathering(const Trajectory& trajectory, AlternativeSource& source, int rounds, HasResult& result)
      : trajectory_(trajectory), source_(source), rounds_(rounds), result_(result), steps_(trajectory.steps.size()) {}

  // Tries to have `count` alternatives to step k.
  void want(std::size_t k, int count) {
    Step& step = steps_[k];
    while (int(step.alternatives.size()) < count && step.rounds_without < rounds_) {
      const std::size_t before = step.alternatives.size();
      AlternativeSource::Found found = source_.find(trajectory_, k, {count - int(before), step.round++, step.given});
      step.given += int(found.steps.size());
      result_.unreadable += found.unreadable, result_.invalid_tools += found.invalid_tools;
      for (std::string& alternative : found.steps) {
        if (step.acts.empty()) step.acts.insert(act_of(trajectory_.steps[k].content));
        if (step.acts.contains(act_of(alternative))) {
          ++result_.repeated;
        } else if (int(step.alternatives.size()) < count) {
          step.acts.insert(act_of(alternative));
          step.alternatives.push_back(std::move(alternative));
        }
      }
      step.rounds_without = step.alternatives.size() > before ? 0 : step.rounds_without + 1;
    }
  }
  std::vector<std::string>& alternatives(std::size_t k) { return steps_[k].alternatives; }

 private:
  struct Step {
    std::vector<std::string> alternatives;
    std::unordered_set<std::string> acts;          // of these and of the real step
    int round = 0, given = 0, rounds_without = 0;  // asked in all; alternatives that came; asked lately and nothing new came
  };
  const Trajectory& trajectory_;
  AlternativeSource& source_;
  const int rounds_;
  HasResult& result_;
  std::vector<Step> steps_;
};

}  // namespace

HasResult synthesize_has(const Trajectory& trajectory, AlternativeSource& source, const TokenCounter& length, const HasOptions& options) {
  HasResult result;
  const std::size_t steps = trajectory.steps.size();
  const bool grows = options.min_tokens > 0;
  std::vector<int> wanted(steps, options.min_options);  // options of each step, with the real one
  std::vector<OptionSet> sets(steps);
  Sample sample;
  const auto refuse = [&](const char* reason, std::string detail) {
    result.reject = Reject{trajectory.id, "has", name_of(options.wording), reason, std::move(detail), trajectory.question, ""};
    return result;
  };
  const auto render = [&](Gathering& gathering, const std::vector<int>& counts) {
    for (std::size_t k = 0; k < steps; ++k) {
      const std::vector<std::string>& all = gathering.alternatives(k);
      const std::size_t count = std::min(all.size(), std::size_t(counts[k] - 1));
      sets[k] = merge_options(trajectory.steps[k].content, {all.begin(), all.begin() + std::ptrdiff_t(count)}, options.seed,
                              stream_of("has.order", trajectory, k));
    }
    sample = render_has(trajectory, sets, options.wording);
    return length(text_of(sample));
  };
  if (!grows) {
    for (std::size_t k = 0; k < steps; ++k) {
      wanted[k] +=
          int(random_below(options.seed, stream_of("has.count", trajectory, k), 0, std::uint64_t(options.max_options - options.min_options + 1)));
    }
  }
  Gathering gathering(trajectory, source, options.rounds, result);
  try {
    for (std::size_t k = 0; k < steps; ++k) {
      gathering.want(k, wanted[k] - 1);
      if (gathering.alternatives(k).empty()) return refuse("too few options", fmt::format("step {}: no alternative", k + 1));
    }
    result.tokens = render(gathering, wanted);
    while (result.tokens < options.min_tokens) {
      std::int64_t each = 0;  // tokens that one more option at every step brings, by the mean of those that are there
      for (std::size_t k = 0; k < steps; ++k) {
        std::int64_t sum = 0;
        for (const std::string& option : sets[k].options) sum += length(option) + 4;
        each += sum / std::int64_t(sets[k].options.size());
      }
      const int more = int(std::clamp<std::int64_t>((options.min_tokens - result.tokens) / std::max<std::int64_t>(each, 1), 1, options.max_options));
      bool grown = false;
      for (std::size_t k = 0; k < steps; ++k) {
        const std::size_t before = gathering.alternatives(k).size();
        wanted[k] = std::min(wanted[k] + more, options.max_options);
        gathering.want(k, wanted[k] - 1);
        grown = grown || gathering.alternatives(k).size() > before;
      }
      result.tokens = render(gathering, wanted);
      if (!grown) break;
    }
  } catch (const TeacherError& error) {
    if (error.kind == TeacherError::Kind::stopped) throw;
    return refuse(error.kind == TeacherError::Kind::refused ? kTeacherRefused : kTeacherFailed, error.what());
  }
  for (std::size_t k = 0; k < steps; ++k) {
    ++result.steps;
    result.short_of_options += int(sets[k].options.size()) < wanted[k];
    wanted[k] = int(sets[k].options.size());
  }
  std::int64_t largest = 1;  // option, in tokens: so many at once are dropped as cannot be too many
  for (std::size_t k = 0; result.tokens > options.max_tokens && k < steps; ++k) {
    for (const std::string& option : sets[k].options) largest = std::max(largest, length(option) + 8);
  }
  while (result.tokens > options.max_tokens) {
    bool dropped = false;
    for (std::int64_t many = std::max<std::int64_t>((result.tokens - options.max_tokens) / largest, 1); many > 0; --many) {
      const auto most = std::max_element(wanted.begin(), wanted.end());
      if (*most <= 2) break;
      --*most, dropped = true;
    }
    if (!dropped) break;
    result.tokens = render(gathering, wanted);
  }
  if (result.tokens > options.max_tokens) return refuse("too long", fmt::format("{} tokens with two options a step", result.tokens));
  if (result.tokens < options.min_tokens) return refuse("too short", fmt::format("{} tokens with all options there are", result.tokens));
  sample.teacher = options.teacher;
  result.sample = std::move(sample);
  return result;
}

HasYields::HasYields() : trajectories("trajectories", kReasons) {}

void HasYields::add(const HasResult& result) {
  unreadable += result.unreadable, invalid_tools += result.invalid_tools, repeated += result.repeated;
  if (result.reject) return trajectories.reject(result.reject->reason);
  trajectories.keep();
  tokens += result.tokens, steps += result.steps, short_of_options += result.short_of_options;
  for (const Decision& decision : result.sample->decisions) options += decision.options;
  if (result.sample->outcome) ++(*result.sample->outcome ? correct : incorrect);
}

std::string HasYields::text(bool exact_tokens) const {
  const auto mean = [](std::int64_t sum, std::int64_t count) { return count ? double(sum) / double(count) : 0.0; };
  return trajectories.text() +
         fmt::format("  kept: {} correct, {} incorrect; {} steps with {:.2f} options each ({} with fewer than asked for); {:.0f} tokens a text{}\n",
                     correct, incorrect, steps, mean(options, steps), short_of_options, mean(tokens, trajectories.kept()),
                     exact_tokens ? "" : " (four bytes each; exact with --tokenizer)") +
         fmt::format("  alternatives that were not used: {} unreadable, {} invalid tool, {} repeated\n", unreadable, invalid_tools, repeated);
}

}  // namespace af
