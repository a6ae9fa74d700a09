#include "data/batch_stream.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <set>

#include "core/error.h"
#include "data/token_dataset.h"

namespace af {

// An open dataset with its order. fill() belongs to one thread; the rest may be asked by another meanwhile.
class SourceReader {
 public:
  SourceReader(const SourceSpec& spec, std::int64_t seq_length, std::uint64_t seed, Order order)
      : name(spec.name), dataset(non_empty(spec, seq_length)), plan(dataset.offsets(), seed, name, order) {}

  void fill(const SourcePlan::Pick& pick, std::int64_t seq_length, const std::optional<RoleSet>& loss_roles, PackedSequence& out) {
    const std::size_t room = std::size_t(seq_length) + 1;  // the last target may stand behind the sequence
    tokens_.resize(room), mask_.resize(room), roles_.resize(room);
    out.tokens.resize(std::size_t(seq_length)), out.targets.resize(std::size_t(seq_length));
    out.positions.resize(std::size_t(seq_length)), out.roles.resize(std::size_t(seq_length));
    out.document_begins.assign(1, 0);
    plan.pieces(pick, seq_length, pieces_);
    std::int64_t done = 0;
    for (const Piece& piece : pieces_) {
      const std::int64_t begin = dataset.offsets()[std::size_t(piece.document)] + piece.offset;
      const std::int64_t end = dataset.offsets()[std::size_t(piece.document) + 1];
      const std::int64_t known = std::min(piece.count + 1, end - begin);  // with the next token, where the document has one
      dataset.read(begin, known, tokens_.data());
      if (dataset.has_loss_mask()) dataset.read_loss_mask(begin, known, mask_.data());
      if (dataset.has_roles()) dataset.read_roles(begin, known, roles_.data());
      for (std::int64_t i = 0; i < piece.count; ++i) {
        out.tokens[std::size_t(done + i)] = std::int32_t(tokens_[std::size_t(i)]);
        out.positions[std::size_t(done + i)] = std::int32_t(i);
      }
      for (std::int64_t i = 0; i < piece.count; ++i) {
        const std::uint8_t role = i + 1 < known && dataset.has_roles() ? roles_[std::size_t(i) + 1] : 0;
        const bool counted = i + 1 < known && (!dataset.has_loss_mask() || mask_[std::size_t(i) + 1]) && (!loss_roles || loss_roles->has(Role(role)));
        out.targets[std::size_t(done + i)] = counted ? std::int32_t(tokens_[std::size_t(i) + 1]) : -1;
        out.roles[std::size_t(done + i)] = role;
      }
      out.document_begins.push_back(done += piece.count);
    }
    out.padding = seq_length - done;
    if (out.padding > 0) out.document_begins.push_back(seq_length);
    for (std::int64_t i = done; i < seq_length; ++i) {
      out.tokens[std::size_t(i)] = std::int32_t(dataset.info().eod_token_id);
      out.targets[std::size_t(i)] = -1;
      out.positions[std::size_t(i)] = std::int32_t(i - done);
      out.roles[std::size_t(i)] = 0;
    }
  }

  const std::string name;
  TokenDataset dataset;
  const SourcePlan plan;

 private:
  static TokenDataset non_empty(const SourceSpec& spec, std::int64_t seq_length) {
    TokenDataset dataset(spec.path);
    if (dataset.num_documents() == 0) user_error("{}: the dataset is empty", spec.path);
    if (dataset.num_tokens() < seq_length) {
      user_error("{}: seq_length {} is longer than the whole dataset of {} tokens in {} documents", spec.path, seq_length, dataset.num_tokens(),
                 dataset.num_documents());
    }
    return dataset;
  }
  std::vector<Piece> pieces_;          // of one sequence
  std::vector<std::uint32_t> tokens_;  // of one piece of a document
  std::vector<std::uint8_t> mask_, roles_;
};

namespace {

constexpr std::int64_t kBytesAhead = 64 << 20;  // most that is read ahead, two sequences excepted

std::vector<SourceSpec> checked(std::vector<SourceSpec> sources) {
  if (sources.empty()) user_error("there is no data source");
  double sum = 0;
  std::set<std::string> files, names;
  for (SourceSpec& source : sources) {
    if (source.name.empty()) source.name = std::filesystem::path(source.path).stem().string();
    if (!std::isfinite(source.weight) || source.weight <= 0) {
      user_error("{}: weight {} must be a number above 0 (leave the source out to read nothing of it)", source.path, source.weight);
    }
    std::error_code ignored;
    std::filesystem::path file = std::filesystem::weakly_canonical(source.path, ignored);
    if (!files.insert(ignored ? source.path : file.string()).second)
      user_error("{}: given twice in one mix; give it once with the sum of the weights", source.path);
    if (!names.insert(source.name).second) user_error("{}: a second source named '{}'; give each a 'name' of its own", source.path, source.name);
    sum += source.weight;
  }
  for (SourceSpec& source : sources) source.weight /= sum;
  return sources;
}

}  // namespace

void check_vocabulary(const std::string& path, std::int64_t model_vocab_size) {
  std::int64_t vocab_size = read_token_dataset_info(path).vocab_size;
  if (vocab_size > model_vocab_size) {
    user_error("{}: made with a vocabulary of {} ids, the model's vocab_size is {}; use the model's tokenizer or a vocab_size of at least {}", path,
               vocab_size, model_vocab_size, vocab_size);
  }
}

SequenceStream::SequenceStream(std::vector<SourceSpec> sources, std::int64_t seq_length, std::uint64_t seed, const StreamState& begin, Order order,
                               Packing packing, std::optional<RoleSet> loss_roles)
    : seq_length_(seq_length),
      packing_(packing),
      loss_roles_(loss_roles),
      passed_over_(begin.passed_over),
      given_{Mixture({1.0}), begin.consumed_sequences, 0, {}, {}, 0, 0},
      ahead_(given_) {
  if (seq_length < 1) user_error("seq_length {} must be at least 1", seq_length);
  sources = checked(std::move(sources));
  earlier_ = begin.sources;
  std::vector<std::int64_t> taken;
  bool same_mix = true;
  for (const SourceSpec& source : sources) {
    readers_.push_back(std::make_unique<SourceReader>(source, seq_length, seed, order));
    const TokenDataset& dataset = readers_.back()->dataset;
    const TokenDataset& first = readers_.front()->dataset;
    if (dataset.info().tokenizer_sha256 != first.info().tokenizer_sha256) {
      user_error("{} and {} were made with different tokenizers ({:.8} and {:.8})", first.path(), dataset.path(), first.info().tokenizer_sha256,
                 dataset.info().tokenizer_sha256);
    }
    auto known = std::find_if(earlier_.begin(), earlier_.end(), [&](const SourceLedger& ledger) { return ledger.name == source.name; });
    SourceLedger ledger = known != earlier_.end() ? *known : SourceLedger{};
    if (known != earlier_.end()) {
      if (ledger.dataset_tokens != dataset.num_tokens() || ledger.dataset_documents != dataset.num_documents()) {
        user_error("{}: the source '{}' had {} tokens in {} documents when the run was saved, now {} in {}; give another dataset another name",
                   source.path, source.name, ledger.dataset_tokens, ledger.dataset_documents, dataset.num_tokens(), dataset.num_documents());
      }
      earlier_.erase(known);
    }
    same_mix = same_mix && ledger.weight == source.weight;
    weights_.push_back(source.weight);
    taken.push_back(ledger.sequences_in_mix);
    given_.cursors.push_back({ledger.tokens, ledger.padding_in_mix, ledger.window, nullptr});
    readers_.back()->plan.change(given_.cursors.back(), packing, seq_length);
    given_.sequences.push_back(ledger.sequences);
  }
  for (SourceLedger& ledger : earlier_) {
    same_mix = same_mix && ledger.weight == 0;
    ledger.weight = 0, ledger.sequences_in_mix = 0, ledger.padding_in_mix = 0;
  }
  for (SourcePlan::Cursor& cursor : given_.cursors) cursor.padding = same_mix ? cursor.padding : 0;
  given_.mixture = Mixture(weights_, same_mix ? taken : std::vector<std::int64_t>());
  given_.consumed_in_mix = same_mix ? begin.sequences_since_mix_change : 0;
  // A range has been passed when the sequence behind it was given.
  for (; given_.next_range < passed_over_.size() && given_.consumed + given_.passed > passed_over_[given_.next_range].begin; ++given_.next_range)
    given_.passed += passed_over_[given_.next_range].count;
  thread_ = std::thread([this] { read_ahead(); });
}

SequenceStream::~SequenceStream() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wanted_.notify_all();
  thread_.join();
}

// It is their turn, in the mix and in their source, but nobody gets them.
void SequenceStream::pass_over(Plan& plan) const {
  const PassedOver& range = passed_over_[plan.next_range++];
  for (std::int64_t i = 0; i < range.count; ++i) {
    const std::size_t source = plan.mixture.next();
    SourcePlan::Cursor& cursor = plan.cursors[source];
    const std::int64_t padding = cursor.padding;
    readers_[source]->plan.advance(cursor, packing_, seq_length_);
    cursor.padding = padding;  // of what was given
  }
  plan.passed += range.count;
}

SequenceStream::Pick SequenceStream::advance(Plan& plan) const {
  while (plan.next_range < passed_over_.size() && plan.consumed + plan.passed == passed_over_[plan.next_range].begin) pass_over(plan);
  std::size_t source = plan.mixture.next();
  ++plan.sequences[source];
  ++plan.consumed_in_mix;
  return {plan.consumed++, source, readers_[source]->plan.advance(plan.cursors[source], packing_, seq_length_)};
}

std::int64_t SequenceStream::sequences_ahead(std::int64_t own, std::int64_t seq_length) {
  return std::min(std::max<std::int64_t>(2, 2 * own), std::max<std::int64_t>(2, kBytesAhead / (13 * seq_length)));
}

void SequenceStream::next(std::int64_t count, std::int64_t shard, std::int64_t num_shards, std::vector<PackedSequence>& out) {
  AF_CHECK(count >= 0 && shard >= 0 && shard < num_shards, "{} sequences, shard {} of {}", count, shard, num_shards);
  std::size_t own = 0;  // how many of the next `count` belong to this shard
  for (std::int64_t i = 0; i < count; ++i) own += (given_.consumed + i) % num_shards == shard;
  out.resize(own);
  std::unique_lock lock(mutex_);
  const std::size_t depth = std::size_t(sequences_ahead(std::int64_t(own), seq_length_));
  if (shard != shard_ || num_shards != num_shards_ || depth > slots_.size()) {  // what was read ahead is not what is asked for now
    shard_ = -1;                                                                // it shall begin nothing new
    filled_.wait(lock, [this] { return !filling_; });
    shard_ = shard, num_shards_ = num_shards;
    first_ = ready_ = 0;
    slots_.resize(std::max(depth, slots_.size()));
    ahead_ = given_;
    failure_ = nullptr;
    wanted_.notify_one();
  }
  for (PackedSequence& sequence : out) {
    filled_.wait(lock, [this] { return ready_ > 0 || failure_; });
    if (ready_ == 0) {
      shard_ = -1;  // the next call tries again from where this one began
      std::rethrow_exception(failure_);
    }
    std::swap(sequence, slots_[first_]);  // the caller's old memory goes back into the ring
    first_ = (first_ + 1) % slots_.size();
    --ready_;
    wanted_.notify_one();
  }
  lock.unlock();
  for (std::int64_t i = 0; i < count; ++i) advance(given_);
}

void SequenceStream::read_ahead() {
  std::unique_lock lock(mutex_);
  while (true) {
    wanted_.wait(lock, [this] { return stopping_ || (shard_ >= 0 && ready_ < slots_.size() && !failure_); });
    if (stopping_) return;
    PackedSequence& slot = slots_[(first_ + ready_) % slots_.size()];
    const std::int64_t shard = shard_, num_shards = num_shards_;
    filling_ = true;
    lock.unlock();
    std::exception_ptr failure;
    try {
      Pick pick = advance(ahead_);
      while (pick.global_index % num_shards != shard) pick = advance(ahead_);
      readers_[pick.source]->fill(pick.of_source, seq_length_, loss_roles_, slot);
      slot.source = int(pick.source);
      slot.global_index = pick.global_index;
    } catch (...) {
      failure = std::current_exception();
    }
    lock.lock();
    filling_ = false;
    failure_ = failure;
    ready_ += failure ? 0 : 1;
    filled_.notify_one();
  }
}

void SequenceStream::skip(std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) advance(given_);
  std::lock_guard lock(mutex_);
  shard_ = -1;  // what was read ahead is not what comes next
}

std::vector<SequenceContents> SequenceStream::contents(std::int64_t count) {
  std::vector<SequenceContents> all;
  std::vector<Piece> pieces;
  Plan plan = given_;
  for (std::int64_t i = 0; i < count; ++i) {
    const Pick pick = advance(plan);
    const SourcePlan& source = readers_[pick.source]->plan;
    source.pieces(pick.of_source, seq_length_, pieces);
    SequenceContents sequence{pick.global_index, int(pick.source), {}, seq_length_};
    for (const Piece& piece : pieces) {
      sequence.parts.push_back({piece.position / source.tokens_per_epoch(), piece.document, piece.offset, piece.offset + piece.count});
      sequence.padding -= piece.count;
    }
    all.push_back(std::move(sequence));
  }
  return all;
}

StreamState SequenceStream::state() const {
  StreamState state{given_.consumed_in_mix, given_.consumed, {}, passed_over_};
  for (std::size_t i = 0; i < readers_.size(); ++i) {
    const SourceReader& reader = *readers_[i];
    const SourcePlan::Cursor& cursor = given_.cursors[i];
    SourceLedger ledger;
    ledger.name = reader.name;
    ledger.sequences = given_.sequences[i];
    ledger.tokens = cursor.tokens;
    ledger.documents = reader.plan.documents_done(cursor);
    ledger.epochs = ledger.documents / reader.dataset.num_documents();
    ledger.window = cursor.window;
    ledger.weight = weights_[i];
    ledger.sequences_in_mix = given_.mixture.taken()[i];
    ledger.padding_in_mix = cursor.padding;
    ledger.dataset_tokens = reader.dataset.num_tokens();
    ledger.dataset_documents = reader.dataset.num_documents();
    state.sources.push_back(ledger);
  }
  state.sources.insert(state.sources.end(), earlier_.begin(), earlier_.end());
  return state;
}

const std::string& SequenceStream::source_name(std::size_t source) const { return readers_.at(source)->name; }

std::int64_t SequenceStream::sequences_per_epoch(std::size_t source) const { return readers_.at(source)->dataset.num_tokens() / seq_length_; }

}  // namespace af
