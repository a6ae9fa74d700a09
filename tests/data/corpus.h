// Random corpora that are known token by token, and a naive check of what a stream makes of them.
#pragma once
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "core/error.h"
#include "data/batch_stream.h"
#include "data/token_dataset.h"

namespace af {

// A folder of this test's own, removed at its end.
class ScratchFolder {
 public:
  ScratchFolder() {
    std::string pattern = testing::TempDir() + "/af_data_XXXXXX";
    path_ = ::mkdtemp(pattern.data());
  }
  ~ScratchFolder() { std::filesystem::remove_all(path_); }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

// The message of the UserError that f() throws; "" where it throws none.
template <class F>
std::string complaint_of(F&& f) {
  try {
    f();
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

// Documents whose ordinary tokens are all different (so that a token says where it stands); 0 ends a document.
struct Corpus {
  std::vector<std::vector<std::uint32_t>> documents;      // with their end
  std::vector<std::vector<std::uint8_t>> counted, roles;  // per token
  bool masked = false;
  std::map<std::uint32_t, std::size_t> starting;  // document by its first token
  std::int64_t tokens = 0;

  Corpus(unsigned seed, int count, int longest, bool with_roles = false, bool with_mask = false) : masked(with_mask) {
    std::mt19937 random(seed);
    std::uint32_t next = 1;
    for (int d = 0; d < count; ++d) {
      std::vector<std::uint32_t> document(1 + random() % unsigned(longest));
      for (std::uint32_t& token : document) token = next++;
      starting[document[0]] = documents.size();
      document.push_back(0);
      std::vector<std::uint8_t> mask(document.size(), 1), role(document.size(), 0);
      for (std::size_t i = 0; with_roles && i + 1 < role.size(); ++i) role[i] = i % 5 == 0 || i == 0 ? std::uint8_t(random() % 9) : role[i - 1];
      if (with_mask && d % 3 != 0) {
        for (std::size_t i = 0; i < mask.size(); ++i) mask[i] = i % 4 == 0 || i == 0 ? std::uint8_t(random() % 2) : mask[i - 1];
      }
      tokens += std::int64_t(document.size());
      documents.push_back(std::move(document)), counted.push_back(std::move(mask)), roles.push_back(std::move(role));
    }
  }

  void write(const std::string& path) const {
    TokenDatasetWriter writer(path, {"tokenizer of the test", 1 << 22, 0, "random"});
    for (std::size_t d = 0; d < documents.size(); ++d) {
      std::vector<RoleRun> role_runs;
      std::vector<TokenRange> ranges;
      for (std::int64_t i = 0; i < std::int64_t(documents[d].size()); ++i) {
        Role role = Role(roles[d][std::size_t(i)]);
        if (role != Role::other) {
          bool goes_on = !role_runs.empty() && role_runs.back().end == i && role_runs.back().role == role;
          goes_on ? void(++role_runs.back().end) : role_runs.push_back({i, i + 1, role});
        }
        if (counted[d][std::size_t(i)]) {
          bool goes_on = !ranges.empty() && ranges.back().end == i;
          goes_on ? void(++ranges.back().end) : ranges.push_back({i, i + 1});
        }
      }
      writer.add_document(documents[d], role_runs, masked && d % 3 != 0 ? &ranges : nullptr);
    }
    writer.close();
  }

  // What is wrong with consecutive sequences of this corpus, from the stream's beginning; "": nothing. Follows the documents
  // token by token: each ends before another begins, each comes once per epoch; targets, positions, begins, roles as defined.
  std::string check(const std::vector<PackedSequence>& sequences) const {
    std::vector<int> seen(documents.size(), 0);
    std::size_t document = 0, index = documents[0].size() - 1, in_epoch = 0;  // as if a document had just ended
    for (std::size_t s = 0; s < sequences.size(); ++s) {
      const PackedSequence& sequence = sequences[s];
      std::vector<std::int64_t> begins;
      std::int32_t position = 0;
      for (std::size_t i = 0; i < sequence.tokens.size(); ++i) {
        std::string where = fmt::format("sequence {} token {}: ", s, i);
        if (++index == documents[document].size()) {
          auto found = starting.find(std::uint32_t(sequence.tokens[i]));
          if (found == starting.end()) return where + "no document begins with it";
          document = found->second, index = 0;
          if (in_epoch++ == documents.size()) seen.assign(documents.size(), 0), in_epoch = 1;
          if (seen[document]++) return where + fmt::format("document {} again in one epoch", document);
        }
        if (index == 0 || i == 0) position = 0, begins.push_back(std::int64_t(i));
        if (std::uint32_t(sequence.tokens[i]) != documents[document][index]) return where + "not the document's next token";
        if (sequence.positions[i] != position++) return where + "position";
        bool last = index + 1 == documents[document].size();
        std::int32_t target = last || !counted[document][index + 1] ? -1 : std::int32_t(documents[document][index + 1]);
        if (sequence.targets[i] != target) return where + fmt::format("target {} instead of {}", sequence.targets[i], target);
        if (sequence.roles[i] != (last ? 0 : roles[document][index + 1])) return where + "role";
      }
      begins.push_back(std::int64_t(sequence.tokens.size()));
      if (sequence.document_begins != begins) return fmt::format("sequence {}: document_begins", s);
    }
    return "";
  }
};

inline std::vector<PackedSequence> take(SequenceStream& stream, std::int64_t count, std::int64_t at_once = 3) {
  std::vector<PackedSequence> all, some;
  while (count > 0) {
    std::int64_t n = std::min(count, at_once);
    stream.next(n, 0, 1, some);
    all.insert(all.end(), some.begin(), some.end());
    count -= n;
  }
  return all;
}

}  // namespace af
