// Declarative statements from running text, without a model: sentences that stand for themselves, and the entities that
// they name. Written for English; Chinese and Japanese sentences are cut and attached to their page, but name no entities.
//
// A sentence is kept where it ends with . ! or their wide forms, has 4 to 80 words (10 characters in Chinese), at most 1,000 bytes, begins with
// a capital, a digit or a character without case, and not with a word that points back (It, He, This, However ...).
// Entities of a sentence: the page's title, and up to four runs of capitalised words ("Bank of England", "Robbie McEwen").
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "data/synthesis/statement_reader.h"

namespace af {

std::vector<std::string> declarative_sentences(std::string_view text);
std::vector<std::string> names_in(std::string_view sentence);  // in their order, different

// A page of text. Every sentence is a statement about the title (or, without one, about the page, by its url), and about
// each entity that it names.
struct PageText {
  std::string title, url, time, style;
  std::string_view text;
};
void add_page_statements(const PageText& page, std::vector<Statement>& out);

// A line's page: {"text": ..., "title"?, "url"?, "date"?}; UserError where one is wrong.
struct DocumentPage {
  std::string title, url, time, where;  // where: FILE:LINE
};
DocumentPage document_page(const JsonView& line, const std::string& time);

// {"text": ..., "title"?, "url"?, "date"?} a line; null is as absent. Without title and url a page is named FILE:LINE.
class DocumentReader : public JsonLineReader {
 public:
  DocumentReader(std::string name, std::string time) : JsonLineReader(std::move(name)), time_(std::move(time)) {}

 protected:
  void add(const JsonView& line, std::vector<Statement>& out) override;

 private:
  std::string time_;
};

}  // namespace af
