// The agent's tools answered from a memory instead of the internet: search as a search engine answers, visit as a summary of
// a page, in the words of the released trajectories. The same memory gives the same text.
#pragma once
#include <span>
#include <string>
#include <string_view>

#include "data/synthesis/memory.h"
#include "data/synthesis/tool_schema.h"

namespace af {

struct WorldOptions {
  int results = 10;               // of a search
  std::size_t statements = 30;    // of a page: those with most words of the goal, in the page's order
  std::size_t most_queries = 10;  // of a call, likewise pages
};

struct SearchResult {
  std::string title, url, snippet;
};

// The texts, for whoever knows the facts without asking the memory. A statement cannot end the response: the tags of a tool's
// response are broken up in it.
std::string render_results(std::string_view query, std::span<const SearchResult> results);
std::string render_page(std::string_view url, std::string_view goal, std::string_view title, std::span<const std::string> statements,
                        std::size_t most_statements);

class World {
 public:
  explicit World(Memory& memory, WorldOptions options = {}) : memory_(memory), options_(options) {}

  // What the tool answers, without <tool_response> around it. search {"query": [...]} and visit {"url": [...], "goal": ...}, a string
  // instead of a list being as good; other tools, arguments and pages get an answer that says what is wrong.
  std::string call(const ToolCall& call);
  std::string search(const std::string& query);
  std::string visit(const std::string& url, const std::string& goal);

  std::string page_url(std::int64_t entity);  // its own page, else memory://entity/NAME

 private:
  std::optional<std::int64_t> entity_at(const std::string& url);
  Memory& memory_;
  WorldOptions options_;
};

}  // namespace af
