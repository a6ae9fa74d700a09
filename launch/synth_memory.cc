// af_synth memory: makes, extends and shows the open-world memory.
#include "core/error.h"
#include "data/synthesis/memory.h"
#include "data/utf8.h"
#include "launch/synth_commands.h"

namespace af {
namespace {

void print_statements(Memory& memory, const std::string& name) {
  const std::optional<std::int64_t> entity = memory.find_entity(name);
  if (!entity) user_error("{}: no entity '{}' (--search finds entities by words)", memory.path(), name);
  fmt::print("{}\n", printable(name));
  for (const Statement& s : memory.statements_of(*entity)) {
    fmt::print("  {}\n", printable(s.text));
    fmt::print("    [{}{}{}{}{}]\n", s.style, s.time.empty() ? "" : ", ", s.time, s.source.empty() ? "" : ", ", printable(s.source));
  }
}

int inspect(const Arguments& arguments) {
  Memory memory = Memory::open(arguments.value("--inspect"), Memory::Mode::read);
  if (arguments.has("--entity")) {
    print_statements(memory, arguments.value("--entity"));
  } else if (arguments.has("--search")) {
    for (const Memory::Found& found : memory.search(arguments.value("--search"), 10))
      fmt::print("{}{}{}\n  {}\n", printable(found.title), found.url.empty() ? "" : "  ", printable(found.url), printable(found.snippet));
  } else {
    const MemoryCounts counts = memory.counts();
    fmt::print("{}\n  entities    {:>12}\n  statements  {:>12}\n  facts       {:>12}\n", memory.path(), counts.entities, counts.statements,
               counts.facts);
  }
  return kExitDone;
}

}  // namespace

Command memory_command() {
  return {"memory",
          "makes, extends and shows the memory: entities and declarative statements about them",
          "",
          0,
          0,
          {{"--inspect", Takes::one_value, "MEM.db", "shows what a memory holds", {}, true},
           {"--entity", Takes::one_value, "NAME", "with --inspect: all statements about it", {}, false},
           {"--search", Takes::one_value, "WORDS", "with --inspect: the entities that fit the words best", {}, false}},
          {"af_synth memory --inspect mem.db --entity ledmon", "af_synth memory --inspect mem.db --search 'admin libpci3 libudev1'"},
          inspect};
}

}  // namespace af
