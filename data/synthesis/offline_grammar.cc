#include "data/synthesis/offline_grammar.h"

#include "core/error.h"

namespace af {
namespace {

void fill(std::string_view text, Slots slots, std::string& out) {
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '$') {
      out += text[i];
      continue;
    }
    AF_CHECK(i + 1 < text.size(), "template '{}' ends with $", text);
    const char name = text[++i];
    const bool raise = name >= 'A' && name <= 'Z';
    bool found = false;
    for (const auto& [slot, value] : slots) {
      if (slot != (raise ? char(name - 'A' + 'a') : name)) continue;
      found = true;
      const std::size_t at = out.size();
      out += value;
      if (raise && at < out.size() && out[at] >= 'a' && out[at] <= 'z') out[at] = char(out[at] - 'a' + 'A');
    }
    AF_CHECK(found, "template '{}' has no slot ${}", text, name);
  }
}

}  // namespace

std::string expand(std::string_view form, Dice& dice, Slots slots) {
  std::string out;
  while (!form.empty()) {
    const std::size_t open = form.find('{');
    fill(form.substr(0, open), slots, out);
    if (open == std::string_view::npos) break;
    const std::size_t close = form.find('}', open);
    AF_CHECK(close != std::string_view::npos, "template '{}': no closing brace", form);
    std::string_view inside = form.substr(open + 1, close - open - 1);
    std::size_t alternatives = 1;
    for (const char c : inside) alternatives += c == '|';
    for (std::size_t skip = dice.below(alternatives); skip > 0; --skip) inside.remove_prefix(inside.find('|') + 1);
    fill(inside.substr(0, inside.find('|')), slots, out);
    form.remove_prefix(close + 1);
  }
  return out;
}

}  // namespace af
