// af_data tokenize: files of text and chat messages become one token dataset with a manifest.
#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <thread>

#include "core/error.h"
#include "data/segments.h"
#include "launch/data_commands.h"
#include "launch/tokenize_job.h"

namespace af {
namespace {

constexpr double kNearThreshold = 0.8;

double threshold_from(const std::string& text) {
  double threshold = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), threshold);
  if (error != std::errc() || end != text.data() + text.size() || !(threshold > 0 && threshold <= 1)) {
    user_error("--near-duplicates {}: expected a similarity above 0 and up to 1, such as 0.8", text);
  }
  return threshold;
}

// "", "all", "assistant" or "role,role"
std::optional<RoleSet> loss_on_from(std::string_view text) {
  if (text.empty() || text == "all") return std::nullopt;
  if (text == "assistant") return kAssistantRoles;
  RoleSet roles;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    const std::optional<Role> role = role_named(text.substr(begin, end - begin));
    if (!role) user_error("--loss-on {}: expected all, assistant, or roles with commas between them: {}", text, all_role_names());
    roles.add(*role);
    begin = end + 1;
  }
  return roles;
}

TokenizeJobOptions options_from(const Arguments& arguments) {
  TokenizeJobOptions options;
  options.tokenizer = arguments.value("--tokenizer");
  options.output = arguments.value("--output");
  options.inputs = arguments.values("--input");
  options.tokenize.text_key = arguments.value("--text-key");
  options.tokenize.licence_key = arguments.value("--licence-key");
  if (arguments.value("--special-tokens-in-text") == "recognise") options.tokenize.specials = SpecialTokens::recognise;
  options.tokenize.loss_on = loss_on_from(arguments.value("--loss-on"));
  options.licence = arguments.value("--licence");
  if (arguments.value("--remove-duplicates") == "exact") options.remove = RemoveDuplicates::exact;
  if (arguments.value("--remove-duplicates") == "near") options.remove = RemoveDuplicates::near, options.near_threshold = kNearThreshold;
  if (arguments.has("--near-duplicates")) options.near_threshold = threshold_from(arguments.value("--near-duplicates"));
  options.max_line_bytes = arguments.integer("--max-line-bytes", options.max_line_bytes, 1024, 1 << 30);
  options.threads = int(arguments.integer("--threads", std::max(1u, std::thread::hardware_concurrency()), 1, 1024));
  options.strict = arguments.has("--strict");
  options.terminal = ::isatty(STDERR_FILENO) != 0;
  return options;
}

}  // namespace

Command tokenize_command() {
  return {"tokenize",
          "turns text, chat messages and synthesized documents into a token dataset",
          "",
          0,
          0,
          {{"--tokenizer",
            Takes::one_value,
            "NAME",
            "a folder or file with a vocabulary (tokenizer.json, vocab.json and merges.txt, qwen.tiktoken), or 'bytes': 256 bytes and Qwen's special "
            "tokens",
            {},
            true},
           {"--input",
            Takes::values,
            "FILE",
            "JSON lines, each {\"text\": ...}, {\"messages\": [{\"role\", \"content\"}]} or {\"segments\": [{\"role\", \"text\"}]}; or .txt, one "
            "document a file; also .gz and .zst; patterns ('part-*.jsonl') may be quoted",
            {},
            true},
           {"--output",
            Takes::one_value,
            "X.h5",
            "the dataset, and beside it X.h5.manifest.json. Until all is done the work is in X.h5.part: killed, the same command goes on",
            {},
            true},
           {"--text-key",
            Takes::one_value,
            "KEY",
            "the member that holds the text (default 'text'); where given, 'messages' and 'segments' are not looked at",
            {},
            false},
           {"--special-tokens-in-text",
            Takes::one_value,
            "",
            "what <|...|> in the input is: ordinary text (split, the default) or the token",
            {"split", "recognise"},
            false},
           {"--loss-on",
            Takes::one_value,
            "ROLE[,ROLE]",
            "what counts as a target: all (default), or of chats and segments only these roles; assistant: thought,action,answer",
            {},
            false},
           {"--near-duplicates",
            Takes::one_value,
            "THRESHOLD",
            "looks for documents whose sets of word 5-grams are that similar (Jaccard, by MinHash; 0.6 KB of memory a document); exact ones are "
            "always counted",
            {},
            false},
           {"--remove-duplicates",
            Takes::one_value,
            "",
            "keeps the first of documents with the same text (but for white space), or also of similar ones (0.8, or --near-duplicates)",
            {"exact", "near"},
            false},
           {"--licence", Takes::one_value, "TEXT", "the licence of the input, for the manifest", {}, false},
           {"--licence-key", Takes::one_value, "KEY", "the member of a line that names its licence", {}, false},
           {"--max-line-bytes",
            Takes::one_value,
            "N",
            "a longer line, or text file, is reported and skipped (default 16777216); bounds the memory",
            {},
            false},
           {"--threads", Takes::one_value, "N", "default: all cores; the result does not depend on it", {}, false},
           {"--strict", Takes::nothing, "", "a line that cannot be used fails the whole (default: it is reported and skipped)", {}, false}},
          {"af_data tokenize --tokenizer bytes --input trajectories.jsonl --loss-on assistant --output trajectories.h5",
           "af_data tokenize --tokenizer bytes --input 'crawl/part-*.jsonl.zst' --remove-duplicates near --licence-key license --output crawl.h5",
           "af_data tokenize --tokenizer bytes --input part-*.jsonl --text-key body --strict --output corpus.h5"},
          [](const Arguments& arguments) {
            // Blocks are allocated by one thread and freed by another: large ones go back to the system at once, else each
            // thread's share of the heap keeps what it once had (124 MB become 79 for 400 MB of text).
            ::mallopt(M_MMAP_THRESHOLD, 1 << 20);
            return TokenizeJob(options_from(arguments)).run();
          }};
}

}  // namespace af
