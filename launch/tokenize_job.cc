#include "launch/tokenize_job.h"

#include <chrono>
#include <cstdio>
#include <filesystem>

#include "core/error.h"
#include "data/file.h"
#include "data/segments.h"
#include "launch/arguments.h"
#include "launch/data_inputs.h"
#include "launch/progress.h"

namespace af {
namespace {

constexpr std::int64_t kMostReports = 20, kMostDuplicateReports = 5;  // lines that are named one by one
constexpr std::size_t kMostLicences = 1000;                           // told apart in one source

std::string name_of(const std::optional<RoleSet>& loss_on) {
  return !loss_on ? "all" : *loss_on == kAssistantRoles ? "assistant" : names_of(*loss_on);
}

const char* name_of(RemoveDuplicates remove) {
  return remove == RemoveDuplicates::none ? "none" : remove == RemoveDuplicates::exact ? "exact" : "near";
}

// What differs between the work that was begun and the work that is asked for now, a line each.
std::string differences(const Json& begun, const Json& now) {
  std::string text;
  const auto differ = [&](const std::string& what, const std::string& was, const std::string& is) {
    text += fmt::format("\n  {}: was {}, is {}", what, was, is);
  };
  for (const char* key : {"program", "tokenizer_sha256"}) {
    if (*begun.find(key) != *now.find(key)) differ(key, begun.find(key)->dump(), now.find(key)->dump());
  }
  for (const Json::Member& option : now.find("options")->object()) {
    const Json* before = begun.find("options")->find(option.first);
    if (!before || *before != option.second) differ("--" + option.first, before ? before->dump() : "not known", option.second.dump());
  }
  const Json::Array &before = begun.find("sources")->array(), &after = now.find("sources")->array();
  if (before.size() != after.size()) differ("number of input files", fmt::format("{}", before.size()), fmt::format("{}", after.size()));
  for (std::size_t i = 0; i < std::min(before.size(), after.size()); ++i) {
    if (before[i] == after[i]) continue;
    const std::string was = before[i].find("name")->string(), is = after[i].find("name")->string();
    if (was == is) {
      text += fmt::format("\n  {}: the file has changed since", is);
    } else {
      differ(fmt::format("input file {}", i + 1), was, is);
      break;
    }
  }
  return text;
}

}  // namespace

TokenizeJob::TokenizeJob(TokenizeJobOptions options)
    : options_(std::move(options)), tokenizer_(make_tokenizer(options_.tokenizer)), sources_(text_sources(options_.inputs)) {
  std::vector<std::string> inputs;
  for (const TextSource& source : sources_) inputs.push_back(source.name);
  check_output(options_.output, inputs);
  options_.tokenize.signatures = options_.near_threshold.has_value();
  if (options_.near_threshold) near_.emplace(*options_.near_threshold);
  manifest_.program = fmt::format("af_data tokenize {}", kVersion);
  manifest_.dataset = std::filesystem::path(options_.output).filename();
  manifest_.tokenizer = options_.tokenizer;
  manifest_.tokenizer_sha256 = tokenizer_->sha256();
  manifest_.options = options_json();
  manifest_.duplicates.emplace();
  manifest_.duplicates->near_threshold = options_.near_threshold;
  for (const TextSource& source : sources_) {
    manifest_.sources.emplace_back();
    manifest_.sources.back().name = source.name;
    manifest_.sources.back().licence = options_.licence;
    all_bytes_ += source.stamp.bytes;
  }
}

Json TokenizeJob::options_json() const {
  const TokenizeOptions& tokenize = options_.tokenize;
  const auto text_or_null = [](const std::string& text) { return text.empty() ? Json() : Json(text); };
  Json json;
  json.set("text-key", text_or_null(tokenize.text_key));
  json.set("special-tokens-in-text", tokenize.specials == SpecialTokens::split ? "split" : "recognise");
  json.set("loss-on", name_of(tokenize.loss_on));
  json.set("max-line-bytes", options_.max_line_bytes);
  json.set("near-duplicates", options_.near_threshold ? Json(*options_.near_threshold) : Json());
  json.set("remove-duplicates", name_of(options_.remove));
  json.set("licence", text_or_null(options_.licence));
  json.set("licence-key", text_or_null(tokenize.licence_key));
  return json;
}

Json TokenizeJob::identity() const {
  Json json;
  json.set("program", manifest_.program);
  json.set("tokenizer_sha256", manifest_.tokenizer_sha256);
  json.set("options", manifest_.options);
  Json& sources = json.set("sources", Json::Array());
  for (const TextSource& source : sources_) {
    Json entry;
    entry.set("name", source.name);
    entry.set("bytes", source.stamp.bytes);
    entry.set("modified_ns", source.stamp.modified_ns);
    sources.push_back(std::move(entry));
  }
  return json;
}

// Calls f(), which writes the dataset: what is done so far is not lost where it cannot (a full disk).
template <class F>
void TokenizeJob::write(F&& f) {
  try {
    f();
  } catch (const UserError& error) {
    user_error("{}; what is done is kept in {}.part: make room and give the same command again to go on", error.what(), options_.output);
  }
}

int TokenizeJob::run() {
  const auto begin = std::chrono::steady_clock::now();
  const auto seconds = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(); };
  Spool spool(options_.output + ".part");
  const BlockPipeline::Position position = take_over(spool);
  const std::int64_t taken_over = text_bytes_;
  {
    Progress progress("tokenize", options_.terminal);
    progress.show(fraction(), 0);
    BlockPipeline pipeline(*tokenizer_, options_.tokenize, sources_, position, options_.max_line_bytes, options_.threads);
    for (FinishedBlock block; pipeline.next(block);) {
      spool.append(block.bytes);
      if (!block.record.problems.empty() && reported_ < kMostReports) progress.clear();
      write([&] { fold(block.record); });
      progress.show(fraction(), text_bytes_ - taken_over);
    }
  }
  if (skipped_ > reported_) fmt::print(stderr, "... {} lines in all that cannot be used\n", skipped_);
  if ((options_.strict && skipped_ > 0) || writer_->num_documents() == 0) {
    spool.remove();
    if (writer_->num_documents() == 0) user_error("there is no document in the input; nothing was written");
    user_error("{} lines cannot be used; nothing was written (--strict)", skipped_);
  }
  write([&] { finish(); });
  spool.remove();
  const ManifestDuplicates& duplicates = *manifest_.duplicates;
  fmt::print("{}: {} documents, {} tokens from {} file(s), {:.1f} MB in {:.1f} s ({:.1f} MB/s); {} lines skipped\n", options_.output,
             manifest_.documents, manifest_.tokens, sources_.size(), double(text_bytes_) / 1e6, seconds(),
             double(text_bytes_ - taken_over) / 1e6 / std::max(seconds(), 1e-3), skipped_);
  if (duplicates.exact + duplicates.near > 0 || options_.near_threshold) {
    fmt::print("{} exact duplicates", duplicates.exact);
    if (options_.near_threshold) fmt::print(", {} near duplicates (similarity {} or more)", duplicates.near, *options_.near_threshold);
    fmt::print("; {} documents removed (--remove-duplicates {})\n", removed_, name_of(options_.remove));
  }
  return kExitDone;
}

BlockPipeline::Position TokenizeJob::take_over(Spool& spool) {
  const Json now = identity();
  std::string entry;
  BlockPipeline::Position position;
  const bool begun = spool.next(entry);
  if (begun) {
    const Json before = Json::parse(entry, spool.path());
    if (before != now) {
      user_error(
          "{}: holds unfinished work that differs from what is asked for:{}\nGive the earlier command again to go on, or remove {} to begin anew.",
          spool.path(), differences(before, now), spool.path());
    }
  }
  writer_.emplace(options_.output,
                  TokenDatasetInfo{tokenizer_->sha256(), tokenizer_->vocab_size(), tokenizer_->eod_token(), source_names(manifest_.sources)});
  if (!begun) {
    spool.append(now.dump());
    return position;
  }
  quiet_ = true;
  Progress progress("taking over", options_.terminal);
  while (spool.next(entry)) {
    const BlockRecord record = unpack(entry);
    AF_CHECK(record.source == position.source && record.number == position.block, "{}: block {} of source {} after block {} of source {}",
             spool.path(), record.number, record.source, position.block, position.source);
    position =
        record.last ? BlockPipeline::Position{record.source + 1, 0, ""} : BlockPipeline::Position{record.source, record.number + 1, record.sha256};
    write([&] { fold(record); });
    progress.show(fraction(), text_bytes_);
  }
  quiet_ = false;
  progress.clear();
  fmt::print(stderr, "going on where an earlier run stopped: {} documents, {:.1f} MB are done\n", writer_->num_documents(),
             double(text_bytes_) / 1e6);
  return position;
}

double TokenizeJob::fraction() const { return all_bytes_ == 0 ? 1.0 : double(finished_bytes_ + file_bytes_) / double(all_bytes_); }

void TokenizeJob::report(const BlockRecord& record) {
  for (const LineProblem& problem : record.problems) {
    if (quiet_ || reported_ == kMostReports) break;
    fmt::print(stderr, "{}\n", problem.what);
    ++reported_;
  }
}

bool TokenizeJob::is_removed(const BlockRecord& record, std::size_t document) {
  const DocumentEntry& entry = record.documents[document];
  const auto tell = [&](const char* what, std::int64_t first) {
    if (quiet_ || duplicates_reported_++ >= kMostDuplicateReports) return;
    fmt::print(stderr, "{}:{}: {} document {}\n", sources_[std::size_t(record.source)].name, entry.line, what, first);
  };
  if (std::optional<std::int64_t> first = exact_.find_or_add(entry.identity, writer_->num_documents())) {
    ++manifest_.duplicates->exact;
    tell("the same text as", *first);
    return options_.remove != RemoveDuplicates::none;
  }
  if (!near_) return false;
  if (std::optional<std::int64_t> first = near_->find_or_add(&record.signatures[document * kSignature], writer_->num_documents())) {
    ++manifest_.duplicates->near;
    tell("nearly the same text as", *first);
    return options_.remove == RemoveDuplicates::near;
  }
  return false;
}

void TokenizeJob::fold(const BlockRecord& record) {
  ManifestSource& source = manifest_.sources[std::size_t(record.source)];
  report(record);
  skipped_ += record.skipped;
  text_bytes_ += record.text_bytes;
  source.lines += record.lines;
  source.lines_skipped += record.skipped;
  std::size_t token = 0, role = 0, range = 0;
  for (std::size_t d = 0; d < record.documents.size(); ++d) {
    const DocumentEntry& entry = record.documents[d];
    const std::span tokens(record.tokens.data() + token, std::size_t(entry.tokens));
    const std::span roles(record.roles.data() + role, std::size_t(entry.roles));
    const std::size_t ranges = std::size_t(std::max<std::int64_t>(entry.counted, 0));
    counted_.assign(record.counted.begin() + std::ptrdiff_t(range), record.counted.begin() + std::ptrdiff_t(range + ranges));
    token += tokens.size(), role += roles.size(), range += ranges;
    if (is_removed(record, d)) {
      ++source.duplicates_removed, ++removed_;
      continue;
    }
    const std::int64_t before = writer_->num_tokens();
    writer_->add_document(tokens, roles, entry.counted >= 0 ? &counted_ : nullptr);
    ++source.documents;
    source.tokens += writer_->num_tokens() - before;
    if (!options_.tokenize.licence_key.empty()) {
      const std::string licence = entry.licence >= 0         ? record.licences[std::size_t(entry.licence)]
                                  : options_.licence.empty() ? "unknown"
                                                             : options_.licence;
      const bool known = source.licences.contains(licence) || source.licences.size() < kMostLicences;
      ++source.licences[known ? licence : "others"];
    }
  }
  file_bytes_ = record.file_bytes;
  if (record.last) {
    source.bytes = record.file_bytes, source.sha256 = record.sha256;
    finished_bytes_ += record.file_bytes, file_bytes_ = 0;
  }
}

void TokenizeJob::finish() {
  manifest_.documents = writer_->num_documents(), manifest_.tokens = writer_->num_tokens();
  writer_->close();
  write_manifest(manifest_, manifest_path(options_.output));
}

}  // namespace af
