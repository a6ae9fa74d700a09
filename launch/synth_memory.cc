// af_synth memory: makes, extends and shows the open-world memory.
#include <unistd.h>

#include "core/error.h"
#include "data/synthesis/teacher_statements.h"
#include "data/utf8.h"
#include "launch/data_inputs.h"
#include "launch/memory_job.h"
#include "launch/synth_commands.h"
#include "launch/synth_teacher.h"
#include "launch/teacher_options.h"

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

void print_sources(Memory& memory) {
  fmt::print("\n  {:>14} {:>12} {:>12} {:>10} {:>10} {:>8}  {}\n", "bytes", "lines", "statements", "exact", "near", "skipped", "source");
  for (const MemorySource& s : memory.sources()) {
    fmt::print("  {:>14} {:>12} {:>12} {:>10} {:>10} {:>8}  {} {}{}, {}, {:.12}\n", s.bytes, s.lines, s.added, s.exact_duplicates, s.near_duplicates,
               s.skipped, s.kind, printable(s.name), s.finished ? "" : " (unfinished)", s.licence.empty() ? "licence not known" : s.licence,
               s.sha256);
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
    print_sources(memory);
  }
  return kExitDone;
}

struct InputOption {
  const char* option;
  SourceKind kind;
};
constexpr InputOption kInputs[] = {{"--documents", SourceKind::documents},
                                   {"--trajectories", SourceKind::trajectories},
                                   {"--triples", SourceKind::triples},
                                   {"--debian-index", SourceKind::debian_index}};

MemoryJobOptions job_from(const Arguments& arguments) {
  MemoryJobOptions job;
  job.output = arguments.value("--output");
  job.append = arguments.has("--append");
  job.time = arguments.value("--time");
  job.licence = arguments.value("--licence");
  job.strict = arguments.has("--strict");
  job.max_line_bytes = arguments.integer("--max-line-bytes", job.max_line_bytes, 1024, 1 << 30);
  job.terminal = ::isatty(STDERR_FILENO) != 0;
  for (const InputOption& input : kInputs) {
    for (const std::string& pattern : arguments.values(input.option)) {
      for (const std::string& name : files_matching(pattern)) {
        const FileStamp stamp = stamp_of(name);
        InputFile readable(name);
        job.inputs.push_back({input.kind, {name, true, stamp}});
      }
    }
  }
  return job;
}

int run(const Arguments& arguments) {
  if (arguments.has("--inspect")) {
    if (arguments.has("--output")) user_error("--output makes a memory, --inspect shows one: give one of them");
    return inspect(arguments);
  }
  if (arguments.has("--entity") || arguments.has("--search")) user_error("--entity and --search belong to --inspect MEM.db");
  if (!arguments.has("--output")) user_error("expected --output MEM.db (makes a memory) or --inspect MEM.db (shows one); --help says more");
  MemoryJobOptions job = job_from(arguments);
  if (job.inputs.empty()) user_error("nothing to read: give --documents, --trajectories, --triples or --debian-index");
  if (!asks_endpoint(arguments)) return run_memory_job(job);
  if (arguments.values("--documents").empty()) user_error("the teacher reads documents: give --documents, or no --endpoint");
  const Prompts prompts = prompts_of(arguments);
  TeacherStatementsOptions options;
  options.threads = concurrency_of(arguments);
  options.temperature = arguments.has("--temperature") ? temperature_of(arguments) : 0;
  options.max_tokens = reply_tokens_of(arguments, options.max_tokens);
  EndpointTeacher teacher(endpoint_from(arguments));
  job.document_reader = [&](const std::string& file) { return std::make_unique<TeacherDocumentReader>(file, job.time, teacher, prompts, options); };
  return run_memory_job(job);
}

}  // namespace

Command memory_command() {
  Command command{
      "memory",
      "makes, extends and shows the memory: entities and declarative statements about them",
      "",
      0,
      0,
      {{"--output",
        Takes::one_value,
        "MEM.db",
        "the memory to make, and beside it MEM.db.manifest.json. Until all is in it is MEM.db.part: killed, the same command goes on",
        {},
        false},
       {"--append", Takes::nothing, "", "adds to a memory that is there; killed, it is whole, and the same command goes on", {}, false},
       {"--documents",
        Takes::values,
        "FILE",
        "JSON lines {\"text\": ..., \"title\"?, \"url\"?, \"date\"?}, read by rules or, with --endpoint, by a teacher; all inputs may end in .gz or "
        ".zst",
        {},
        false},
       {"--trajectories", Takes::values, "FILE", "JSON lines {\"messages\": [{\"role\", \"content\"}]}: what the tools answered", {}, false},
       {"--triples",
        Takes::values,
        "FILE",
        "JSON lines {\"triples\": [[subject, relation, object], ...]}, or WebShaper's 'formalization' (variables are replaced or passed over)",
        {},
        false},
       {"--debian-index", Takes::values, "FILE", "a package index: the output of 'apt-cache dumpavail', or a mirror's Packages.gz", {}, false},
       {"--time", Takes::one_value, "TEXT", "the time of statements whose source says none, such as 2025-06", {}, false},
       {"--licence", Takes::one_value, "TEXT", "the licence of the inputs, for the manifest", {}, false},
       {"--max-line-bytes", Takes::one_value, "N", "a longer line is reported and skipped (default 16777216); bounds the memory", {}, false},
       {"--strict", Takes::nothing, "", "a line or package that cannot be used fails the whole (default: it is reported and skipped)", {}, false},
       {"--inspect", Takes::one_value, "MEM.db", "shows what a memory holds", {}, false},
       {"--entity", Takes::one_value, "NAME", "with --inspect: all statements about it", {}, false},
       {"--search", Takes::one_value, "WORDS", "with --inspect: the entities that fit the words best", {}, false}},
      {"apt-cache dumpavail > debian.txt && af_synth memory --debian-index debian.txt --output mem.db",
       "af_synth memory --append --documents 'crawl/part-*.jsonl.zst' --trajectories trajectories.jsonl --output mem.db",
       "af_synth memory --inspect mem.db --entity ledmon", "af_synth memory --inspect mem.db --search 'admin libpci3 libudev1'"},
      run};
  std::vector<Option> endpoint = endpoint_options();
  std::erase_if(endpoint, [](const Option& option) { return option.name == "--tools"; });
  append_options(command.options, endpoint);
  return command;
}

}  // namespace af
