// Triples as statements with facts: {"triples": [["Berlin", "is capital of", "Germany"], ...]} a line, or WebShaper's
// {"formalization": [["V@X", "is located in", "C@Berlin"], ...], "answer": "..."}.
//
// There "C@" marks a constant ("C@A9_road": A9 road), "V@" a variable and "?" what is asked for. A variable is no entity. It
// is replaced where the triples name it (["V@X", "has name", "C@..."], or "?", which is the answer); "?" elsewhere is the answer. Triples in which a
// variable is left, that join several with " & ", or that are not three strings, are passed over.
#pragma once
#include "data/synthesis/statement_reader.h"

namespace af {

class TripleReader : public JsonLineReader {
 public:
  TripleReader(std::string name, std::string time) : JsonLineReader(std::move(name)), time_(std::move(time)) {}

 protected:
  void add(const JsonView& line, std::vector<Statement>& out) override;

 private:
  std::string time_;
};

}  // namespace af
