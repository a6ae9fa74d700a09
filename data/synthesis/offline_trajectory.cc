#include "data/synthesis/offline_trajectory.h"

#include <array>
#include <unordered_set>

namespace af {

TrajectoryMaker::TrajectoryMaker(const QuestionMaker& maker, const Wording& wording, const TrajectoryOptions& options)
    : maker_(maker), index_(maker.index()), wording_(wording), options_(options) {}

std::string TrajectoryMaker::search(const std::vector<int>& clues, Dice& dice) const {
  std::vector<int> order = clues;
  dice.shuffle(order);
  const std::string query = wording_.query(order);
  const std::string thought = expand("{Search the clues.|Which $n has these?|First find the $n.|I search for all of it.|Look for what fits.}", dice,
                                     {{'n', wording_.noun()}});
  Json queries, arguments;
  queries.push_back(query);
  arguments.set("query", std::move(queries));
  return "<think>" + thought + "</think>\n" + tool_call_text({"search", std::move(arguments), {}});
}

std::string TrajectoryMaker::visit(const std::vector<int>& entities, const std::string& goal, Dice& dice, const WorldAccess& world) const {
  std::vector<std::string> names;
  Json urls, arguments;
  for (const int entity : entities) names.push_back(index_.name(entity)), urls.push_back(world.page_url(entity));
  arguments.set("url", std::move(urls));
  arguments.set("goal", goal);
  const std::string thought = options_.brief_thoughts ? expand("{Open|Read|See} {it|this}.", dice)
                                                      : expand("{Open|Read|Look at|See|Visit} $e.", dice, {{'e', listed(names)}});
  return "<think>" + thought + "</think>\n" + tool_call_text({"visit", std::move(arguments), {}});
}

std::string TrajectoryMaker::answer(const std::string& what, const std::string& value, Dice& dice) const {
  const std::string thought = options_.brief_thoughts ? expand("{I have it|This is it|Done}.", dice)
                                                      : expand("{The $a is $v.|$A: $v.|It is $v.|I find $v.}", dice, {{'a', what}, {'v', value}});
  return "<think>" + thought + "</think>\n<answer>" + value + "</answer>";
}

OptionSet TrajectoryMaker::options_of(const Step& step, Dice& dice) const {
  std::vector<int> shown = step.shown;
  for (const int must : {step.right, step.taken}) {
    if (std::find(shown.begin(), shown.end(), must) == shown.end()) shown.push_back(must);
  }
  std::vector<int> others;
  for (int i = 0; i < int(step.candidates.size()); ++i) {
    if (std::find(shown.begin(), shown.end(), i) == shown.end()) others.push_back(i);
  }
  dice.shuffle(others);
  const std::size_t count = std::size_t(dice.between(options_.least_options, options_.most_options));
  for (std::size_t i = 0; shown.size() < count && i < others.size(); ++i) shown.push_back(others[i]);
  std::vector<std::string> alternatives;
  for (const int i : shown) {
    if (i != step.taken) alternatives.push_back(step.candidates[std::size_t(i)]);
  }
  const std::uint64_t seed = dice.bits(), stream = dice.bits();
  return merge_options(step.candidates[std::size_t(step.taken)], std::move(alternatives), seed, stream);
}

std::optional<MadeTrajectory> TrajectoryMaker::make(Style style, Dice& dice, const WorldAccess& world) const {
  auto draft = style == Style::numerical ? pair(dice, world) : style == Style::synthesis ? star(dice, world) : chain(style, dice, world);
  if (!draft) return std::nullopt;
  MadeTrajectory made;
  made.question = std::move(draft->question);
  made.trajectory.question = wording_.question(made.question, dice);
  made.trajectory.answer = made.question.answer;
  made.trajectory.outcome = draft->right;
  for (const Step& step : draft->steps) {
    made.options.push_back(options_of(step, dice));
    if (made.options.back().options.size() < 2) return std::nullopt;
    made.trajectory.steps.push_back({step.candidates[std::size_t(step.taken)], std::nullopt});
  }
  for (std::size_t k = draft->steps.size(); k-- > 0;) {  // the search comes last: it costs most, and a page may lack what is needed
    const auto call = tool_call_in(made.trajectory.steps[k].content);
    if (!call) continue;
    std::string response = world.call(*call);
    for (const std::string& needed : draft->steps[k].needed) {
      if (response.find(needed) == std::string::npos) return std::nullopt;
    }
    made.trajectory.steps[k].response = std::move(response);
  }
  const HasWording wording = options_.wording ? *options_.wording : dice.pick(std::array{HasWording::decision, HasWording::solutions});
  made.sample = render_has(made.trajectory, made.options, wording);
  std::size_t bytes = 0;
  for (const SampleSegment& segment : made.sample.segments) bytes += segment.text.size();
  if (std::int64_t(bytes) > options_.most_bytes) return std::nullopt;
  made.sample.teacher = "offline";
  made.sample.entities.push_back(index_.name(made.question.target));
  for (const Subject& subject : made.question.subjects) {
    if (subject.entity != made.question.target) made.sample.entities.push_back(index_.name(subject.entity));
  }
  return made;
}

// search (unless the start is named), visit, visit what it links to (multi_hop, navigation), answer.
std::optional<TrajectoryMaker::Draft> TrajectoryMaker::chain(Style style, Dice& dice, const WorldAccess& world) const {
  const bool named = style == Style::navigation, hop = style != Style::factual;
  const int like = maker_.random_entity(dice), first_link = hop ? maker_.random_link(like, dice) : -1;
  if (hop && first_link < 0) return std::nullopt;
  const auto end_of = [&](int entity, int link) {  // what it leads to; -1: nothing, or more than one
    const int fact = index_.only(entity, link), end = fact < 0 ? -1 : index_.linked(fact);
    return end >= 0 && maker_.in_split(end) ? end : -1;
  };
  const std::vector<Subject> starts = maker_.siblings(
      dice.between(options_.least_options, options_.most_options), like, [&](int entity) { return !hop || end_of(entity, first_link) >= 0; }, dice);
  if (starts.empty()) return std::nullopt;

  // Where a chain may end: the starts themselves, or what they name in relations in which each names just one entity.
  struct End {
    int start, link, entity;
  };
  std::vector<End> ends;
  if (hop) {
    std::vector<int> links = maker_.links();
    dice.shuffle(links);
    std::swap(*std::find(links.begin(), links.end(), first_link), links.front());
    std::unordered_set<int> known;
    for (const Subject& start : starts) known.insert(start.entity);
    int used = 0;
    for (const int link : links) {
      std::vector<End> of_link;
      std::unordered_set<int> seen = known;
      for (int i = 0; i < int(starts.size()); ++i) {
        const int entity = end_of(starts[std::size_t(i)].entity, link);
        if (entity < 0 || !seen.insert(entity).second) break;
        of_link.push_back({i, link, entity});
      }
      if (of_link.size() < starts.size()) continue;
      ends.insert(ends.end(), of_link.begin(), of_link.end());
      known = std::move(seen);
      if (++used == 2) break;
    }
  } else {
    for (int i = 0; i < int(starts.size()); ++i) ends.push_back({i, -1, starts[std::size_t(i)].entity});
  }
  if (ends.empty()) return std::nullopt;

  // What may be asked: relations in which each end has just one value, no value standing twice among all of them.
  std::vector<int> asked, relations = maker_.asks(ends[0].entity);
  std::unordered_set<std::string> values;
  if (!hop) {
    std::erase_if(relations, [&](int r) {  // what a clue tells is not asked for
      return std::any_of(starts.begin(), starts.end(), [&](const Subject& start) {
        return std::any_of(start.clues.begin(), start.clues.end(), [&](int fact) { return index_.relation_of(fact) == r; });
      });
    });
  }
  dice.shuffle(relations);
  for (const int r : relations) {
    std::unordered_set<std::string> with = values;
    bool usable = true;
    for (const End& end : ends) {
      const int fact = index_.only(end.entity, r);
      usable = usable && fact >= 0 && index_.value(fact).size() <= 60 && with.insert(index_.value(fact)).second;
    }
    if (usable) asked.push_back(r), values = std::move(with);
    if (asked.size() == 3) break;
  }
  if (asked.empty()) return std::nullopt;

  // Now the right chain is drawn, and the one that is taken.
  const int n = int(starts.size()), cells = int(ends.size());
  const int right_end = int(dice.below(ends.size())), right_ask = int(dice.below(asked.size()));
  const int right_start = ends[std::size_t(right_end)].start;
  int start = right_start, end = right_end, end_ask = right_ask;
  const int decisions = 1 + !named + hop;
  const bool failed = dice.chance(options_.failed_share);
  const int wrong = failed ? int(dice.below(std::size_t(decisions + 1))) : -1;  // the step that goes wrong; the search is step 0
  const int visit_step = named ? 0 : 1, answer_step = decisions;
  int searched = right_start;
  if (wrong >= 0 && wrong <= visit_step) {
    start = int(dice.other_than(std::size_t(n), std::size_t(right_start)));
    if (!named && wrong == 0) searched = start;
    end = hop ? (right_end / n) * n + start : start;
  } else if (wrong == answer_step) {
    const std::size_t cell = dice.other_than(ends.size() * asked.size(), std::size_t(right_end) * asked.size() + std::size_t(right_ask));
    end = int(cell / asked.size()), end_ask = int(cell % asked.size());
  } else if (wrong >= 0) {
    end = int(dice.other_than(ends.size(), std::size_t(right_end)));
  }
  const int visited_end = wrong == answer_step ? right_end : end;

  Draft draft;
  draft.right = !failed;
  const End& right = ends[std::size_t(right_end)];
  const int ask = asked[std::size_t(right_ask)];
  Question& question = draft.question;
  question.style = style, question.operation = Computation::value;
  question.subjects = {{starts[std::size_t(right_start)].entity, named ? std::vector<int>{} : starts[std::size_t(right_start)].clues}};
  question.link = right.link, question.ask = ask, question.target = right.entity;
  question.answer = index_.value(index_.only(right.entity, ask));

  const auto url = [&](int entity) { return world.page_url(entity); };
  if (!named) {
    Step step{{}, right_start, searched};
    for (const Subject& s : starts) step.candidates.push_back(search(s.clues, dice));
    step.needed = {url(starts[std::size_t(searched)].entity)};
    draft.steps.push_back(std::move(step));
  }
  const std::string goal = wording_.goal(hop ? right.link : ask);
  {
    Step step{{}, wrong >= 0 && wrong < visit_step ? searched : right_start, start};
    for (const Subject& s : starts) step.candidates.push_back(visit({s.entity}, goal, dice, world));
    step.needed = {hop ? index_.name(ends[std::size_t(visited_end)].start == start ? ends[std::size_t(visited_end)].entity : right.entity)
                       : index_.value(index_.only(starts[std::size_t(start)].entity, ask))};
    draft.steps.push_back(std::move(step));
  }
  if (hop) {
    const int consistent = (right_end / n) * n + start;  // what the visited page leads to
    Step step{{}, consistent, visited_end};
    for (const End& e : ends) step.candidates.push_back(visit({e.entity}, wording_.goal(ask), dice, world));
    step.needed = {index_.value(index_.only(ends[std::size_t(visited_end)].entity, ask))};
    draft.steps.push_back(std::move(step));
  }
  Step step{{}, visited_end * int(asked.size()) + right_ask, end * int(asked.size()) + end_ask};
  for (int c = 0; c < cells; ++c) {
    for (const int r : asked) step.candidates.push_back(answer(wording_.words(r), index_.value(index_.only(ends[std::size_t(c)].entity, r)), dice));
  }
  draft.steps.push_back(std::move(step));
  return draft;
}

}  // namespace af
