#include "data/synthesis/rejects.h"

#include <algorithm>

#include "core/error.h"
#include "data/json.h"

namespace af {

std::string to_json_line(const Reject& reject) {
  Json json;
  json.set("id", reject.id);
  json.set("kind", reject.kind);
  json.set("style", reject.style);
  json.set("reason", reject.reason);
  json.set("detail", reject.detail);
  json.set("question", reject.question);
  json.set("text", reject.text);
  return json.dump() + "\n";
}

Yield::Yield(std::string what, std::vector<std::string> reasons) : what_(std::move(what)) {
  for (std::string& reason : reasons) reasons_.emplace_back(std::move(reason), 0);
}

void Yield::reject(const std::string& reason) {
  const auto found = std::find_if(reasons_.begin(), reasons_.end(), [&](const auto& known) { return known.first == reason; });
  AF_CHECK(found != reasons_.end(), "{}: no reason '{}'", what_, reason);
  ++found->second, ++tried_;
}

std::int64_t Yield::rejected(const std::string& reason) const {
  const auto found = std::find_if(reasons_.begin(), reasons_.end(), [&](const auto& known) { return known.first == reason; });
  return found == reasons_.end() ? 0 : found->second;
}

std::string Yield::text() const {
  std::string text =
      fmt::format("{:<28} {:>8} tried, {} kept ({:.1f} %)\n", what_, tried_, kept_, tried_ ? 100.0 * double(kept_) / double(tried_) : 0.0);
  for (const auto& [reason, count] : reasons_) text += fmt::format("  {:<26} {:>8}\n", reason, count);
  return text;
}

}  // namespace af
