#include "launch/data_inputs.h"

#include <glob.h>

#include <filesystem>

#include "core/error.h"

namespace af {
namespace {

namespace fs = std::filesystem;

bool is_json_lines(const std::string& name) {
  const fs::path plain = compression_of(name) == Compression::none ? fs::path(name) : fs::path(name).stem();
  const std::string ending = plain.extension().string();
  if (ending == ".jsonl" || ending == ".ndjson" || ending == ".json") return true;
  if (ending == ".txt" || ending == ".md") return false;
  user_error("{}: the name must end in .jsonl, .ndjson or .json (an object a line) or in .txt or .md (one document a file); .gz or .zst may follow",
             name);
}

}  // namespace

std::vector<std::string> files_matching(const std::string& input) {
  std::error_code ignored;
  if (fs::exists(input, ignored) || input.find_first_of("*?[") == std::string::npos) return {input};
  std::vector<std::string> names;
  glob_t found{};
  if (::glob(input.c_str(), 0, nullptr, &found) == 0) names.assign(found.gl_pathv, found.gl_pathv + found.gl_pathc);
  ::globfree(&found);
  if (names.empty()) user_error("{}: no file matches", input);
  return names;
}

std::vector<TextSource> text_sources(const std::vector<std::string>& inputs) {
  std::vector<TextSource> sources;
  std::string problems;
  const auto attempt = [&](auto&& f) {
    try {
      f();
    } catch (const UserError& error) {
      problems += (problems.empty() ? "" : "\n") + std::string(error.what());
    }
  };
  for (const std::string& input : inputs) {
    attempt([&] {
      for (const std::string& name : files_matching(input)) {
        attempt([&] {
          FileStamp stamp = stamp_of(name);
          InputFile readable(name);
          sources.push_back({name, is_json_lines(name), stamp});
        });
      }
    });
  }
  if (!problems.empty()) throw UserError(problems);
  return sources;
}

}  // namespace af
