// Documents as statements by a teacher: each part of a text is given to it with the prompt memory_statements, and its reply read as lines
// "ENTITY | TIME | STATEMENT". A line is kept where the entity stands in the text or its title and every number of the
// statement in the text: what a teacher invents most easily is what is easiest to see.
#pragma once
#include "data/synthesis/document_statements.h"
#include "data/synthesis/prompts.h"
#include "data/synthesis/teacher.h"

namespace af {

struct TeacherStatementsOptions {
  int threads = 1;                // requests at once
  std::size_t part_bytes = 6000;  // of a text; cut at lines where it can be
  double temperature = 0;
  int max_tokens = 2048;
  std::uint64_t seed = 0;
};

// Statements of a page's part as the teacher's reply has them.
std::vector<Statement> statements_in(std::string_view reply, const PageText& page);

// As DocumentReader, with the teacher for what that does by rules. A part that the teacher refuses is a problem of its line; where the
// teacher fails, all fails (TeacherError), and the same command asks only for what has no answer yet.
class TeacherDocumentReader : public JsonLineReader {
 public:
  TeacherDocumentReader(std::string name, std::string time, Teacher& teacher, const Prompts& prompts, TeacherStatementsOptions options)
      : JsonLineReader(std::move(name)), time_(std::move(time)), teacher_(teacher), prompts_(prompts), options_(options) {}
  void read(const TextBlock& block, ReadStatements& out) override;

 protected:
  void add(const JsonView& line, std::vector<Statement>& out) override;

 private:
  struct Part {
    DocumentPage page;
    std::string text;
  };
  std::string time_;
  Teacher& teacher_;
  const Prompts& prompts_;
  TeacherStatementsOptions options_;
  std::vector<Part> parts_;  // of the block under way
};

}  // namespace af
