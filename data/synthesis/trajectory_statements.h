// Trajectories ({"messages": [{"role", "content"}, ...]} a line) as statements: what the tools answered, not what the
// agent thought of it. A tool's answer is a message of role tool, or of role user that begins with <tool_response>.
//
//   "1. [Title](URL)", perhaps "Date published: ...", text       a search result: page Title of URL, style search_result
//   "The useful information in URL for user goal ... as follows:"  a visited page: by the title under which a search of the same trajectory
//                                                                  showed URL, else by URL; style page_summary
//
// In each page sentences and names are found as in documents (data/synthesis/document_statements.h).
#pragma once
#include "data/synthesis/document_statements.h"

namespace af {

class ToolResponseReader : public JsonLineReader {
 public:
  ToolResponseReader(std::string name, std::string time) : JsonLineReader(std::move(name)), time_(std::move(time)) {}

 protected:
  void add(const JsonView& line, std::vector<Statement>& out) override;

 private:
  std::string time_;
};

}  // namespace af
