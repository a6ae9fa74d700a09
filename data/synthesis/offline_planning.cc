#include "data/synthesis/offline_planning.h"


#include "data/synthesis/tool_schema.h"

namespace af {
namespace {

// The clues of an entity that a clue describes, which has to be found before all else; nullptr: there is none.
const std::vector<int>* described_clue(const Question& question) {
  for (const Subject& subject : question.subjects) {
    for (const std::vector<int>& inner : subject.inner) {
      if (!inner.empty()) return &inner;
    }
  }
  return nullptr;
}

Sample sample_of(const char* kind, const Question& question, const FactIndex& index) {
  Sample sample;
  sample.kind = kind, sample.style = kStyleNames[int(question.style)], sample.answer = question.answer, sample.teacher = "offline";
  sample.entities.push_back(index.name(question.target));
  for (const Subject& subject : question.subjects) {
    if (subject.entity != question.target) sample.entities.push_back(index.name(subject.entity));
  }
  return sample;
}

}  // namespace

OfflinePlanner::OfflinePlanner(const QuestionMaker& maker, const Wording& wording, PageUrl page_url)
    : maker_(maker), index_(maker.index()), wording_(wording), page_url_(std::move(page_url)) {}

std::string OfflinePlanner::analysis(const Question& q, Dice& dice) const {
  const std::string& noun = wording_.noun();
  const std::string ask = q.ask >= 0 ? wording_.words(q.ask) : "", link = q.link >= 0 ? wording_.link(q.link, dice) : "";
  const auto said = [&](int fact) {
    const std::string& relation = wording_.words(index_.relation_of(fact));
    return expand("{$v|$r $v|$v as $r|$v ($r)|$r: $v}", dice, {{'v', index_.value(fact)}, {'r', relation}});
  };
  const auto values = [&](const Subject& subject) {
    std::vector<std::string> all;
    for (std::size_t i = 0; i < subject.clues.size(); ++i) {
      if (subject.inner.empty() || subject.inner[i].empty()) {
        all.push_back(said(subject.clues[i]));
        continue;
      }
      std::vector<std::string> inner;
      for (const int fact : subject.inner[i]) inner.push_back(said(fact));
      all.push_back(expand("{as $r|for $r|$r:} {a $n|something} {with|that has} $i", dice,
                           {{'r', wording_.words(index_.relation_of(subject.clues[i]))}, {'n', noun}, {'i', listed(inner)}}));
    }
    dice.shuffle(all);
    return listed(all);
  };
  std::string hidden, named;  // of the subjects
  for (const Subject& subject : q.subjects) {
    if (subject.clues.empty()) {
      named += (named.empty() ? "" : " and ") + index_.name(subject.entity);
    } else {
      const std::string form =
          hidden.empty()
              ? "{The $n is not named|No name is given|The name is hidden|I do not know which $n this is|First: which $n}{, only clues|}: $c. "
              : "{The other one|The second $n} {is hidden too|has clues too|has to be found as well}: $c. ";
      hidden += expand(form, dice, {{'n', noun}, {'c', values(subject)}});
    }
  }
  if (!named.empty()) named = expand("{Named outright|Known by name|Given}: $x. ", dice, {{'x', named}});
  const std::string facts = q.facts.empty() ? "" : values({-1, q.facts, {}});
  const Slots slots = {{'n', noun}, {'a', ask}, {'l', link}, {'f', facts}};
  std::string text = hidden + named;
  if (described_clue(q))
    text += expand("{First of all, the $n inside the clues|That $n in the clues comes first|Begin with the $n that a clue describes}. ", dice, slots);
  switch (q.operation) {
    case Computation::value:
      if (q.style == Style::navigation) {
        text += expand("{Plan|Way|Steps}: open that page, {see|note|find} what it $l, {go there|open that next|visit it}, {read|take} the $a.", dice,
                       slots);
      } else if (q.link >= 0) {
        text +=
            expand("{Two hops|This takes two steps|A chain}: {once it is known|from its page}, see what it $l, then {read|look up} the $a of that. ",
                   dice, slots);
        text += expand("{Begin with the search|Search first|First a search for the clues}.", dice);
      } else {
        text += expand("{Missing|To find|Needed|Wanted}: {which one has all of these|the one that fits}, then {its|the} $a. ", dice, slots);
        text += expand(
            "{Plan: search|I search|First search|Let me search} {the clues together|all of it at once|for them}, {open|read|check} the {page|hit} "
            "that fits"
            "{, take its $a|, note the $a|}.",
            dice, slots);
      }
      break;
    case Computation::count:
      text += expand("{A count|Something to count|The answer is a number}: {every|each} $n with $f. ", dice, slots);
      text += expand(
          "{Search|List them by a search} {with both|with all conditions|for these}, {drop|leave out} what {lacks|misses} {one|any}, {count the "
          "rest|then count}.",
          dice);
      break;
    case Computation::larger:
    case Computation::smaller:
      text += expand(
          "{I need|Needed|To compare}: {the $a of each|both $as|two values of $a}. {Search both|Look both up}, then {compare|see which is $m}.", dice,
          {{'a', ask}, {'m', q.operation == Computation::larger ? "larger" : "smaller"}});
      break;
    case Computation::sum:
      text += expand("{I need|Needed|To add}: {the $a of each|both values of $a}. {Search both|Look both up}, then {add|sum up}.", dice, slots);
      break;
    case Computation::common:
      text += expand(
          "{I need|Needed|To compare}: {all $a values of each|what each has as $a}. {Look both up|Get both pages}, {keep what is in both|intersect}.",
          dice, slots);
      break;
    case Computation::referrer:
      text += expand("{Then|After that|Second}: {what|which $n} $l it{, with| and has} $f. {Last|At the end}, {its|the} $a. ", dice, slots);
      text += expand("{Start with the first one|Search for the first|Begin by finding the first}.", dice);
      break;
  }
  return text;
}

std::string OfflinePlanner::first_call(const Question& q, Dice& dice) const {
  Json arguments;
  if (q.style == Style::navigation) {
    Json urls;
    urls.push_back(page_url_(q.subjects[0].entity));
    arguments.set("url", std::move(urls));
    arguments.set("goal", wording_.goal(q.link));
    return tool_call_text({"visit", std::move(arguments), {}});
  }
  Json queries;
  const auto query = [&](std::vector<int> facts) {
    dice.shuffle(facts);
    return wording_.query(facts);
  };
  if (q.operation == Computation::count) queries.push_back(query(q.facts));
  const std::vector<int>* first = described_clue(q);
  if (first) queries.push_back(query(*first));
  for (const Subject& subject : q.subjects) {
    if (first) break;
    const std::string text = subject.clues.empty() ? index_.name(subject.entity) : query(subject.clues);
    queries.push_back(subject.clues.empty() && q.ask >= 0 ? expand("{$t|$t $a}", dice, {{'t', text}, {'a', wording_.words(q.ask)}}) : text);
  }
  arguments.set("query", std::move(queries));
  return tool_call_text({"search", std::move(arguments), {}});
}

Sample OfflinePlanner::planning(const Question& question, Dice& dice) const {
  Sample sample = sample_of("fas_planning", question, index_);
  sample.segments.push_back({Role::user, wording_.question(question, dice) + "\n"});
  sample.segments.push_back({Role::thought, "<think>" + analysis(question, dice) + "</think>\n"});
  sample.segments.push_back({Role::action, first_call(question, dice) + "\n"});
  return sample;
}

std::optional<Sample> OfflinePlanner::reasoning(const Question& q, Dice& dice) const {
  if (q.operation != Computation::value || q.subjects[0].clues.empty()) return std::nullopt;
  const Subject& subject = q.subjects[0];
  // The guess: an entity with the first clue, mostly another one, which lacks one of the others; its value stands in for the answer.
  const int fact = subject.clues[0];
  int other = -1, lacking = -1;
  std::string guess;
  for (int tries = 0; tries < 8 && guess.empty(); ++tries) {
    other = dice.pick(index_.entities_of(fact));
    const int link = q.link < 0 ? -1 : index_.only(other, q.link);
    const int next = q.link < 0 ? other : link < 0 ? -1 : index_.linked(link);
    const int value = next < 0 ? -1 : index_.only(next, q.ask);
    if (value < 0 || (other != subject.entity && index_.value(value) == q.answer)) continue;
    guess = index_.value(value);
  }
  if (guess.empty()) return std::nullopt;
  for (const int clue : subject.clues) {
    if (!index_.has(other, clue)) lacking = clue;
  }

  const std::string &noun = wording_.noun(), &name = index_.name(subject.entity), &ask = wording_.words(q.ask);
  const std::string& target = index_.name(q.target);
  const std::string link = q.link >= 0 ? wording_.link(q.link, dice) : "";
  std::string text = expand("{Sub-questions|To answer|Parts}: {which $n is meant|which $n has the clues}", dice, {{'n', noun}});
  if (q.link >= 0) text += expand("; what {it $l|does it lead to: $l}", dice, {{'l', link}});
  text += expand("; {its $a|what its $a is}. ", dice, {{'a', ask}});
  text += expand("{First guess|A guess|Without looking, I would say|From memory}: $o, so $v. ", dice, {{'o', index_.name(other)}, {'v', guess}});
  text += expand("{Known|What is known|Checking|The facts}: ", dice);
  const auto known = [&](const std::string& who, std::string what) { text += expand("{$w $x|$w: it $x}. ", dice, {{'w', who}, {'x', what}}); };
  if (lacking >= 0) {
    std::vector<int> has;
    for (const int clue : subject.clues) {
      if (index_.has(other, clue)) has.push_back(clue);
    }
    known(index_.name(other), wording_.clues(has, dice));
    text += expand("{But nothing says that it|It is not known that it|There the trail ends: no sign that it} {has $r $v|fits $r $v}. ", dice,
                   {{'r', wording_.words(index_.relation_of(lacking))}, {'v', index_.value(lacking)}});
  }
  known(name, wording_.clues(subject.clues, dice));
  if (q.link >= 0) text += expand("{It|This one} $l $t. ", dice, {{'l', link}, {'t', target}});
  text += expand("{The $a of $t is $v|$t has the $a $v|For $t the $a is $v}. ", dice, {{'a', ask}, {'t', target}, {'v', q.answer}});
  text += other == subject.entity
              ? expand("{The guess holds|The guess was right|So it stays at that}: $v.", dice, {{'v', q.answer}})
              : expand("{So not $g but $v|The guess $g falls; it is $v|Instead of $g it is $v}.", dice, {{'g', guess}, {'v', q.answer}});
  Sample sample = sample_of("fas_reasoning", q, index_);
  sample.segments.push_back({Role::user, wording_.question(q, dice) + "\n"});
  sample.segments.push_back({Role::thought, "<think>" + text + "</think>\n"});
  sample.segments.push_back({Role::answer, "<answer>" + q.answer + "</answer>\n"});
  return sample;
}

}  // namespace af
