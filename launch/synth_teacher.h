// What 'af_synth fas' and 'af_synth has' have in common: the teacher behind an endpoint, prompts, tools, limits, and the files they write.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "data/synthesis/endpoint_teacher.h"
#include "data/synthesis/prompts.h"
#include "data/synthesis/tool_schema.h"
#include "data/tokenizer.h"
#include "launch/arguments.h"

namespace af {

std::vector<Option> endpoint_options();
// Appends those of `more` whose names are not there yet.
void append_options(std::vector<Option>& options, const std::vector<Option>& more);

// UserError that names what was given of the options that serve `mode` alone: their help begins with "MODE: ".
void refuse_options(const std::vector<Option>& options, const std::string& mode, const Arguments& arguments);

// Is the teacher an endpoint? By --teacher, else by whether there is an --endpoint; UserError where options of the endpoint are given without one.
bool asks_endpoint(const Arguments& arguments);
EndpointOptions endpoint_from(const Arguments& arguments);  // journal: --journal, else OUTPUT.journal.jsonl
double temperature_of(const Arguments& arguments);
int reply_tokens_of(const Arguments& arguments, int otherwise);

Prompts prompts_of(const Arguments& arguments);
ToolSet tools_of(const Arguments& arguments);
std::unique_ptr<Tokenizer> tokenizer_of(const Arguments& arguments);  // nullptr without --tokenizer

// A file of lines that appears under its name only when it is whole; until then it is NAME.part, which goes away where this object does.
class LineFile {
 public:
  explicit LineFile(std::string path, const std::vector<std::string>& inputs = {});  // UserError, also where it is one of the inputs
  ~LineFile();
  LineFile(const LineFile&) = delete;
  void write(const std::string& line);  // UserError where the disk is full
  void finish();                        // on the disk when it returns
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  int descriptor_;
  std::string buffer_;
  void flush();
};

// Counts items at which the teacher failed; a teacher that answers nothing ends the run (UserError).
class TeacherFailures {
 public:
  void note(bool failed, const std::string& why);  // of each item, in order
  // What to say at the end, and the exit code: some items are left for the next run of the same command.
  int report(const std::string& journal) const;

 private:
  std::int64_t failed_ = 0, in_a_row_ = 0;
};

}  // namespace af
