// Errors: one exception type for what the user can mend, one check for what must hold.
#pragma once
#include <fmt/core.h>

#include <stdexcept>
#include <string>
#include <vector>

namespace af {

// The user's input is wrong. what() is one clear message naming file, line or rank and what would be right.
// Every program prints it without a stack trace and exits with kExitUsage.
struct UserError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// The program's own promise is broken: a bug, or a machine that fails (disk, memory). Exit with kExitFailed.
struct InternalError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

inline constexpr int kExitDone = 0, kExitFailed = 1, kExitUsage = 2, kExitRequeue = 75;

template <class... Args>
[[noreturn]] void user_error(fmt::format_string<Args...> format, Args&&... args) {
  throw UserError(fmt::format(format, std::forward<Args>(args)...));
}

[[noreturn]] void check_failed(const char* file, int line, const char* condition, const std::string& message);

// The candidate nearest to `word` by edit distance, or "" where none is near: for "did you mean".
std::string nearest(const std::string& word, const std::vector<std::string>& candidates);

}  // namespace af

// Invariant: AF_CHECK(a.rows() == b.rows(), "matmul: {} rows against {}", a.rows(), b.rows());
#define AF_CHECK(condition, ...) \
  ((condition) ? void(0) : ::af::check_failed(__FILE__, __LINE__, #condition, ::fmt::format(__VA_ARGS__)))
