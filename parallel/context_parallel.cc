#include "parallel/context_parallel.h"

#include <algorithm>

#include "core/ops/elementwise.h"
#include "core/ops/moe.h"

namespace af {
namespace {

// Where in [begin, end) ranges, laid one after the other, the global row stands.
struct Ranges {
  std::vector<Range> ranges;  // ascending, disjoint
  std::vector<std::int64_t> offsets;
  std::int64_t size = 0;
  void add(Range r) {
    if (!ranges.empty() && r.begin <= ranges.back().end) {
      if (r.end > ranges.back().end) size += r.end - ranges.back().end, ranges.back().end = r.end;
      return;
    }
    ranges.push_back(r);
    offsets.push_back(size);
    size += r.size();
  }
  std::int64_t index_of(std::int64_t row) const {
    auto after = std::upper_bound(ranges.begin(), ranges.end(), row, [](std::int64_t value, const Range& r) { return value < r.begin; });
    std::size_t i = std::size_t(after - ranges.begin()) - 1;
    return offsets[i] + row - ranges[i].begin;
  }
};

// Rows of the whole micro-batch that a rank holds, as they follow each other there.
std::vector<Range> held(std::int64_t sequences, std::int64_t seq_length, int ranks, int rank) {
  std::vector<Range> rows;
  for (std::int64_t s = 0; s < sequences; ++s)
    for (Range c : context_chunks(seq_length, ranks, rank)) rows.push_back({s * seq_length + c.begin, s * seq_length + c.end});
  return rows;
}

// The first row of the document that holds `row`; `row` itself where none does.
std::int64_t document_begin(std::span<const AttentionSegment> documents, std::int64_t row) {
  auto after = std::upper_bound(documents.begin(), documents.end(), row, [](std::int64_t value, const AttentionSegment& d) { return value < d.q_begin; });
  if (after == documents.begin()) return row;
  const AttentionSegment& d = *(after - 1);
  return row < d.q_end ? d.q_begin : row;
}

Ranges needed(std::span<const AttentionSegment> documents, const std::vector<Range>& rows) {
  Ranges all;
  for (Range r : rows) all.add({document_begin(documents, r.begin), r.end});
  return all;
}

template <class F>
void for_common(const std::vector<Range>& rows, const Ranges& wanted, F f) {  // f(global begin, end, index in rows)
  std::int64_t at = 0;
  for (Range r : rows) {
    for (const Range& w : wanted.ranges) {
      std::int64_t begin = std::max(r.begin, w.begin), end = std::min(r.end, w.end);
      if (begin < end) f(begin, end, at + begin - r.begin);
    }
    at += r.size();
  }
}

Shape with_rows(const Tensor& x, std::int64_t rows) {
  Shape shape = x.shape;
  shape.dims[0] = rows;
  return shape;
}

Tensor indices(const std::vector<std::int32_t>& values, const Shape& shape) {
  return Tensor(const_cast<std::int32_t*>(values.data()), DType::i32, shape);
}

Tensor gathered(const Context& context, const Tensor& x, const std::vector<std::int32_t>& source) {
  Tensor out = context.scratch.tensor(with_rows(x, std::int64_t(source.size())), x.dtype);
  permute_rows(context, x, indices(source, {std::int64_t(source.size())}), 1, out);
  return out;
}

}  // namespace

std::vector<Range> context_chunks(std::int64_t seq_length, int ranks, int rank) {
  if (ranks == 1) return {{0, seq_length}};
  std::int64_t chunk = seq_length / (2 * ranks), last = 2 * ranks - 1 - rank;
  return {{rank * chunk, (rank + 1) * chunk}, {last * chunk, (last + 1) * chunk}};
}

void ContextPlan::make(std::span<const AttentionSegment> documents, std::int64_t sequences, std::int64_t seq_length, int ranks, int rank) {
  std::vector<Range> own = held(sequences, seq_length, ranks, rank);
  Ranges keys = needed(documents, own);
  std::int64_t local_rows = sequences * seq_length / ranks;
  key_rows = keys.size;
  send_rows.assign(std::size_t(ranks), 0);
  receive_rows.assign(std::size_t(ranks), 0);
  send.clear();
  key_of.assign(std::size_t(key_rows), 0);
  received_at.assign(std::size_t(key_rows), 0);
  moves = false;
  std::int64_t received = 0;
  std::vector<std::vector<std::int32_t>> copies_of(static_cast<std::size_t>(local_rows));
  for (int other = 0; other < ranks; ++other) {
    std::vector<Range> theirs = held(sequences, seq_length, ranks, other);
    Ranges their_keys = needed(documents, theirs);
    std::int64_t own_rows = 0;
    for (Range r : theirs) own_rows += r.size();
    moves = moves || their_keys.size > own_rows;
    for_common(own, their_keys, [&](std::int64_t begin, std::int64_t end, std::int64_t at) {
      for (std::int64_t row = begin; row < end; ++row, ++at) {
        copies_of[std::size_t(at)].push_back(std::int32_t(send.size()));
        send.push_back(std::int32_t(at));
        ++send_rows[std::size_t(other)];
      }
    });
    for_common(theirs, keys, [&](std::int64_t begin, std::int64_t end, std::int64_t) {
      for (std::int64_t row = begin; row < end; ++row) {
        std::int64_t key = keys.index_of(row);
        received_at[std::size_t(key)] = std::int32_t(received);
        key_of[std::size_t(received)] = std::int32_t(key);
        ++received;
        ++receive_rows[std::size_t(other)];
      }
    });
  }
  AF_CHECK(received == key_rows, "context parallelism: {} rows come for {} keys", received, key_rows);

  copies = 0;
  for (const auto& c : copies_of) copies = std::max(copies, std::int64_t(c.size()));
  returned.assign(std::size_t(local_rows * copies), std::int32_t(send.size()));
  for (std::size_t row = 0; row < copies_of.size(); ++row)
    std::copy(copies_of[row].begin(), copies_of[row].end(), returned.begin() + std::int64_t(row) * copies);

  segments.clear();
  std::int64_t at = 0;
  for (Range r : own) {
    for (const AttentionSegment& d : documents) {
      std::int64_t begin = std::max(r.begin, d.q_begin), end = std::min(r.end, d.q_end);
      if (begin >= end) continue;
      std::int64_t first_key = keys.index_of(d.q_begin), last_key = keys.index_of(end - 1);
      segments.push_back({at + begin - r.begin, at + end - r.begin, first_key, last_key + 1});
    }
    at += r.size();
  }
}

KeyExchange::KeyExchange(const Context& context, const Comm& cp, const ContextPlan& plan, const Tensor& x) : context_(context), plan_(plan) {
  sent_ = gathered(context, x, plan.send);
  received_ = sent_;
  if (!plan.moves) return;  // what this rank needs is what it holds
  received_ = context.scratch.tensor(with_rows(x, plan.key_rows), x.dtype);
  pending_ = cp.all_to_all_v(sent_, plan.send_rows, received_, plan.receive_rows);
}

Tensor KeyExchange::wait() {
  pending_.wait();
  return gathered(context_, received_, plan_.received_at);
}

KeyGradientExchange::KeyGradientExchange(const Context& context, const Comm& cp, const ContextPlan& plan, const Tensor& d_keys)
    : context_(context), plan_(plan) {
  sent_ = gathered(context, d_keys, plan.key_of);
  std::int64_t rows = std::int64_t(plan.send.size());
  received_ = context.scratch.tensor(with_rows(d_keys, rows + 1), d_keys.dtype);
  fill(context, received_.slice_rows(rows, rows + 1), 0);
  Tensor into = received_.slice_rows(0, rows);
  if (plan.moves) pending_ = cp.all_to_all_v(sent_, plan.receive_rows, into, plan.send_rows);
  else convert(context, sent_, into);
}

void KeyGradientExchange::wait(const Tensor& dx) {
  pending_.wait();
  unpermute_sum(context_, received_, indices(plan_.returned, {dx.rows(), plan_.copies}), {}, dx);
}

}  // namespace af
