// What was not kept, and why: a line of JSON each, and counts by reason.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace af {

// Reasons: the teacher gave no answer, which another run may mend, or refuses this request (too long for it, say).
inline constexpr const char *kTeacherFailed = "teacher failed", *kTeacherRefused = "teacher refused";

struct Reject {
  std::string id, kind, style;
  std::string reason;          // one of the reasons that the counts know
  std::string detail;          // in words; may be empty
  std::string question, text;  // what was rejected
};
std::string to_json_line(const Reject& reject);

// How many of a kind were tried, kept and rejected for which reason; every known reason is printed, also those that never came.
class Yield {
 public:
  Yield(std::string what, std::vector<std::string> reasons);
  void keep() { ++tried_, ++kept_; }
  void reject(const std::string& reason);  // InternalError where it is not known
  std::int64_t tried() const { return tried_; }
  std::int64_t kept() const { return kept_; }
  std::int64_t rejected(const std::string& reason) const;
  std::string text() const;  // "planning steps   200 tried, 104 kept (52.0 %)" and a line for each reason

 private:
  std::string what_;
  std::vector<std::pair<std::string, std::int64_t>> reasons_;
  std::int64_t tried_ = 0, kept_ = 0;
};

}  // namespace af
