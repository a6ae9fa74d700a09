// One document as tokens, and who speaks in it.
#pragma once
#include <array>
#include <cstdint>
#include <initializer_list>
#include <vector>

namespace af {

// The numbers stand in the files. `thought` is what an agent thinks, `action` its tool call, `observation` what came back.
enum class Role : std::uint8_t { other, system, user, thought, action, observation, decision, judgement, answer };
inline constexpr std::array<const char*, 9> kRoleNames{"other",       "system",   "user",      "thought", "action",
                                                       "observation", "decision", "judgement", "answer"};

class RoleSet {
 public:
  RoleSet() = default;
  RoleSet(std::initializer_list<Role> roles) {
    for (Role role : roles) add(role);
  }
  void add(Role role) { bits_ |= 1u << unsigned(role); }
  bool has(Role role) const { return (bits_ >> unsigned(role) & 1u) != 0; }
  bool empty() const { return bits_ == 0; }
  bool operator==(const RoleSet&) const = default;

 private:
  std::uint32_t bits_ = 0;
};
inline const RoleSet kAssistantRoles{Role::thought, Role::action, Role::answer};  // what a chat's assistant says

struct TokenRange {  // half-open
  std::int64_t begin, end;
  bool operator==(const TokenRange&) const = default;
};

struct RoleRun {  // half-open; tokens in no run are Role::other
  std::int64_t begin, end;
  Role role;
  bool operator==(const RoleRun&) const = default;
};

struct Document {
  std::vector<std::uint32_t> tokens;  // without the end-of-document token
  std::vector<RoleRun> roles;         // indices into tokens; sorted, disjoint
  void clear() { tokens.clear(), roles.clear(); }
};

}  // namespace af
