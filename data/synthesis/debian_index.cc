#include "data/synthesis/debian_index.h"

#include <algorithm>
#include <array>
#include <utility>

#include "core/error.h"
#include "data/text.h"
#include "data/utf8.h"

namespace af {
namespace {

constexpr std::size_t kMostFields = 200, kMostPackageBytes = 1 << 20;  // above: no index

struct Phrase {
  std::string_view relation, begin, middle, end;  // "The package " NAME " is in section " VALUE "."
};
constexpr std::array kPhrases{
    Phrase{"section", "The package ", " is in section ", "."},
    Phrase{"maintainer", "The package ", " is maintained by ", "."},
    Phrase{"homepage", "The homepage of ", " is ", " ."},
    Phrase{"version", "The version of ", " is ", "."},
    Phrase{"source", "The package ", " is built from the source package ", "."},
    Phrase{"installed_size", "The installed size of ", " is ", " kB."},
    Phrase{"depends", "", " depends on ", "."},
    Phrase{"depends_any", "", " depends on one of: ", "."},
    Phrase{"pre_depends", "", " needs before it is unpacked: ", "."},
    Phrase{"pre_depends_any", "", " needs before it is unpacked one of: ", "."},
    Phrase{"recommends", "", " recommends ", "."},
    Phrase{"recommends_any", "", " recommends one of: ", "."},
    Phrase{"suggests", "", " suggests ", "."},
    Phrase{"suggests_any", "", " suggests one of: ", "."},
    Phrase{"enhances", "", " enhances ", "."},
    Phrase{"provides", "", " provides ", "."},
    Phrase{"tag.role", "The role of ", " is ", "."},
    Phrase{"tag.implemented-in", "", " is implemented in ", "."},
    Phrase{"tag.interface", "The interface of ", " is ", "."},
    Phrase{"tag.use", "", " is used for ", "."},
    Phrase{"tag.works-with", "", " works with ", "."},
    Phrase{"tag.works-with-format", "", " works with the format ", "."},
    Phrase{"tag.uitoolkit", "", " uses the toolkit ", "."},
    Phrase{"tag.scope", "The scope of ", " is ", "."},
    Phrase{"tag.suite", "", " belongs to the suite ", "."},
    Phrase{"tag.made-of", "", " is made of ", "."},
    Phrase{"tag.protocol", "", " speaks the protocol ", "."},
    Phrase{"tag.field", "", " belongs to the field ", "."},
    Phrase{"tag.culture", "", " is for the culture ", "."},
    Phrase{"tag.hardware", "", " is for the hardware ", "."},
    Phrase{"tag.game", "", " is a game of the kind ", "."},
};
// Fields that list packages: name, relation, whether "a | b" is a relation of its own.
struct ListField {
  std::string_view field, relation;
};
constexpr std::array kLists{ListField{"Depends", "depends"},   ListField{"Pre-Depends", "pre_depends"}, ListField{"Recommends", "recommends"},
                            ListField{"Suggests", "suggests"}, ListField{"Enhances", "enhances"},       ListField{"Provides", "provides"}};

// Calls f for each part, trimmed.
template <class F>
void for_each_part(std::string_view text, char separator, F&& f) {
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(separator), text.size());
    if (const std::string_view part = trimmed(text.substr(0, end)); !part.empty()) f(part);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
}

bool is_package_name(std::string_view name) {
  return name.size() >= 2 && name.size() <= kMostNameBytes && std::all_of(name.begin(), name.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '+' || c == '-' || c == '.' || (c >= 'A' && c <= 'Z') || c == '_';
         });
}

// "libc6:any (>= 2.34) [amd64] <!nocheck>" -> "libc6"
std::string_view bare_name(std::string_view dependency) { return trimmed(dependency.substr(0, dependency.find_first_of(":([< \t"))); }

}  // namespace

std::string debian_statement(std::string_view package, std::string_view relation, std::string_view value) {
  const auto found = std::find_if(kPhrases.begin(), kPhrases.end(), [&](const Phrase& phrase) { return phrase.relation == relation; });
  std::string text;
  if (found != kPhrases.end()) {
    text.append(found->begin).append(package).append(found->middle).append(value).append(found->end);
  } else if (relation.starts_with("tag.")) {
    text.append(package).append(" has the tag ").append(relation.substr(4)).append("::").append(value).append(".");
  } else {
    text.append("The ").append(relation).append(" of ").append(package).append(" is ").append(value).append(".");
  }
  return text;
}

std::string debian_url(std::string_view package) { return "https://packages.debian.org/" + std::string(package); }

void DebianIndexReader::read(const TextBlock& block, ReadStatements& out) {
  for_each_line(block, out, [&](std::string_view line, std::int64_t number) { add_line(line, number, out); });
  if (block.last) end_package(out);
}

void DebianIndexReader::add_line(std::string_view line, std::int64_t number, ReadStatements& out) {
  if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
  if (line.empty()) return end_package(out);
  if (fields_.empty() && problem_.empty()) first_line_ = number;
  if (!problem_.empty()) return;
  const auto wrong = [&](const std::string& what) { problem_ = fmt::format("{}:{}: {}", name_, number, what); };
  if (const std::size_t invalid = first_invalid_utf8(line); invalid < line.size())
    return wrong(fmt::format("not UTF-8 from byte {} on", invalid + 1));
  if (line[0] == '#') return;
  if (line[0] == ' ' || line[0] == '\t') {
    if (fields_.empty()) return wrong("a line that goes on, without a field before it");
    std::string& value = fields_.back().value;
    if (value.size() > kMostPackageBytes) return wrong(fmt::format("a field of more than {} bytes", kMostPackageBytes));
    value.append("\n").append(line);
    return;
  }
  const std::size_t colon = line.find(':');
  if (colon == std::string_view::npos || colon == 0) return wrong("expected 'Field: value', as in a Debian package index");
  if (fields_.size() == kMostFields) return wrong(fmt::format("more than {} fields; packages are separated by empty lines", kMostFields));
  fields_.push_back({std::string(line.substr(0, colon)), std::string(trimmed(line.substr(colon + 1)))});
}

void DebianIndexReader::end_package(ReadStatements& out) {
  if (problem_.empty() && !fields_.empty()) {
    const std::size_t before = out.statements.size();
    try {
      add_package(out.statements);
    } catch (const UserError& error) {
      out.statements.resize(before);
      problem_ = fmt::format("{}:{}: {}", name_, first_line_, error.what());
    }
  }
  if (!problem_.empty()) out.add_problem(first_line_, problem_);
  fields_.clear();
  problem_.clear();
}

void DebianIndexReader::add_package(std::vector<Statement>& out) const {
  const auto field = [&](std::string_view name) {
    const auto found = std::find_if(fields_.begin(), fields_.end(), [&](const Field& f) { return f.name == name; });
    return found == fields_.end() ? std::string_view() : std::string_view(found->value);
  };
  const std::string package(field("Package")), url = debian_url(package);
  if (package.empty()) user_error("a package without the field 'Package'");
  if (!is_package_name(package)) user_error("'{}' is no package's name", package.substr(0, 60));
  const auto fact = [&](std::string_view relation, std::string_view raw) {
    const std::string value = one_line(raw);
    if (value.empty() || value.size() > kMostTextBytes) return;
    out.push_back({package, debian_statement(package, relation, value), time_, url, "catalogue", std::string(relation), value, true});
  };
  const std::string_view description = field("Description");
  const std::size_t first_end = std::min(description.find('\n'), description.size());
  if (const std::string summary = one_line(description.substr(0, first_end)); !summary.empty())
    out.push_back({package, fmt::format("The package {} is described as: {}{}", package, summary, summary.ends_with('.') ? "" : "."), time_, url,
                   "description", "", "", true});
  fact("section", field("Section"));
  fact("maintainer", trimmed(field("Maintainer").substr(0, field("Maintainer").find('<'))));
  fact("homepage", field("Homepage"));
  fact("version", field("Version"));
  fact("source", bare_name(field("Source")));
  fact("installed_size", field("Installed-Size"));
  for (const ListField& list : kLists) {
    for_each_part(field(list.field), ',', [&](std::string_view entry) {
      if (entry.find('|') == std::string_view::npos) return fact(list.relation, bare_name(entry));
      std::string any;
      for_each_part(entry, '|', [&](std::string_view one) { any.append(any.empty() ? "" : " | ").append(bare_name(one)); });
      fact(std::string(list.relation) + "_any", any);
    });
  }
  for_each_part(field("Tag"), ',', [&](std::string_view tag) {
    const std::size_t colons = tag.find("::");
    if (colons == std::string_view::npos) return;
    const std::string relation = "tag." + std::string(tag.substr(0, colons));
    fact(relation, tag.substr(colons + 2));
  });
  std::string paragraph;  // of the long description; " ." stands for an empty line
  const auto end_paragraph = [&] {
    std::string text = one_line(paragraph);
    if (!text.empty() && text.size() <= kMostTextBytes) out.push_back({package, std::move(text), time_, url, "description", "", "", true});
    paragraph.clear();
  };
  for_each_part(description.substr(first_end), '\n', [&](std::string_view line) {
    if (line == ".") return end_paragraph();
    paragraph.append(line).append(" ");
  });
  end_paragraph();
}

}  // namespace af
