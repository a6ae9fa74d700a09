#include "data/batch_stream.h"

#include <fstream>
#include <numeric>

#include "tests/data/corpus.h"

namespace af {
namespace {

class Stream : public testing::Test {
 protected:
  ScratchFolder folder_;
};

TEST_F(Stream, EveryTokenOncePerEpochAndAllFieldsByBruteForce) {
  Corpus corpus(1, 200, 60, true, true);
  corpus.write(folder_ / "a.h5");
  for (std::int64_t seq_length : {1, 37, 128, 1000}) {
    for (Order order : {Order::shuffled, Order::sequential}) {
      SequenceStream stream({{folder_ / "a.h5", "a", 1}}, seq_length, 7, {}, order);
      std::vector<PackedSequence> sequences = take(stream, 3 * corpus.tokens / seq_length + 2, 11);
      EXPECT_EQ(corpus.check(sequences), "") << seq_length;
      std::map<std::int32_t, int> times;  // exact counting over the first three epochs
      std::int64_t left = 3 * corpus.tokens;
      for (const PackedSequence& sequence : sequences) {
        for (std::size_t i = 0; i < sequence.tokens.size() && left-- > 0; ++i) ++times[sequence.tokens[i]];
      }
      for (auto [token, n] : times) ASSERT_EQ(n, token == 0 ? 3 * 200 : 3);
      ASSERT_EQ(std::int64_t(times.size()), corpus.tokens - 200 + 1);
      SourceLedger ledger = stream.state().sources[0];
      EXPECT_EQ(ledger.tokens, std::int64_t(sequences.size()) * seq_length);
      EXPECT_EQ(ledger.epochs, ledger.tokens / corpus.tokens);
      std::int64_t ended = 0;
      for (const PackedSequence& sequence : sequences) ended += std::count(sequence.tokens.begin(), sequence.tokens.end(), 0);
      EXPECT_EQ(ledger.documents, ended);
    }
  }
}

// The check above must notice what it is there for.
TEST_F(Stream, MutantsAreCaught) {
  Corpus corpus(2, 100, 40, true, true);
  corpus.write(folder_ / "a.h5");
  SequenceStream stream({{folder_ / "a.h5", "a", 1}}, 64, 7);
  const std::vector<PackedSequence> good = take(stream, 2 * corpus.tokens / 64);
  ASSERT_EQ(corpus.check(good), "");
  auto caught = [&](const char* what, auto&& mutate) {
    std::vector<PackedSequence> bad = good;
    mutate(bad);
    EXPECT_NE(corpus.check(bad), "") << what;
  };
  caught("targets shifted", [](auto& all) {
    for (PackedSequence& s : all) s.targets = s.tokens;
  });
  caught("a sequence repeated", [](auto& all) { all[5] = all[4]; });
  caught("a sequence lost", [](auto& all) { all.erase(all.begin() + 5); });
  caught("document mask ignored", [](auto& all) {
    for (PackedSequence& s : all) s.document_begins = {0, 64};
  });
  caught("positions do not restart", [](auto& all) {
    for (PackedSequence& s : all) std::iota(s.positions.begin(), s.positions.end(), 0);
  });
  caught("the end of a document predicts the next one", [](auto& all) {
    for (PackedSequence& s : all) {
      for (std::size_t i = 0; i + 1 < s.tokens.size(); ++i) s.targets[i] = s.tokens[i + 1];
    }
  });
  caught("roles of the inputs instead of the targets", [](auto& all) {
    for (PackedSequence& s : all) std::rotate(s.roles.begin(), s.roles.end() - 1, s.roles.end());
  });
}

TEST_F(Stream, SequentialIsTheFileAndShuffledIsNot) {
  Corpus corpus(3, 50, 30);
  corpus.write(folder_ / "a.h5");
  std::vector<std::int32_t> file;
  for (const auto& document : corpus.documents) file.insert(file.end(), document.begin(), document.end());
  auto tokens_of = [&](std::uint64_t seed, Order order, std::int64_t epoch) {
    SequenceStream stream({{folder_ / "a.h5", "a", 1}}, corpus.tokens, seed, {}, order);
    EXPECT_EQ(stream.sequences_per_epoch(0), 1);
    return take(stream, epoch + 1)[std::size_t(epoch)].tokens;
  };
  EXPECT_EQ(tokens_of(1, Order::sequential, 0), file);
  EXPECT_EQ(tokens_of(1, Order::sequential, 1), file);
  EXPECT_NE(tokens_of(1, Order::shuffled, 0), file);
  EXPECT_EQ(tokens_of(1, Order::shuffled, 0), tokens_of(1, Order::shuffled, 0));
  EXPECT_NE(tokens_of(1, Order::shuffled, 0), tokens_of(1, Order::shuffled, 1));
  EXPECT_NE(tokens_of(1, Order::shuffled, 0), tokens_of(2, Order::shuffled, 0));
}

TEST_F(Stream, OrderIsUniform) {  // where document 0 of 4 comes in 4000 epochs: 4 bins of 1000, standard deviation 27
  Corpus corpus(3, 4, 1);
  corpus.write(folder_ / "a.h5");
  SequenceStream stream({{folder_ / "a.h5", "a", 1}}, corpus.tokens, 5);
  std::array<int, 4> bins{};
  for (const PackedSequence& epoch : take(stream, 4000, 100)) {
    ++bins[std::size_t(std::find(epoch.tokens.begin(), epoch.tokens.end(), 1) - epoch.tokens.begin()) / 2];
  }
  for (int count : bins) EXPECT_NEAR(count, 1000, 150);
}

class Mixed : public Stream {
 protected:
  Mixed() {
    for (unsigned i = 0; i < 3; ++i) {
      corpora_.emplace_back(10 + i, 40 + 30 * int(i), 50, i == 0, i == 1);
      corpora_[i].write(path(i));
    }
  }
  std::string path(std::size_t i) { return folder_ / ("source" + std::to_string(i) + ".h5"); }
  std::vector<SourceSpec> specs(std::vector<double> weights) {
    std::vector<SourceSpec> specs;
    for (std::size_t i = 0; i < weights.size(); ++i) {
      if (weights[i] > 0) specs.push_back({path(i), "", weights[i]});
    }
    return specs;
  }
  std::vector<Corpus> corpora_;
};

TEST_F(Mixed, EachSourceIsWholeAndSharesHold) {
  SequenceStream stream(specs({5, 3, 2}), 48, 9);
  std::vector<PackedSequence> all = take(stream, 500, 7);
  std::array<std::int64_t, 3> count{};
  const std::array<double, 3> share{0.5, 0.3, 0.2};
  for (std::size_t n = 0; n < all.size(); ++n) {
    EXPECT_EQ(all[n].global_index, std::int64_t(n));
    ++count[std::size_t(all[n].source)];
    for (std::size_t i = 0; i < 3; ++i) ASSERT_LE(std::abs(double(count[i]) - share[i] * double(n + 1)), 1.0);
  }
  for (int i = 0; i < 3; ++i) {
    std::vector<PackedSequence> own;
    for (const PackedSequence& s : all) {
      if (s.source == i) own.push_back(s);
    }
    EXPECT_EQ(corpora_[std::size_t(i)].check(own), "") << i;
  }
}

TEST_F(Mixed, NumberOfShardsDoesNotMatter) {
  SequenceStream whole(specs({1, 2, 4}), 64, 3);
  const std::vector<PackedSequence> expected = take(whole, 96, 24);
  for (std::int64_t shards : {1, 2, 3, 8}) {
    std::vector<PackedSequence> all(expected.size()), some;
    for (std::int64_t shard = 0; shard < shards; ++shard) {
      SequenceStream stream(specs({1, 2, 4}), 64, 3);
      for (int call = 0; call < 4; ++call) {
        stream.next(24, shard, shards, some);
        EXPECT_EQ(std::int64_t(some.size()), 24 / shards);
        for (PackedSequence& sequence : some) all[std::size_t(sequence.global_index)] = sequence;
      }
      EXPECT_EQ(stream.state(), whole.state());
    }
    EXPECT_TRUE(all == expected) << shards;
  }
}

TEST_F(Mixed, ShardsMayChangeBetweenCalls) {
  SequenceStream whole(specs({1, 2, 4}), 64, 3), changing(specs({1, 2, 4}), 64, 3);
  const std::vector<PackedSequence> expected = take(whole, 60, 60);
  std::vector<PackedSequence> some;
  std::int64_t done = 0;
  for (std::int64_t shards : {1, 4, 2, 5, 1}) {
    changing.next(12, shards - 1, shards, some);
    for (const PackedSequence& sequence : some) EXPECT_TRUE(sequence == expected[std::size_t(sequence.global_index)]);
    EXPECT_EQ(some.empty() ? -1 : (some[0].global_index % shards), shards - 1);
    done += 12;
    EXPECT_EQ(changing.state().consumed_sequences, done);
  }
}

TEST_F(Mixed, ResumesFromEveryStateBitEqually) {
  SequenceStream stream(specs({0.5, 0.3, 0.2}), 64, 3);
  std::vector<PackedSequence> all, some;
  std::vector<StreamState> states{stream.state()};
  for (int call = 0; call < 40; ++call) {
    stream.next(3, 0, 1, some);
    all.insert(all.end(), some.begin(), some.end());
    states.push_back(stream.state());
  }
  for (std::size_t k = 0; k < states.size(); ++k) {
    Json json = Json::parse(to_json(states[k]).dump(), "state");  // as a checkpoint keeps it
    StreamState begin = stream_state_from(JsonView(json, "state"));
    ASSERT_TRUE(begin == states[k]) << k;
    SequenceStream resumed(specs({0.5, 0.3, 0.2}), 64, 3, begin);
    EXPECT_TRUE(resumed.state() == states[k]) << k;
    std::vector<PackedSequence> rest = take(resumed, std::int64_t(all.size() - 3 * k), 5);
    ASSERT_TRUE(std::equal(rest.begin(), rest.end(), all.begin() + std::ptrdiff_t(3 * k), all.end())) << k;
    EXPECT_TRUE(resumed.state() == states.back()) << k;
  }
}

// Stages: other lengths, weights and sources; each source goes on where it was, the shares count anew.
TEST_F(Mixed, StagesLoseNothing) {
  std::vector<std::vector<PackedSequence>> per_corpus(3);
  StreamState state;
  struct StageSpec {
    std::int64_t seq_length;
    std::vector<double> weights;
  };
  for (const StageSpec& stage : {StageSpec{48, {3, 2, 0}}, StageSpec{160, {0, 1, 1}}, StageSpec{48, {1, 0, 1}}, StageSpec{7, {1, 5, 1}}}) {
    SequenceStream stream(specs(stage.weights), stage.seq_length, 3, state);
    EXPECT_EQ(stream.state().sequences_since_mix_change, 0);
    for (const PackedSequence& sequence : take(stream, 50)) {
      per_corpus[std::size_t(stream.source_name(std::size_t(sequence.source)).back() - '0')].push_back(sequence);
    }
    state = stream.state();
    EXPECT_EQ(state.sequences_since_mix_change, 50);
    double sum = stage.weights[0] + stage.weights[1] + stage.weights[2];
    for (const SourceLedger& ledger : state.sources) {
      double weight = stage.weights[std::size_t(ledger.name.back() - '0')] / sum;
      EXPECT_EQ(ledger.weight, weight);
      EXPECT_LE(std::abs(double(ledger.sequences_in_mix) - 50 * weight), 1.0);
    }
  }
  EXPECT_EQ(state.consumed_sequences, 200);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(corpora_[i].check(per_corpus[i]), "") << i;
  state.begin_mix();
  EXPECT_EQ(SequenceStream(specs({1, 5, 1}), 7, 3, state).state().sequences_since_mix_change, 0);
}

// What is passed over is missing, and nothing else: the rest comes as ever, in every packing, by any number of ranks, from every state.
TEST_F(Mixed, SomeArePassedOver) {
  for (Packing packing : {Packing::sequential, Packing::best_fit}) {
    const auto stream_from = [&](const StreamState& begin) { return std::make_unique<SequenceStream>(specs({0.5, 0.3, 0.2}), 64, 3, begin, Order::shuffled, packing); };
    const auto whole = stream_from({});
    std::vector<PackedSequence> expected = take(*whole, 60), all, some;
    StreamState begin;
    for (const auto& [from, to] : {std::pair{9, 12}, std::pair{30, 31}, std::pair{27, 30}, std::pair{11, 15}}) begin.pass_over(from, to);
    EXPECT_EQ(begin.passed_over, (std::vector<PassedOver>{{9, 6}, {27, 4}}));
    expected.erase(expected.begin() + 27, expected.begin() + 31);
    expected.erase(expected.begin() + 9, expected.begin() + 15);
    std::int64_t padding = 0;
    for (std::size_t i = 0; i < expected.size(); ++i) expected[i].global_index = std::int64_t(i), padding += expected[i].padding;
    for (std::int64_t i : {0, 8, 9, 20, 21, 49}) EXPECT_EQ(begin.place_of(i), i < 9 ? i : i < 21 ? i + 6 : i + 10);

    const auto stream = stream_from(begin);
    std::vector<StreamState> states{stream->state()};
    for (int call = 0; call < 25; ++call) {
      const std::vector<SequenceContents> contents = stream->contents(2);
      stream->next(2, 0, 1, some);
      for (std::size_t i = 0; i < 2; ++i) EXPECT_EQ(contents[i].global_index, some[i].global_index);
      all.insert(all.end(), some.begin(), some.end());
      states.push_back(stream->state());
      EXPECT_EQ(states.back().sequences_since_mix_change, states.back().consumed_sequences);
    }
    EXPECT_TRUE(all == expected);
    EXPECT_EQ(states.back().padding(), padding);
    std::int64_t of_sources = 0;
    for (const SourceLedger& source : states.back().sources) of_sources += source.sequences;
    EXPECT_EQ(of_sources, 50);
    for (std::size_t k = 0; k < states.size(); ++k) {
      const Json json = Json::parse(to_json(states[k]).dump(), "state");
      const StreamState read = stream_state_from(JsonView(json, "state"));
      ASSERT_TRUE(read == states[k]);
      const auto resumed = stream_from(read);
      for (std::int64_t shard : {1, 0}) {
        const auto one = stream_from(read);
        one->next(std::int64_t(expected.size() - 2 * k), shard, 2, some);
        for (const PackedSequence& sequence : some) EXPECT_TRUE(sequence == expected[std::size_t(sequence.global_index)]);
        EXPECT_EQ(one->state(), states.back());
      }
      resumed->skip(std::int64_t(expected.size() - 2 * k));
      EXPECT_EQ(resumed->state(), states.back());
      StreamState forgotten = states[k];  // those ahead are given after all
      forgotten.forget_ahead();
      EXPECT_EQ(forgotten.passed_over.size(), states[k].consumed_sequences <= 9 ? 0u : states[k].consumed_sequences <= 21 ? 1u : 2u) << states[k].consumed_sequences;
    }
  }
  const Json overlapping = Json::parse(R"({"sequences_since_mix_change": 0, "consumed_sequences": 0, "sources": [], "passed_over": [
      {"begin": 3, "count": 2}, {"begin": 4, "count": 1}]})", "state");
  EXPECT_NE(complaint_of([&] { stream_state_from(JsonView(overlapping, "state")); }).find("passed_over[1] overlaps"), std::string::npos);
}

TEST_F(Mixed, WhatIsWrongWithTheSources) {
  auto complaint = [&](std::vector<SourceSpec> sources, std::int64_t seq_length = 64, StreamState begin = {}) {
    return complaint_of([&] { SequenceStream(std::move(sources), seq_length, 1, begin); });
  };
  auto contains = [](const std::string& text, const std::string& part) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
    EXPECT_EQ(text.find('\n'), std::string::npos) << text;
  };
  contains(complaint({}), "no data source");
  contains(complaint({{path(0), "", 0}}), "weight 0 must be");
  contains(complaint({{path(0), "", -1}}), "weight -1 must be");
  contains(complaint({{path(0), "", NAN}}), "weight nan must be");
  contains(complaint({{path(0), "x", 1},
                      {folder_ / "../" + std::filesystem::path(folder_ / "").parent_path().filename().string() + "/source0.h5", "y", 1}}),
           "given twice");
  contains(complaint({{path(0), "x", 1}, {path(1), "x", 1}}), "second source named 'x'");
  contains(complaint({{path(0), "", 1}}, 1 << 20),
           fmt::format("seq_length {} is longer than the whole dataset of {} tokens", 1 << 20, corpora_[0].tokens));
  contains(complaint({{path(0), "", 1}}, 0), "seq_length 0");
  contains(complaint({{folder_ / "nothing.h5", "", 1}}), "nothing.h5: cannot be opened");
  TokenDatasetWriter(folder_ / "empty.h5", {"tokenizer of the test", 1 << 22, 0, ""}).close();
  contains(complaint({{folder_ / "empty.h5", "", 1}}), "empty.h5: the dataset is empty");
  TokenDatasetWriter other(folder_ / "other.h5", {"another tokenizer", 300, 0, ""});
  other.add_document(std::vector<std::uint32_t>(100, 1));
  other.close();
  contains(complaint({{path(0), "", 1}, {folder_ / "other.h5", "", 1}}), "different tokenizers");
  SequenceStream stream({{path(0), "a", 1}}, 64, 1);
  contains(complaint({{path(1), "a", 1}}, 64, stream.state()), "give another dataset another name");
  contains(complaint_of([&] { check_vocabulary(folder_ / "other.h5", 256); }), "made with a vocabulary of 300 ids, the model's vocab_size is 256");
  EXPECT_EQ(complaint_of([&] { check_vocabulary(folder_ / "other.h5", 300); }), "");
}

// A file that goes bad while it is read: the trainer's thread gets the message, and a second try gets it again.
TEST_F(Stream, DamageIsReportedByNext) {
  Corpus corpus(4, 2000, 60);
  corpus.write(folder_ / "a.h5");
  {
    std::fstream file(folder_ / "a.h5", std::ios::in | std::ios::out | std::ios::binary);
    std::string bytes{std::istreambuf_iterator<char>(file), {}};
    const std::uint32_t pattern[2] = {20000, 20001};  // a place in the second chunk
    std::size_t at = bytes.find(std::string(reinterpret_cast<const char*>(pattern), sizeof pattern));
    ASSERT_NE(at, std::string::npos);
    file.seekp(std::streamoff(at));
    file.put('\x7f');
  }
  SequenceStream stream({{folder_ / "a.h5", "a", 1}}, 1000, 7, {}, Order::sequential);
  std::vector<PackedSequence> out;
  stream.next(10, 0, 1, out);
  EXPECT_EQ(corpus.check(out), "");
  for (int attempt = 0; attempt < 2; ++attempt) {
    std::string text = complaint_of([&] { stream.next(20, 0, 1, out); });
    EXPECT_NE(text.find("a.h5: /tokens"), std::string::npos) << text;
    EXPECT_NE(text.find("checksum"), std::string::npos) << text;
  }
}

// Roles at reading time are the same mask as one in the file; of both, what both leave counts.
TEST(LossRoles, AreALossMask) {
  ScratchFolder folder;
  const RoleSet wanted{Role::other, Role::thought, Role::answer};
  for (bool masked : {false, true}) {
    Corpus corpus(11, 40, 60, true, masked);
    corpus.write(folder / "roles.h5");
    Corpus same = corpus;
    same.masked = true;
    for (std::size_t d = 0; d < same.documents.size(); ++d)
      for (std::size_t i = 0; i < same.documents[d].size(); ++i)
        same.counted[d][i] = std::uint8_t(same.counted[d][i] && wanted.has(Role(same.roles[d][i])));
    TokenDatasetWriter writer(folder / "mask.h5", {"tokenizer of the test", 1 << 22, 0, "random"});
    for (std::size_t d = 0; d < same.documents.size(); ++d) {
      std::vector<RoleRun> roles;
      std::vector<TokenRange> ranges;
      for (std::int64_t i = 0; i < std::int64_t(same.documents[d].size()); ++i) {
        if (same.roles[d][std::size_t(i)] != 0) roles.push_back({i, i + 1, Role(same.roles[d][std::size_t(i)])});
        if (same.counted[d][std::size_t(i)]) ranges.push_back({i, i + 1});
      }
      writer.add_document(same.documents[d], roles, &ranges);
    }
    writer.close();
    for (Packing packing : {Packing::sequential, Packing::best_fit}) {
      SequenceStream by_role({{folder / "roles.h5", "a", 1}}, 48, 5, {}, Order::shuffled, packing, wanted);
      SequenceStream by_mask({{folder / "mask.h5", "a", 1}}, 48, 5, {}, Order::shuffled, packing);
      SequenceStream all({{folder / "roles.h5", "a", 1}}, 48, 5, {}, Order::shuffled, packing);
      const std::vector<PackedSequence> some = take(by_role, 60);
      EXPECT_EQ(some, take(by_mask, 60));
      EXPECT_NE(some, take(all, 60));
    }
  }
}

}  // namespace
}  // namespace af
