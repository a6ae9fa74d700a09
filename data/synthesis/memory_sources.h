// The kinds of files that become statements, each with its reader.
#pragma once
#include <array>
#include <memory>
#include <string>

#include "data/synthesis/statement_reader.h"

namespace af {

enum class SourceKind { documents, trajectories, triples, debian_index };
inline constexpr std::array<const char*, 4> kSourceKindNames{"documents", "trajectories", "triples", "debian-index"};

// `time`: of statements whose source says none. `file`: names it in messages.
std::unique_ptr<StatementReader> make_reader(SourceKind kind, const std::string& file, const std::string& time);

}  // namespace af
