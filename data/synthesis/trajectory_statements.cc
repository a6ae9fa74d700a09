#include "data/synthesis/trajectory_statements.h"

#include <algorithm>
#include <unordered_map>

#include "core/error.h"
#include "data/chat.h"

namespace af {
namespace {

constexpr std::string_view kOpen = "<tool_response>", kClose = "</tool_response>", kVisited = "The useful information in ";

// "12. [Title](URL)" -> Title, URL; URLs may hold brackets, so the last one of the line closes.
bool result_head(std::string_view line, std::string& title, std::string& url) {
  std::size_t at = 0;
  while (at < line.size() && line[at] >= '0' && line[at] <= '9') ++at;
  if (at == 0 || line.substr(at, 3) != ". [") return false;
  const std::size_t middle = line.rfind("]("), end = line.rfind(')');
  if (middle == std::string_view::npos || end == std::string_view::npos || end < middle + 2) return false;
  title = one_line(line.substr(at + 3, middle - at - 3));
  url = one_line(line.substr(middle + 2, end - middle - 2));
  return !title.empty() && !url.empty();
}

// "Guiding Light - Wikipedia" -> "Guiding Light": what a site adds to its pages' names, and an end that was cut off.
std::string page_name(std::string title) {
  if (title.ends_with(" ...")) title.resize(title.size() - 4);
  for (std::string_view mark : {" | ", " - "}) {
    const std::size_t at = mark == " | " ? title.find(mark) : title.rfind(mark);
    if (at != std::string::npos && at >= 3) title.resize(at);
  }
  return title;
}

}  // namespace

void ToolResponseReader::add(const JsonView& line, std::vector<Statement>& out) {
  if (!line.has("messages")) user_error("{}: expected an object with 'messages'", line.where());
  std::unordered_map<std::string, std::string> titles;  // by url
  for (const Message& message : messages_from(line["messages"])) {
    std::string_view rest = message.content;
    if (!(message.role == "tool" || (message.role == "user" && rest.starts_with(kOpen)))) continue;
    PageText page;
    std::string text;
    const auto end_page = [&] {
      page.text = text;
      if (!page.url.empty()) add_page_statements(page, out);
      page = {}, text.clear();
    };
    while (!rest.empty()) {
      const std::size_t end = std::min(rest.find('\n'), rest.size());
      std::string_view part = rest.substr(0, end);
      rest.remove_prefix(std::min(end + 1, rest.size()));
      std::string title, url;
      if (result_head(part, title, url)) {
        end_page();
        titles[url] = page_name(title);
        page = {titles[url], url, time_, "search_result", {}};
      } else if (part.starts_with(kVisited)) {
        end_page();
        url = one_line(part.substr(kVisited.size(), part.find(" for user goal") - kVisited.size()));
        page = {titles.contains(url) ? titles[url] : "", url, time_, "page_summary", {}};
      } else if (part.starts_with("Date published: ")) {
        page.time = one_line(part.substr(part.find(' ', 6) + 1));
      } else if (part.starts_with("A Google search for ") || part.starts_with("## ") || part.starts_with("=======") || part.starts_with(kOpen) ||
                 part.starts_with(kClose)) {
        if (part.starts_with("A Google search for ") || part.starts_with("=======")) end_page();
      } else {
        text.append(part).append("\n");
      }
    }
    end_page();
  }
}

}  // namespace af
