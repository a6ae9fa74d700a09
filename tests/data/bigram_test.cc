#include "data/bigram.h"

#include <cmath>

#include "tests/data/corpus.h"

namespace af {
namespace {

using Documents = std::vector<std::vector<std::uint32_t>>;
constexpr std::uint32_t kVocab = 7, kEnd = 6;

void write(const std::string& path, const Documents& documents, const std::vector<std::vector<TokenRange>>& counted = {}) {
  TokenDatasetWriter writer(path, {"t", kVocab, kEnd, ""});
  for (std::size_t d = 0; d < documents.size(); ++d) writer.add_document(documents[d], {}, counted.empty() ? nullptr : &counted[d]);
  writer.close();
}

// P(b | a) by the formula, from whole tables.
struct Table {
  double uni[kVocab] = {}, pair[kVocab][kVocab] = {};
  explicit Table(const Documents& documents) {
    double count[kVocab] = {}, tokens = 0, types = 0;
    for (auto document : documents) {
      document.push_back(kEnd);
      for (std::size_t i = 0; i < document.size(); ++i) {
        ++count[document[i]], ++tokens;
        if (i > 0) ++pair[document[i - 1]][document[i]];
      }
    }
    for (double c : count) types += c > 0;
    for (std::uint32_t b = 0; b < kVocab; ++b) uni[b] = (count[b] + types / kVocab) / (tokens + types);
    for (auto& row : pair) {
      double sum = 0, followers = 0;
      for (double c : row) sum += c, followers += c > 0;
      for (std::uint32_t b = 0; b < kVocab; ++b) row[b] = sum > 0 ? (row[b] + followers * uni[b]) / (sum + followers) : uni[b];
    }
  }
};

TEST(Bigram, EqualsTheFormula) {
  ScratchFolder folder;
  std::mt19937 random(3);
  auto draw = [&](int count) {
    Documents documents(static_cast<std::size_t>(count));
    for (auto& document : documents) {
      document.resize(1 + random() % 9);
      for (std::uint32_t& token : document) token = random() % 2 ? random() % 3 : random() % 6;
    }
    return documents;
  };
  for (int trial = 0; trial < 5; ++trial) {
    Documents train = draw(3 + trial * 20), heldout = draw(20);
    std::vector<std::vector<TokenRange>> counted;
    for (const auto& document : heldout) counted.push_back({{std::int64_t(document.size()) / 2, std::int64_t(document.size()) + 1}});
    write(folder / "train.h5", train);
    for (bool masked : {false, true}) {
      write(folder / "heldout.h5", heldout, masked ? counted : std::vector<std::vector<TokenRange>>());
      Table table(train);
      for (const auto& row : table.pair) {
        double sum = 0;
        for (double p : row) sum += p;
        ASSERT_NEAR(sum, 1, 1e-12);
      }
      double loss = 0;
      std::int64_t targets = 0;
      for (auto document : heldout) {
        std::size_t first = masked ? document.size() / 2 : 0;
        document.push_back(kEnd);
        for (std::size_t i = std::max<std::size_t>(1, first); i < document.size(); ++i)
          loss -= std::log(table.pair[document[i - 1]][document[i]]), ++targets;
      }
      TokenDataset train_set(folder / "train.h5"), heldout_set(folder / "heldout.h5");
      BigramLoss found = bigram_loss(train_set, heldout_set);
      EXPECT_EQ(found.targets, targets);
      EXPECT_NEAR(found.nats_per_token, loss / double(targets), 1e-12);
    }
  }
}

}  // namespace
}  // namespace af
