#include "data/synthesis/offline_wording.h"

#include <array>

namespace af {
namespace {

struct Known {
  const char *relation, *words, *clue;
};
// Relations of package indices and their classifications (debtags); others are said with their own names.
constexpr Known kKnown[] = {
    {"section", "section", "{is in|belongs to|is filed under|sits in} {the |}section $v"},
    {"depends", "dependency", "{depends on|needs|requires|cannot run without} $v"},
    {"pre-depends", "pre-dependency", "{pre-depends on|must be set up after} $v"},
    {"recommends", "recommended package", "{recommends|advises to install} $v"},
    {"suggests", "suggested package", "{suggests|hints at} $v"},
    {"enhances", "enhanced package", "{enhances|is an addition to|improves} $v"},
    {"provides", "provided name", "{provides|stands in for|offers} $v"},
    {"conflicts", "conflicting package", "{conflicts with|cannot stand beside} $v"},
    {"breaks", "broken package", "{breaks|does not get on with} $v"},
    {"replaces", "replaced package", "{replaces|takes over from} $v"},
    {"depends-any", "alternative dependency", "{depends on one of|needs one of|is content with any of} $v"},
    {"recommends-any", "alternative recommendation", "{recommends one of|advises to install one of} $v"},
    {"suggests-any", "alternative suggestion", "{suggests one of|hints at one of} $v"},
    {"version", "version", "{has the version|stands at version|is of version} $v"},
    {"maintainer", "maintainer", "{is maintained by|is kept by|is looked after by|has the maintainer} $v"},
    {"homepage", "homepage", "{has the homepage|lives at|is at home on} $v"},
    {"source", "source package", "{is built from|comes from the source|has the source} $v"},
    {"architecture", "architecture", "{is built for|runs on|has the architecture} $v"},
    {"installed-size", "installed size", "{takes|fills|has an installed size of} $v"},
    {"multi-arch", "multi-arch", "{is multi-arch|has multi-arch} $v"},
    {"priority", "priority", "{has|is of} priority $v"},
    {"tag.role", "role", "{has the role|serves as|plays the role} $v"},
    {"tag.interface", "interface", "{has the interface|is used through|offers the interface} $v"},
    {"tag.implemented-in", "implementation language", "{is implemented in|is written in|was coded in} $v"},
    {"tag.uitoolkit", "toolkit", "{uses the toolkit|is drawn with|is built on the toolkit} $v"},
    {"tag.use", "use", "{is used for|serves for|is meant for} $v"},
    {"tag.works-with", "kind of data", "{works with|handles|deals with} $v"},
    {"tag.works-with-format", "file format", "{works with the format|reads the format|handles files of} $v"},
    {"tag.protocol", "protocol", "{speaks the protocol|uses the protocol|talks} $v"},
    {"tag.devel", "development tag", "{is for developers:|has the development tag|concerns} $v"},
    {"tag.field", "field", "{belongs to the field|is made for the field|is about} $v"},
    {"tag.suite", "suite", "{belongs to the suite|is part of|comes with the suite} $v"},
    {"tag.made-of", "material", "{is made of|consists of|is mostly} $v"},
    {"tag.scope", "scope", "{has the scope|is of the kind} $v"},
    {"tag.culture", "culture", "{is for the culture|concerns the culture} $v"},
    {"tag.game", "game genre", "{is a game of the kind|is a game:|has the genre} $v"},
    {"tag.network", "network role", "{is a network|has the network role} $v"},
    {"tag.x11", "X11 role", "{is for X11 a|has the X11 role} $v"},
    {"tag.admin", "administration area", "{administers|is for the administration of} $v"},
    {"tag.hardware", "hardware", "{is for the hardware|drives} $v"},
    {"tag.security", "security area", "{is about the security topic|does} $v"},
    {"tag.sound", "sound area", "{is for sound, as a|has the sound tag} $v"},
};

std::string normal(std::string_view relation) {  // "Installed_Size" is "installed-size"
  std::string out;
  for (const char c : relation) out += c == '_' || c == ' ' ? '-' : c >= 'A' && c <= 'Z' ? char(c - 'A' + 'a') : c;
  return out;
}

std::string plain_words(std::string_view relation) {  // "tag.works-with" is "works with"
  if (relation.starts_with("tag.")) relation.remove_prefix(4);
  std::string out;
  for (const char c : relation) out += c == '_' || c == '-' || c == '.' ? ' ' : c == '{' || c == '}' || c == '|' || c == '$' ? ' ' : c;
  return out;
}

}  // namespace

std::string listed(const std::vector<std::string>& what) {
  std::string out;
  for (std::size_t i = 0; i < what.size(); ++i) {
    if (i > 0) out += i + 1 == what.size() ? " and " : ", ";
    out += what[i];
  }
  return out;
}

Wording::Wording(const FactIndex& index, Clues clues) : index_(index), said_(clues), noun_("record") {
  for (int r = 0; r < index_.relations(); ++r) {
    const std::string name = normal(index_.relation(r).name);
    const Known* known = nullptr;
    for (const Known& candidate : kKnown) {
      if (name == candidate.relation) known = &candidate;
    }
    words_.push_back(known ? known->words : plain_words(index_.relation(r).name));
    forms_.push_back(known ? known->clue : "{has|is listed with|is given with} " + words_.back() + " $v");
    if (name == "section" || name == "depends") noun_ = "package";
  }
}

std::string Wording::goal(int relation) const {
  const std::string plain = plain_words(index_.relation(relation).name);
  return plain == "maintainer" ? "maintained by" : plain;
}

std::string Wording::phrase(int relation, const std::string& value, Dice& dice) const {
  if (said_ == Clues::bare) return "has " + plain_words(index_.relation(relation).name) + " " + value;
  return expand(forms_[relation], dice, {{'v', value}});
}

std::string Wording::clue(int fact, Dice& dice) const { return phrase(index_.relation_of(fact), index_.value(fact), dice); }

std::string Wording::clues(const std::vector<int>& facts, Dice& dice) const {
  std::vector<std::string> phrases;
  for (const int fact : facts) phrases.push_back(clue(fact, dice));
  return listed(phrases);
}

std::string Wording::subject(const Subject& subject, Dice& dice) const {
  if (subject.clues.empty()) return index_.name(subject.entity);
  std::vector<std::string> phrases;
  for (std::size_t i = 0; i < subject.clues.size(); ++i) {
    const int fact = subject.clues[i];
    if (subject.inner.empty() || subject.inner[i].empty()) {
      phrases.push_back(clue(fact, dice));
    } else {
      phrases.push_back(phrase(index_.relation_of(fact), "{a|the} " + noun_, dice));
      phrases.back() = expand(phrases.back(), dice) + expand(" {that|which} $c", dice, {{'c', clues(subject.inner[i], dice)}});
    }
  }
  return expand("{the|the one|the only|that} $n {that|which} $c", dice, {{'n', noun_}, {'c', listed(phrases)}});
}

std::string Wording::link(int relation, Dice& dice) const {
  std::string text = phrase(relation, "", dice);
  while (!text.empty() && text.back() == ' ') text.pop_back();
  return text;
}

std::string Wording::query(const std::vector<int>& facts) const {
  std::string text;
  for (const int fact : facts) text += (text.empty() ? "" : " ") + index_.value(fact);
  return text;
}

std::string Wording::question(const Question& q, Dice& dice) const {
  const std::string ask = q.ask >= 0 ? words(q.ask) : "", s = q.subjects.empty() ? "" : subject(q.subjects[0], dice);
  const std::string link_words = q.link >= 0 ? link(q.link, dice) : "", t = q.subjects.size() > 1 ? subject(q.subjects[1], dice) : "";
  const std::string facts = clues(q.facts, dice);
  const Slots slots = {{'a', ask}, {'s', s}, {'t', t}, {'n', noun_}, {'l', link_words}, {'f', facts}};
  switch (q.operation) {
    case Computation::value:
      if (q.style == Style::navigation) {
        constexpr std::array forms = {
            "{Start at|Begin with|Open|Take} the page of $s{, then| and} {go to|open|visit|follow the link to} the $n that it $l. {What is its "
            "$a?|Give its $a.|State the $a there.|Report its $a.}",
            "{Open|Visit|Go to} the page of $s, {then|next|from there} the one of what it $l; {read|tell me|give} the $a there.",
            "{Which|What} $a {stands|is given|is shown} on the page that {one reaches|you reach|is reached} from $s {by what it|over what it} $l?"};
        return expand(dice.pick(forms), dice, slots);
      }
      if (q.link >= 0) {
        constexpr std::array forms = {
            "{Take|Consider|Find|Look for} $s. {What is|Which is} the $a of {the $n that it $l|what it $l}?",
            "{What is|Which is} the $a of {the $n that|what} $s $l?",
            "$S $l {another $n|one more $n|a second $n}{; what is its $a?|; which $a does it have?|. Find the $a of that one.|. Name its $a.}",
            "{There is|We have|I know of} $s, and it $l {something|another one|one other}: {tell me|I need|look up} the $a of {the latter|that}."};
        return expand(dice.pick(forms), dice, slots);
      } else {
        constexpr std::array forms = {
            "{What is|Which is|Do you know|Can you find} the $a of $s?", "{State|Give|Name|Find|Report|Tell me|Look up} the $a of $s.",
            "{Take|Find|Consider|I look for|I think of|Identify|There is} $s. {What is its $a?|Which $a does it have?|Give its $a.|State its "
            "$a.|Name its $a.}",
            "$S: {what is|which is|what do you find as|I need} its $a?", "{I want to know|I need|We need|Somebody asks for} the $a of $s."};
        return expand(dice.pick(forms), dice, slots);
      }
    case Computation::count: {
      const std::string verb = clues(q.facts, dice);
      constexpr std::array forms = {"{How many|What number of} $ns {are there|exist|do we have}, {each of which|every one of which} $v?",
                                    "{Count|Count up|Give the number of} {the $ns|all $ns}, {of which each|each of which} $v.",
                                    "{A|One} $n $v. {How many|How many of this kind} are there{| in all}?"};
      return expand(dice.pick(forms), dice, {{'n', noun_}, {'v', verb}});
    }
    case Computation::larger:
    case Computation::smaller: {
      const bool larger = q.operation == Computation::larger;
      const std::string more = expand(larger ? "{larger|greater|higher}" : "{smaller|lesser|lower}", dice);
      constexpr std::array forms = {"{Which|Which one} has the $m $a: $s or $t?",
                                    "{Compare|Take|Consider} $s and $t. {Which of them|Which one|Which} has the $m $a?",
                                    "{Name|Tell me|Find} {the one with|which has} the $m $a, $s or $t."};
      return expand(dice.pick(forms), dice, {{'a', ask}, {'s', s}, {'t', t}, {'m', more}});
    }
    case Computation::sum: {
      constexpr std::array forms = {"{Compute|Find|Give|State} the {sum|total} of the $a of $s and {of|that of} $t.",
                                    "{Add|Add up} the $a of $s {and|to} that of $t{.|. What is the result?}",
                                    "{How much|What} is the $a of $s and $t {together|taken together|in total}?"};
      return expand(dice.pick(forms), dice, slots);
    }
    case Computation::common: {
      constexpr std::array forms = {"{Which|What} $a {do|is it that} $s and $t {have in common|share|both have}?",
                                    "{Name|Find|Tell me|Give} the {one |only |}$a that {both |}$s and $t {share|have in common}.",
                                    "{Compare|Take|Look at} $s and $t: {which|what} $a {is common to both|do both have|do they share}?"};
      return expand(dice.pick(forms), dice, slots);
    }
    case Computation::referrer: {
      constexpr std::array forms = {
          "{What is|Which is|Do you know} the $a of the $n that $l $s{ and that| and} $f?",
          "{A|Some} $n $f{ and| and it} $l $s. {What is its $a?|Give its $a.|Find its $a.|State its $a.}",
          "{Find|Identify|Look for} $s. {Another|A second|One more} $n $l it and $f{: what|. What|; which} is {the $a of that one|its $a}?"};
      return expand(dice.pick(forms), dice, slots);
    }
  }
  return {};
}

}  // namespace af
