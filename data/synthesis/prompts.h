// The prompts of the synthesis: text files with {placeholders} that users may change (examples/synthesis/prompts); those files are also
// what is compiled in. A placeholder is a name of small letters and _ in braces; other braces are text. A new line at the end of a
// file is not part of the prompt.
#pragma once
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace af {

class Prompts {
 public:
  static Prompts compiled_in();
  // Every file NAME.txt in the folder takes the place of the prompt NAME. UserError that names all that is wrong, with file and line: a file of
  // another name, a placeholder that is not known for that prompt, one that must be there and is not, a file that is empty or no UTF-8.
  static Prompts with_folder(const std::string& folder);

  using Values = std::vector<std::pair<std::string_view, std::string_view>>;
  // The prompt with all of its placeholders replaced; braces in the values are text. Values beyond these are a bug (InternalError).
  std::string fill(const std::string& name, const Values& values) const;

 private:
  std::map<std::string, std::string> texts_;
};

const std::map<std::string, std::string>& default_prompt_texts();  // the files, made by embed_prompts.cmake

}  // namespace af
