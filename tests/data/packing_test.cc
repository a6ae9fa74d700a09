// Best-fit packing by brute force: every token counted, every piece followed in its document, against a naive packer and the
// best possible one; then the stream that uses it: epochs, shards, resuming, other stages.
#include "data/packing.h"

#include <cmath>
#include <numeric>
#include <set>
#include <utility>

#include "data/source_plan.h"
#include "tests/data/corpus.h"

namespace af {
namespace {

std::vector<Piece> pieces_of(const std::vector<std::int64_t>& lengths) {
  std::vector<Piece> pieces;
  std::int64_t position = 0;
  for (std::size_t d = 0; d < lengths.size(); ++d) pieces.push_back({position, std::int64_t(d), 0, lengths[d]}), position += lengths[d];
  return pieces;
}

// The definition: longest first, each into the fullest sequence that takes it (the first of equals).
std::vector<std::set<std::int64_t>> naive_best_fit(const std::vector<std::int64_t>& lengths, std::int64_t seq_length) {
  std::vector<std::int64_t> order(lengths.size()), free;
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return lengths[std::size_t(a)] > lengths[std::size_t(b)]; });
  std::vector<std::set<std::int64_t>> sequences;
  for (std::int64_t d : order) {
    std::size_t best = free.size();
    for (std::size_t s = 0; s < free.size(); ++s) {
      if (free[s] >= lengths[std::size_t(d)] && (best == free.size() || free[s] < free[best])) best = s;
    }
    if (best == free.size()) free.push_back(seq_length), sequences.emplace_back();
    free[best] -= lengths[std::size_t(d)];
    sequences[best].insert(d);
  }
  return sequences;
}

// The fewest sequences, by trying everything.
std::size_t fewest(const std::vector<std::int64_t>& lengths, std::size_t next, std::vector<std::int64_t>& free, std::int64_t seq_length) {
  if (next == lengths.size()) return free.size();
  std::size_t best = SIZE_MAX;
  for (std::size_t s = 0; s < free.size(); ++s) {
    if (free[s] < lengths[next]) continue;
    free[s] -= lengths[next];
    best = std::min(best, fewest(lengths, next + 1, free, seq_length));
    free[s] += lengths[next];
  }
  free.push_back(seq_length - lengths[next]);
  best = std::min(best, fewest(lengths, next + 1, free, seq_length));
  free.pop_back();
  return best;
}

TEST(Packing, BestFitEqualsTheNaiveOneAndIsNearTheBest) {
  std::mt19937 random(1);
  for (int round = 0; round < 300; ++round) {
    std::vector<std::int64_t> lengths(1 + random() % (round % 3 == 0 ? 7 : 60));
    for (std::int64_t& length : lengths) length = 1 + std::int64_t(random() % 30);
    PackedPieces packed = pack_best_fit(pieces_of(lengths), 30, 7, std::uint64_t(round));
    std::multiset<std::set<std::int64_t>> got;
    for (std::int64_t s = 0; s < packed.size(); ++s) {
      std::set<std::int64_t> documents;
      for (const Piece& piece : packed[s]) {
        EXPECT_EQ(piece.offset, 0);
        EXPECT_EQ(piece.count, lengths[std::size_t(piece.document)]);
        documents.insert(piece.document);
      }
      EXPECT_LE(packed.tokens(s), 30);
      got.insert(documents);
    }
    auto expected = naive_best_fit(lengths, 30);
    EXPECT_TRUE(got == std::multiset<std::set<std::int64_t>>(expected.begin(), expected.end())) << round;
    if (lengths.size() > 7) continue;
    std::vector<std::int64_t> free;
    EXPECT_LE(9 * packed.size(), 11 * std::int64_t(fewest(lengths, 0, free, 30)) + 6);  // the known bound
  }
}

// Tokens as intervals of the stream: each once, whatever the lengths; masked ones only when no over-long document is left.
TEST(Packing, EveryTokenOnceAndGapsAreFilledFromLongDocuments) {
  std::mt19937 random(2);
  for (int round = 0; round < 300; ++round) {
    std::vector<std::int64_t> lengths(1 + random() % 40);
    for (std::int64_t& length : lengths) length = 1 + std::int64_t(random() % (random() % 4 == 0 ? 200 : 40));
    const std::int64_t total = std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0});
    for (bool best_fit : {false, true}) {
      PackedPieces packed = best_fit ? pack_best_fit(pieces_of(lengths), 32, 7, 1) : pack_sequential(pieces_of(lengths), 32);
      std::vector<int> seen(std::size_t(total), 0);
      std::int64_t padded = 0;
      for (std::int64_t s = 0; s < packed.size(); ++s) {
        for (const Piece& piece : packed[s]) {
          for (std::int64_t i = 0; i < piece.count; ++i) ++seen[std::size_t(piece.position + i)];
          const std::int64_t length = lengths[std::size_t(piece.document)];
          EXPECT_TRUE(!best_fit || length > 32 || piece.count == length);
        }
        padded += 32 - packed.tokens(s);
      }
      EXPECT_EQ(std::count(seen.begin(), seen.end(), 1), total);
      std::vector<std::int64_t> short_ones;
      for (std::int64_t length : lengths) {
        if (length <= 32) short_ones.push_back(length);
      }
      const std::int64_t least = std::max<std::int64_t>(best_fit ? std::int64_t(naive_best_fit(short_ones, 32).size()) : 0, (total + 31) / 32);
      EXPECT_EQ(packed.size(), least);  // over-long documents open a sequence only when every gap is full
      EXPECT_EQ(padded, least * 32 - total);
      for (std::int64_t first = 0; first < packed.size(); ++first) {  // what is left, in the stream's order, touching pieces one again
        std::vector<Piece> rest = packed.rest(first);
        std::int64_t tokens = 0, expected = 0;
        for (std::size_t i = 0; i < rest.size(); ++i) {
          tokens += rest[i].count;
          EXPECT_TRUE(i == 0 || rest[i - 1].position + rest[i - 1].count < rest[i].position || rest[i - 1].document != rest[i].document);
        }
        for (std::int64_t s = first; s < packed.size(); ++s) expected += packed.tokens(s);
        EXPECT_EQ(tokens, expected);
      }
    }
  }
}

TEST(Packing, SequencesComeInAnyOrder) {  // not the longest documents first
  std::vector<std::int64_t> lengths;
  for (std::int64_t length = 1; length <= 1000; ++length) lengths.push_back(length);
  PackedPieces packed = pack_best_fit(pieces_of(lengths), 1000, 7, 1);
  std::vector<std::int64_t> longest;
  for (std::int64_t s = 0; s < packed.size(); ++s) {
    std::int64_t most = 0;
    for (const Piece& piece : packed[s]) most = std::max(most, piece.count);
    longest.push_back(most);
  }
  std::int64_t falling = 0;
  for (std::size_t s = 1; s < longest.size(); ++s) falling += longest[s] <= longest[s - 1];
  EXPECT_NEAR(double(falling) / double(longest.size() - 1), 0.5, 0.1);
}

// Share of real tokens over an epoch of documents with lengths as corpora have them.
double utilization(std::int64_t seq_length, int documents, double median, double sigma, std::int64_t longest) {
  std::mt19937 random(3);
  std::lognormal_distribution<double> length(std::log(median), sigma);
  std::vector<std::int64_t> offsets{0};
  for (int d = 0; d < documents; ++d) offsets.push_back(offsets.back() + std::clamp<std::int64_t>(std::int64_t(length(random)), 2, longest));
  SourcePlan plan(offsets, 7, "a", Order::shuffled);
  SourcePlan::Cursor cursor;
  std::int64_t sequences = 0;
  for (; cursor.tokens < offsets.back(); ++sequences) plan.advance(cursor, Packing::best_fit, seq_length);
  EXPECT_EQ(cursor.tokens, offsets.back());
  EXPECT_EQ(cursor.padding, sequences * seq_length - offsets.back());
  return double(cursor.tokens) / double(sequences * seq_length);
}

TEST(Packing, UtilizationOnRealisticLengths) {
  EXPECT_GE(utilization(4096, 30000, 600, 1.2, 1 << 20), 0.998);   // web text: over-long documents fill every gap
  EXPECT_GE(utilization(4096, 30000, 600, 0.8, 4096), 0.995);      // none over-long: masked tokens
  EXPECT_GE(utilization(32768, 4000, 12000, 0.7, 1 << 17), 0.99);  // trajectories
  EXPECT_GE(utilization(131072, 20000, 300, 1.0, 1 << 17), 0.98);  // short documents in few long sequences: an epoch's last one
  EXPECT_LE(utilization(1000, 1000, 600, 0.01, 700), 0.65);        // two never fit: nothing can fill the gaps
}

// What is wrong with sequences of a corpus, whatever the order of their documents. `given`: how often each token has come.
struct PackedCheck {
  const Corpus& corpus;
  std::map<std::int32_t, std::pair<std::size_t, std::size_t>> place;  // of each ordinary token: document, index
  std::map<std::int32_t, std::int64_t> given;
  std::set<std::size_t> under_way;  // documents that may come in part though they fit
  std::int64_t real = 0, padding = 0;
  bool window_under_way = false;  // where the stage began
  std::int64_t lone_ends = 0;     // documents whose end alone has been cut off and given

  explicit PackedCheck(const Corpus& c) : corpus(c) {
    for (std::size_t d = 0; d < c.documents.size(); ++d) {
      for (std::size_t i = 0; i + 1 < c.documents[d].size(); ++i) place[std::int32_t(c.documents[d][i])] = {d, i};
    }
  }
  // A stage begins: documents of which a part has come may go on.
  void begin_stage(const StreamState& state) {
    under_way.clear();
    window_under_way = !state.sources.empty() && !state.sources[0].window.parts.empty();
    for (std::size_t d = 0; d < corpus.documents.size(); ++d) {
      std::set<std::int64_t> counts;
      for (std::size_t i = 0; i + 1 < corpus.documents[d].size(); ++i) counts.insert(given[std::int32_t(corpus.documents[d][i])]);
      if (counts.size() > 1) under_way.insert(d);
    }
  }
  std::string check(const PackedSequence& sequence, bool whole) {
    const std::int64_t length = std::int64_t(sequence.tokens.size());
    const std::vector<std::int64_t>& begins = sequence.document_begins;
    if (begins.front() != 0 || begins.back() != length || !std::is_sorted(begins.begin(), begins.end())) return "document_begins";
    for (std::size_t b = 0; b + 1 < begins.size(); ++b) {
      const bool masked = sequence.padding > 0 && begins[b] == length - sequence.padding;
      if (!masked && sequence.padding > 0 && begins[b + 1] > length - sequence.padding) return "a document reaches into the masked tokens";
      std::size_t document = 0, first = 0;
      const std::int32_t head = sequence.tokens[std::size_t(begins[b])];
      const bool lone_end = !masked && head == 0;  // a piece of an end-of-document token alone: of which document, it does not say
      if (lone_end && begins[b + 1] != begins[b] + 1) return "an end of document, and then more";
      if (!masked && !lone_end) {
        auto found = place.find(head);
        if (found == place.end()) return "unknown token";
        std::tie(document, first) = found->second;
      }
      for (std::int64_t i = begins[b]; i < begins[b + 1]; ++i) {
        const std::size_t at = std::size_t(i), index = first + std::size_t(i - begins[b]);
        if (sequence.positions[at] != std::int32_t(i - begins[b])) return "position";
        if (masked || lone_end) {
          if (sequence.tokens[at] != 0 || sequence.targets[at] != -1 || sequence.roles[at] != 0) return "masked token";
        } else {
          if (index >= corpus.documents[document].size()) return "goes on behind its document";
          if (std::uint32_t(sequence.tokens[at]) != corpus.documents[document][index]) return "not the document's next token";
          const bool last = index + 1 == corpus.documents[document].size();
          const std::int32_t target = last || !corpus.counted[document][index + 1] ? -1 : std::int32_t(corpus.documents[document][index + 1]);
          if (sequence.targets[at] != target) return "target";
          if (sequence.roles[at] != (last ? 0 : corpus.roles[document][index + 1])) return "role";
        }
        ++(masked ? padding : real);
        if (!masked) ++given[sequence.tokens[at]];
      }
      const std::int64_t size = std::int64_t(corpus.documents[document].size());
      lone_ends += lone_end;
      const std::int64_t count = begins[b + 1] - begins[b];
      if (!whole || masked || lone_end || size > length || count == size || under_way.contains(document)) continue;
      if (first == 0 && count == size - 1 && lone_ends-- > 0) continue;
      if (std::exchange(window_under_way, false)) {  // it was over-long when that window was made, and its end cut it
        under_way.insert(document);
        continue;
      }
      return fmt::format("document {} of {} tokens fits and is cut to [{}, {})", document, size, first, std::int64_t(first) + count);
    }
    return "";
  }
  std::string check(const std::vector<PackedSequence>& sequences, bool whole = true) {
    for (std::size_t s = 0; s < sequences.size(); ++s) {
      if (std::string problem = check(sequences[s], whole); !problem.empty()) return fmt::format("sequence {}: {}", s, problem);
    }
    return "";
  }
  // Every token of the corpus has come `times` times.
  bool all_given(std::int64_t times) const {
    if (std::int64_t(given.size()) != corpus.tokens - std::int64_t(corpus.documents.size()) + 1) return false;
    return std::all_of(given.begin(), given.end(),
                       [&](const auto& g) { return g.second == (g.first == 0 ? times * std::int64_t(corpus.documents.size()) : times); });
  }
};

class BestFit : public testing::Test {
 protected:
  BestFit() {
    for (unsigned i = 0; i < 2; ++i) corpora_[i].write(path(i));
  }
  std::string path(unsigned i) { return folder_ / ("source" + std::to_string(i) + ".h5"); }
  std::vector<SourceSpec> specs() { return {{path(0), "", 2}, {path(1), "", 1}}; }
  SequenceStream one(std::int64_t seq_length, const StreamState& begin = {}, Packing packing = Packing::best_fit) {
    return SequenceStream({{path(0), "", 1}}, seq_length, 7, begin, Order::shuffled, packing);
  }
  ScratchFolder folder_;
  const Corpus corpora_[2] = {Corpus(1, 200, 60, true, true), Corpus(2, 50, 90)};
};

TEST_F(BestFit, EveryTokenOncePerEpochAndDocumentsWhole) {
  const Corpus& corpus = corpora_[0];
  for (std::int64_t seq_length : {1, 7, 37, 64, 1000}) {
    SequenceStream stream = one(seq_length);
    PackedCheck check(corpus);
    std::vector<PackedSequence> some;
    for (std::int64_t epoch = 1; epoch <= 3; ++epoch) {
      while (stream.state().sources[0].tokens < epoch * corpus.tokens) {
        stream.next(1, 0, 1, some);
        ASSERT_EQ(check.check(some), "") << seq_length;
      }
      EXPECT_TRUE(check.all_given(epoch)) << seq_length;
      StreamState state = stream.state();
      EXPECT_EQ(check.real, state.sources[0].tokens);
      EXPECT_EQ(check.padding, state.padding());
      EXPECT_EQ(state.sources[0].documents, epoch * 200);
      EXPECT_EQ(state.sources[0].epochs, epoch);
      EXPECT_TRUE(state.sources[0].window.parts.empty());  // an epoch is whole windows
      EXPECT_EQ(check.real + check.padding, state.consumed_sequences * seq_length);
    }
    EXPECT_LE(double(check.padding), 0.05 * double(check.real) + 3.0 * double(seq_length)) << seq_length;
  }
}

TEST_F(BestFit, WindowsEndBetweenDocuments) {  // several windows an epoch, none of which cuts a document that fits
  Corpus corpus(3, 3000, 12);
  corpus.write(folder_ / "short.h5");
  SequenceStream stream({{folder_ / "short.h5", "a", 1}}, 13, 7, {}, Order::shuffled, Packing::best_fit);
  PackedCheck check(corpus);
  ASSERT_GT(corpus.tokens, 5 * 256 * 13);
  while (check.real < corpus.tokens) ASSERT_EQ(check.check(take(stream, 1)), "");
  EXPECT_TRUE(check.all_given(1));
  EXPECT_LE(check.padding, corpus.tokens / 20);
}

TEST_F(BestFit, MutantsAreCaught) {
  SequenceStream stream = one(64), sequential = one(64, {}, Packing::sequential);
  std::vector<PackedSequence> good;
  std::vector<PackedSequence> some;
  while (stream.state().sources[0].tokens < corpora_[0].tokens) stream.next(1, 0, 1, some), good.push_back(some[0]);
  auto verdict = [&](const std::vector<PackedSequence>& sequences) {
    PackedCheck check(corpora_[0]);
    std::string problem = check.check(sequences);
    return !problem.empty() ? problem : check.all_given(1) ? "" : "not every token once";
  };
  ASSERT_EQ(verdict(good), "");
  ASSERT_GT(good.back().padding + good[0].padding +
                std::accumulate(good.begin(), good.end(), std::int64_t{0}, [](auto n, auto& s) { return n + s.padding; }),
            0);
  auto caught = [&](const char* what, auto&& mutate) {
    std::vector<PackedSequence> bad = good;
    mutate(bad);
    EXPECT_NE(verdict(bad), "") << what;
  };
  caught("a sequence repeated", [](auto& all) { all[5] = all[4]; });
  caught("a sequence lost", [](auto& all) { all.erase(all.begin() + 5); });
  caught("documents cut that fit", [&](auto& all) { all = take(sequential, std::int64_t(all.size())); });
  caught("masked tokens are targets", [](auto& all) {
    for (PackedSequence& s : all) {
      if (s.padding > 0) s.targets.back() = 0;
    }
  });
  caught("masked tokens belong to the last document", [](auto& all) {
    for (PackedSequence& s : all) {
      if (s.padding > 0) s.document_begins.erase(s.document_begins.end() - 2);
    }
  });
  caught("masked tokens pass for real ones", [](auto& all) {
    for (PackedSequence& s : all) s.padding = 0;
  });
  caught("targets shifted", [](auto& all) {
    for (PackedSequence& s : all) s.targets = s.tokens;
  });
}

TEST_F(BestFit, NumberOfShardsDoesNotMatter) {
  SequenceStream whole(specs(), 64, 3, {}, Order::shuffled, Packing::best_fit);
  const std::vector<PackedSequence> expected = take(whole, 192, 24);
  for (std::int64_t shards : {1, 2, 3, 8}) {
    std::vector<PackedSequence> all(expected.size()), some;
    for (std::int64_t shard = 0; shard < shards; ++shard) {
      SequenceStream stream(specs(), 64, 3, {}, Order::shuffled, Packing::best_fit);
      for (int call = 0; call < 8; ++call) {
        stream.next(24, shard, shards, some);
        for (PackedSequence& sequence : some) all[std::size_t(sequence.global_index)] = sequence;
      }
      EXPECT_EQ(stream.state(), whole.state());
    }
    EXPECT_TRUE(all == expected) << shards;
  }
}

TEST_F(BestFit, ResumesFromEveryStateBitEqually) {
  SequenceStream stream(specs(), 20, 3, {}, Order::shuffled, Packing::best_fit);
  std::vector<PackedSequence> all, some;
  std::vector<StreamState> states{stream.state()};
  for (int call = 0; call < 250; ++call) {  // more than an epoch of both
    stream.next(5, 0, 1, some);
    all.insert(all.end(), some.begin(), some.end());
    states.push_back(stream.state());
  }
  ASSERT_GT(states.back().sources[0].epochs, 0);
  ASSERT_GT(states.back().sources[1].epochs, 0);
  for (std::size_t k = 0; k < states.size(); ++k) {
    Json json = Json::parse(to_json(states[k]).dump(), "state");  // as a checkpoint keeps it
    StreamState begin = stream_state_from(JsonView(json, "state"));
    ASSERT_TRUE(begin == states[k]) << k;
    SequenceStream resumed(specs(), 20, 3, begin, Order::shuffled, Packing::best_fit);
    EXPECT_TRUE(resumed.state() == states[k]) << k;
    const std::size_t count = std::min<std::size_t>(all.size() - 5 * k, 60);
    std::vector<PackedSequence> rest = take(resumed, std::int64_t(count), 7);
    ASSERT_TRUE(std::equal(rest.begin(), rest.end(), all.begin() + std::ptrdiff_t(5 * k))) << k;
  }
}

// Stages of random packing and length, cut anywhere: no token is lost or comes twice, and documents of which nothing had come
// are whole.
TEST_F(BestFit, OtherStagesLoseAndRepeatNothing) {
  const Corpus& corpus = corpora_[0];
  std::mt19937 random(5);
  std::size_t most_parts = 0;
  for (int run = 0; run < 15; ++run) {
    PackedCheck check(corpus);
    StreamState state;
    for (int stage = 0; stage < 12; ++stage) {
      const std::int64_t seq_length = std::array<std::int64_t, 5>{5, 16, 64, 130, 1000}[random() % 5];
      const Packing packing = random() % 3 == 0 ? Packing::sequential : Packing::best_fit;
      SequenceStream stream = one(seq_length, state, packing);
      check.begin_stage(state);
      const std::int64_t count = std::int64_t(random() % (1 + 3000 / unsigned(seq_length)));
      std::vector<PackedSequence> sequences = take(stream, count, 7);
      ASSERT_EQ(check.check(sequences, packing == Packing::best_fit), "") << run << " " << stage;
      for (const PackedSequence& sequence : sequences) ASSERT_TRUE(packing == Packing::best_fit || sequence.padding == 0);
      state = stream.state();
      ASSERT_EQ(check.real, state.sources[0].tokens);
      most_parts = std::max(most_parts, state.sources[0].window.parts.size());
    }
    SequenceStream last = one(1, state, Packing::sequential);
    const std::int64_t epochs = state.sources[0].tokens / corpus.tokens + 1;
    ASSERT_EQ(check.check(take(last, epochs * corpus.tokens - state.sources[0].tokens, 1000), false), "");
    ASSERT_TRUE(check.all_given(epochs)) << run;
  }
  EXPECT_GE(most_parts, 3u);
}

TEST_F(BestFit, ContentsAreWhatNextGives) {
  SequenceStream stream(specs(), 64, 3, {}, Order::shuffled, Packing::best_fit), other(specs(), 64, 3, {}, Order::shuffled, Packing::best_fit);
  const std::vector<PackedSequence> all = take(stream, 300, 50);
  take(other, 5);
  for (std::int64_t begin : {5, 120, 290}) {
    other.skip(begin - other.state().consumed_sequences);
    std::vector<SequenceContents> contents = other.contents(10);
    EXPECT_EQ(other.state().consumed_sequences, begin);
    for (std::size_t i = 0; i < 10; ++i) {
      const PackedSequence& expected = all[std::size_t(begin) + i];
      const Corpus& corpus = corpora_[std::size_t(expected.source)];
      ASSERT_EQ(contents[i].global_index, expected.global_index);
      ASSERT_EQ(contents[i].source, expected.source);
      ASSERT_EQ(contents[i].padding, expected.padding);
      std::vector<std::int32_t> tokens;
      for (const SequenceContents::Part& part : contents[i].parts) {
        const auto& document = corpus.documents[std::size_t(part.document)];
        tokens.insert(tokens.end(), document.begin() + part.begin, document.begin() + part.end);
      }
      tokens.resize(64, 0);
      EXPECT_EQ(tokens, expected.tokens);
    }
    EXPECT_TRUE(take(other, 3)[1] == all[std::size_t(begin) + 1]);  // and the reading goes on from there
  }
}

TEST_F(BestFit, ADamagedLedgerIsRefused) {
  SequenceStream stream = one(64);
  take(stream, 5);
  StreamState state = stream.state();
  ASSERT_EQ(state.sources[0].window.parts.size(), 1u);
  std::string text = to_json(state).dump();
  auto complaint = [&](const std::string& from, const std::string& to) {
    std::string bad = text;
    EXPECT_NE(bad.find(from), std::string::npos) << bad;
    bad.replace(bad.find(from), from.size(), to);
    return complaint_of([&] {
      Json json = Json::parse(bad, "state.json");
      SequenceStream resumed = one(64, stream_state_from(JsonView(json, "state.json")));
      take(resumed, 1);
    });
  };
  EXPECT_EQ(complaint("best_fit", "best_fit"), "");
  EXPECT_NE(complaint("best_fit", "worst_fit").find("expected sequential or best_fit"), std::string::npos);
  EXPECT_NE(complaint("\"seq_length\":64", "\"seq_length\":0").find("seq_length"), std::string::npos);
  EXPECT_NE(complaint("\"sequences\":5}", "\"sequences\":5000}").find("the ledger is damaged"), std::string::npos);
}

}  // namespace
}  // namespace af
