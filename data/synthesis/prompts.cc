#include "data/synthesis/prompts.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <optional>

#include "core/error.h"
#include "data/file.h"
#include "data/utf8.h"

namespace af {
namespace {

struct PromptKind {
  const char* name;
  std::vector<std::string> required, optional;  // placeholders
};

const std::vector<PromptKind>& kinds() {
  static const std::vector<PromptKind> all{
      {"answer_judge", {"question", "answer", "candidate"}, {}},
      {"fas_plan", {"question"}, {"tools"}},
      {"fas_plan_judge", {"question", "step"}, {"answer", "knowledge"}},
      {"fas_question", {"knowledge", "style"}, {"entities"}},
      {"fas_reason_alone", {"question"}, {}},
      {"fas_reason_known", {"question", "knowledge"}, {"attempt"}},
      {"has_alternatives", {"question", "history", "count"}, {"tools"}},
      {"memory_statements", {"text"}, {"title"}},
      {"style_factual", {}, {}},
      {"style_multi_hop", {}, {}},
      {"style_navigation", {}, {}},
      {"style_numerical", {}, {}},
      {"style_synthesis", {}, {}},
  };
  return all;
}

const PromptKind* kind_of(const std::string& name) {
  const auto found = std::find_if(kinds().begin(), kinds().end(), [&](const PromptKind& kind) { return kind.name == name; });
  return found == kinds().end() ? nullptr : &*found;
}

struct Placeholder {
  std::size_t begin, end;  // with the braces
  std::string name;
};

std::optional<Placeholder> next_placeholder(std::string_view text, std::size_t from) {
  for (std::size_t open = text.find('{', from); open != std::string_view::npos; open = text.find('{', open + 1)) {
    std::size_t end = open + 1;
    while (end < text.size() && ((text[end] >= 'a' && text[end] <= 'z') || text[end] == '_')) ++end;
    if (end > open + 1 && end < text.size() && text[end] == '}')
      return Placeholder{open, end + 1, std::string(text.substr(open + 1, end - open - 1))};
  }
  return std::nullopt;
}

// What is wrong with the file, a line each.
void check(const PromptKind& kind, const std::string& path, const std::string& text, std::vector<std::string>& problems) {
  if (text.find_first_not_of(" \t\r\n") == std::string::npos) return problems.push_back(fmt::format("{}: the prompt is empty", path));
  if (const std::size_t invalid = first_invalid_utf8(text); invalid < text.size()) {
    return problems.push_back(fmt::format("{}:{}: not UTF-8", path, 1 + std::count(text.begin(), text.begin() + std::ptrdiff_t(invalid), '\n')));
  }
  std::vector<std::string> known = kind.required, missing = kind.required;
  known.insert(known.end(), kind.optional.begin(), kind.optional.end());
  for (auto found = next_placeholder(text, 0); found; found = next_placeholder(text, found->end)) {
    std::erase(missing, found->name);
    if (std::find(known.begin(), known.end(), found->name) != known.end()) continue;
    const std::int64_t line = 1 + std::count(text.begin(), text.begin() + std::ptrdiff_t(found->begin), '\n');
    const std::string near = nearest(found->name, known);
    problems.push_back(fmt::format("{}:{}: there is no placeholder {{{}}} for this prompt; {}", path, line, found->name,
                                   !near.empty()   ? fmt::format("did you mean {{{}}}?", near)
                                   : known.empty() ? "it takes none"
                                                   : fmt::format("there are: {{{}}}", fmt::join(known, "}, {"))));
  }
  for (const std::string& name : missing) problems.push_back(fmt::format("{}: {{{}}} is missing, without which the prompt cannot work", path, name));
}

std::string without_last_newline(std::string text) {
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

}  // namespace

Prompts Prompts::compiled_in() {
  Prompts prompts;
  for (const PromptKind& kind : kinds()) {
    const auto text = default_prompt_texts().find(kind.name);
    AF_CHECK(text != default_prompt_texts().end(), "the prompt {} is not compiled in", kind.name);
    std::vector<std::string> problems;
    check(kind, kind.name, text->second, problems);
    AF_CHECK(problems.empty(), "{}", fmt::join(problems, "\n"));
    prompts.texts_[kind.name] = without_last_newline(text->second);
  }
  AF_CHECK(default_prompt_texts().size() == kinds().size(), "{} prompts are compiled in, of {}", default_prompt_texts().size(), kinds().size());
  return prompts;
}

Prompts Prompts::with_folder(const std::string& folder) {
  Prompts prompts = compiled_in();
  std::error_code error;
  std::vector<std::string> files, problems;
  for (std::filesystem::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    if (entry->path().extension() == ".txt") files.push_back(entry->path().string());
  }
  if (error) user_error("{}: cannot be read: {}", folder, error.message());
  if (files.empty()) user_error("{}: there are no prompts (NAME.txt) in it", folder);
  std::sort(files.begin(), files.end());
  for (const std::string& path : files) {
    const std::string name = std::filesystem::path(path).stem().string();
    if (const PromptKind* kind = kind_of(name)) {
      const std::string text = read_file(path);
      check(*kind, path, text, problems);
      prompts.texts_[name] = without_last_newline(text);
    } else {
      std::vector<std::string> names;
      for (const PromptKind& other : kinds()) names.push_back(other.name);
      problems.push_back(fmt::format("{}: there is no prompt '{}'; there are: {}", path, name, fmt::join(names, ", ")));
    }
  }
  if (!problems.empty()) user_error("{}", fmt::join(problems, "\n"));
  return prompts;
}

std::string Prompts::fill(const std::string& name, const Values& values) const {
  const PromptKind* kind = kind_of(name);
  AF_CHECK(kind, "there is no prompt {}", name);
  for (const auto& [key, value] : values) {
    const auto is = [&](const std::string& known) { return known == key; };
    AF_CHECK(std::any_of(kind->required.begin(), kind->required.end(), is) || std::any_of(kind->optional.begin(), kind->optional.end(), is),
             "the prompt {} has no placeholder {}", name, key);
  }
  const std::string& text = texts_.at(name);
  std::string filled;
  std::size_t at = 0;
  for (auto found = next_placeholder(text, 0); found; found = next_placeholder(text, at)) {
    const auto value = std::find_if(values.begin(), values.end(), [&](const auto& v) { return v.first == found->name; });
    AF_CHECK(value != values.end(), "the prompt {} wants {}", name, found->name);
    filled.append(text, at, found->begin - at).append(value->second);
    at = found->end;
  }
  return filled.append(text, at, std::string::npos);
}

}  // namespace af
