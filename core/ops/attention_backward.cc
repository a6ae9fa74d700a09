// Backward. A unit of work is a block of keys of one key head; it walks over the queries that see them, with
//   P = exp(scale Q K^T - lse);  dP = dO V^T;  dS = scale P (dP - rowsum(dO O))
//   dV += P^T dO;  dK += dS^T Q;  dQ += dS K
// five matmuls for a pair of blocks. dK and dV stay with the unit; dQ gets its addends in the order of the key blocks:
// a unit waits until the one before has added. Units are begun in that order, so that the oldest unfinished never waits.
// Nothing depends on the number of threads, and one long document keeps as many busy as it has blocks of keys.
#include <omp.h>
#include <sched.h>

#include <atomic>
#include <numbers>

#include "core/ops/attention_segments.h"
#include "core/ops/matmul_microkernel.h"

namespace af {
namespace {
using attention::kKeys;
using attention::Segment;
using attention::take;
using simd::kLanes;
using simd::kRows;
using simd::Vector;

constexpr std::int64_t kQueries = 9 * kRows;  // rows of a block of queries

struct Work {  // keys begin..end belong to segments first..last, whose key ranges hang together; `first_key` is where these begin
  std::int64_t first, last, first_key, begin, end;
};

template <class T>
struct Scratch {                // of one thread
  T *keys_t, *values_t, *keys;  // K^T and V^T [D, kKeys], K [kKeys, D], packed
  T *d_keys, *d_values;         // [kKeys, padded D]
  T *queries, *d_o;             // [kQueries, padded D]
  T *p, *d_s;                   // [kQueries, kKeys]
};

// One row: p = exp2(factor * p - lse2) and d_s = scale * p * (d_s - delta) for columns low..high, 0 elsewhere in 0..cols (whole vectors).
template <class T>
void softmax_row_backward(T* p, T* d_s, std::int64_t low, std::int64_t high, std::int64_t cols, T factor, T lse2, T scale, T delta) {
  constexpr int L = kLanes<T>;
  for (std::int64_t j = 0; j < cols; j += L) {
    Vector<T> pv = {}, dv = {};
    if (j < high && j + L > low) {
      pv = simd::exp2<T>(simd::load(p + j) * factor - lse2);
      dv = pv * (simd::load(d_s + j) - delta) * scale;
      if (j < low || j + L > high) {
        const simd::Mask<T> seen = simd::first_lanes<T>(high - j) & ~simd::first_lanes<T>(low - j);
        pv = seen ? pv : Vector<T>{}, dv = seen ? dv : Vector<T>{};
      }
    }
    simd::store(p + j, pv);
    simd::store(d_s + j, dv);
  }
}

template <class T, class S>
struct Backward {
  Tensor d_o, q, k, v, o, lse, dq, dk, dv;
  Tensor sum_dq;  // where dQ is summed: dq itself, or memory in T [Tq, Hq * D]
  double scale;
  std::span<const Segment> segments;      // in the order of their keys
  std::span<std::int64_t> first_counter;  // of each segment
  std::span<std::int32_t> counters;       // per segment, block of queries and head: how many blocks of keys have been added
  std::int64_t heads = q.shape[1], key_heads = k.shape[1], group = heads / key_heads, dim = q.shape[2], width = simd::padded<T>(dim);
  std::int64_t step = micro::group_rows(int(width / kLanes<T>));  // rows that go through a product together

  static const S* at(const Tensor& x, std::int64_t row, std::int64_t head) {
    return static_cast<const S*>(x.data) + row * x.stride + head * x.shape[2];
  }
  static S* out(const Tensor& x, std::int64_t row, std::int64_t head) { return static_cast<S*>(x.data) + row * x.stride + head * x.shape[2]; }

  void wait(std::int64_t counter, std::int32_t value) const {
    std::atomic_ref<std::int32_t> added(counters[std::size_t(counter)]);
    for (int spins = 0; added.load(std::memory_order_acquire) != value; ++spins)
      if (spins > 2000) sched_yield();
  }

  // One block of queries (rows begin.. of the segment) of one head against the unit's block of keys.
  void pair(const Segment& s, std::int64_t counter, std::int64_t begin, std::int64_t head, const Work& work, const micro::Right<T>& keys_t,
            const micro::Right<T>& values_t, const micro::Right<T>& keys, const Scratch<T>& scratch) const {
    const std::int64_t rows = std::min(kQueries, s.queries() - begin), row = s.q_begin + begin, count = work.end - work.begin;
    micro::load_rows(at(q, row, head), q.stride, rows, dim, scratch.queries, width);
    micro::load_rows(at(d_o, row, head), d_o.stride, rows, dim, scratch.d_o, width);

    // Keys are counted from the block's begin: row i sees low .. high(i).
    const std::int64_t offset = work.begin - s.k_begin, low = std::max<std::int64_t>(0, -offset);
    const auto high = [&](std::int64_t i) { return std::min(count, s.visible(begin + i) - offset); };
    const std::int64_t cols = simd::padded<T>(count);
    const micro::Groups groups(rows, int(step)), key_groups(count, int(step));
    const T factor = T(scale * std::numbers::log2e);
    std::int64_t start = rows;  // the first row that sees any key, of its group of rows
    for (std::int64_t part = 0; part < groups.count; ++part) {
      const std::int64_t i0 = groups.begin(part), i1 = groups.begin(part + 1), seen = simd::padded<T>(std::max<std::int64_t>(0, high(i1 - 1)));
      if (high(i1 - 1) <= low) continue;
      start = std::min(start, i0);
      T *p = scratch.p + i0 * kKeys<T>, *d_s = scratch.d_s + i0 * kKeys<T>;
      micro::multiply(i1 - i0, seen, dim, micro::Left<T>{scratch.queries + i0 * width, width, 1}, keys_t, p, kKeys<T>, false);
      micro::multiply(i1 - i0, seen, dim, micro::Left<T>{scratch.d_o + i0 * width, width, 1}, values_t, d_s, kKeys<T>, false);
      for (std::int64_t i = i0; i < i1; ++i, p += kKeys<T>, d_s += kKeys<T>) {
        const T lse2 = lse.as<T>()[(row + i) * lse.stride + head] * std::numbers::log2e_v<T>;
        softmax_row_backward(p, d_s, low, std::max(low, high(i)), cols, factor, lse2, T(scale), delta(row + i, head, scratch.d_o + i * width));
      }
    }

    // Keys of a group are first seen by row `from`: with causal blocks on the diagonal half of the work is skipped.
    for (std::int64_t part = low / step; part < key_groups.count; ++part) {
      const std::int64_t m0 = key_groups.begin(part), m1 = key_groups.begin(part + 1);
      const std::int64_t from = std::max(start, s.first_row_that_sees(m0 + offset) - begin);
      if (from >= rows) break;
      const micro::Right<T> right_o{scratch.d_o + from * width, rows - from, width, width},
          right_q{scratch.queries + from * width, rows - from, width, width};
      const std::int64_t corner = from * kKeys<T> + m0;
      micro::multiply(m1 - m0, width, rows - from, micro::Left<T>{scratch.p + corner, 1, kKeys<T>}, right_o, scratch.d_values + m0 * width, width,
                      true);
      micro::multiply(m1 - m0, width, rows - from, micro::Left<T>{scratch.d_s + corner, 1, kKeys<T>}, right_q, scratch.d_keys + m0 * width, width,
                      true);
    }

    // The segment's first block of keys overwrites dQ: all rows see its first key.
    const std::int32_t turn = std::int32_t((work.begin - work.first_key) / kKeys<T> - (s.k_begin - work.first_key) / kKeys<T>);
    if (turn > 0) wait(counter, turn);
    T* sum = static_cast<T*>(sum_dq.data) + row * sum_dq.stride + head * dim;
    for (std::int64_t part = 0; part < groups.count; ++part) {
      const std::int64_t i0 = groups.begin(part), i1 = groups.begin(part + 1);
      if (high(i1 - 1) <= low) continue;
      micro::multiply(i1 - i0, dim, high(i1 - 1), micro::Left<T>{scratch.d_s + i0 * kKeys<T>, kKeys<T>, 1}, keys, sum + i0 * sum_dq.stride,
                      sum_dq.stride, turn > 0);
    }
    if (sizeof(S) != sizeof(T) && s.visible(begin + rows - 1) <= offset + count) {  // the last addend: round
      micro::store_rows(sum, sum_dq.stride, rows, dim, out(dq, row, head), dq.stride);
    }
    std::atomic_ref<std::int32_t>(counters[std::size_t(counter)]).store(turn + 1, std::memory_order_release);
  }

  // rowsum(dO O)
  T delta(std::int64_t row, std::int64_t head, const T* d_o_row) const {
    constexpr int L = kLanes<T>;
    const S* from = at(o, row, head);
    Vector<T> sum = {};
    const std::int64_t whole = dim / L * L;
    for (std::int64_t d = 0; d < whole; d += L) sum += simd::load(d_o_row + d) * simd::load(from + d);
    if (whole < dim) sum += simd::load(d_o_row + whole) * simd::load_first(from + whole, int(dim - whole));
    return simd::sum<T>(sum);
  }

  void block(const Work& work, std::int64_t key_head, const Scratch<T>& scratch) const {
    const std::int64_t count = work.end - work.begin;
    const micro::Right<T> keys_t = micro::pack_columns(at(k, work.begin, key_head), k.stride, dim, count, scratch.keys_t);
    const micro::Right<T> values_t = micro::pack_columns(at(v, work.begin, key_head), v.stride, dim, count, scratch.values_t);
    const micro::Right<T> keys = micro::pack_rows(at(k, work.begin, key_head), k.stride, count, dim, scratch.keys);
    std::fill_n(scratch.d_keys, count * width, T(0));
    std::fill_n(scratch.d_values, count * width, T(0));
    for (std::int64_t i = work.first; i < work.last; ++i) {
      const Segment& s = segments[std::size_t(i)];
      if (s.k_begin >= work.end || s.k_end <= work.begin) continue;
      const std::int64_t first_block = s.first_row_that_sees(work.begin - s.k_begin) / kQueries;
      for (std::int64_t b = first_block; b * kQueries < s.queries(); ++b)
        for (std::int64_t h = key_head * group; h < (key_head + 1) * group; ++h)
          pair(s, first_counter[std::size_t(i)] + b * heads + h, b * kQueries, h, work, keys_t, values_t, keys, scratch);
    }
    micro::store_rows(scratch.d_keys, width, count, dim, out(dk, work.begin, key_head), dk.stride);
    micro::store_rows(scratch.d_values, width, count, dim, out(dv, work.begin, key_head), dv.stride);
  }

  static void zero_rows(const Tensor& x, std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) std::fill_n(out(x, i, 0), x.cols(), S{});
  }

  void run(const Context& context) {
    // Rows in no segment. Then segments by their keys, in clusters that overlap.
    std::span<Segment> by_keys = take<Segment>(context.scratch, std::int64_t(segments.size()));
    std::int64_t done = 0;
    for (std::size_t i = 0; i < segments.size(); ++i) {
      zero_rows(dq, done, segments[i].q_begin);
      done = segments[i].q_end;
      by_keys[i] = segments[i];
    }
    zero_rows(dq, done, dq.rows());
    std::sort(by_keys.begin(), by_keys.end(),
              [](const Segment& a, const Segment& b) { return a.k_begin != b.k_begin ? a.k_begin < b.k_begin : a.q_begin < b.q_begin; });
    segments = by_keys;

    const std::int64_t most_blocks = k.rows() / kKeys<T> + std::int64_t(segments.size());
    std::span<Work> work = take<Work>(context.scratch, most_blocks);
    first_counter = take<std::int64_t>(context.scratch, std::int64_t(segments.size()));
    std::size_t blocks = 0;
    std::int64_t counter = 0, last_key = 0;
    for (std::size_t first = 0, last; first < segments.size(); first = last) {
      std::int64_t end = segments[first].k_begin;
      for (last = first; last < segments.size() && (last == first || segments[last].k_begin < end); ++last) {
        end = std::max(end, segments[last].k_end);
        first_counter[last] = counter;
        counter += (segments[last].queries() + kQueries - 1) / kQueries * heads;
      }
      const std::int64_t begin = segments[first].k_begin;
      zero_rows(dk, last_key, begin), zero_rows(dv, last_key, begin);
      last_key = end;
      for (std::int64_t key = begin; key < end; key += kKeys<T>)
        work[blocks++] = {std::int64_t(first), std::int64_t(last), begin, key, std::min(key + kKeys<T>, end)};
    }
    zero_rows(dk, last_key, dk.rows()), zero_rows(dv, last_key, dv.rows());
    counters = take<std::int32_t>(context.scratch, counter);
    std::fill(counters.begin(), counters.end(), 0);
    sum_dq = sizeof(S) == sizeof(T) ? dq : context.scratch.tensor(q.shape, dtype_of<T>::value);

    const std::int64_t units = std::int64_t(blocks) * key_heads;
    const int threads = int(std::min<std::int64_t>(attention::threads_for(context, segments, heads, dim), units));
    if (threads == 0) return;
    const std::int64_t packed = kKeys<T> * width,
                       sizes[] = {
                           packed, packed, packed, packed, packed, kQueries * width, kQueries * width, kQueries * kKeys<T>, kQueries * kKeys<T>};
    std::int64_t each = 0;
    for (std::int64_t size : sizes) each += size;
    Tensor memory = context.scratch.tensor({threads, each}, dtype_of<T>::value);
    std::atomic<std::int64_t> next{0};
#pragma omp parallel num_threads(threads)
    {
      T* from = memory.as<T>() + omp_get_thread_num() * memory.stride;
      T* parts[9];
      for (int i = 0; i < 9; ++i) parts[i] = from, from += sizes[i];
      const Scratch<T> scratch{parts[0], parts[1], parts[2], parts[3], parts[4], parts[5], parts[6], parts[7], parts[8]};
      for (std::int64_t u; (u = next.fetch_add(1, std::memory_order_relaxed)) < units;)
        block(work[std::size_t(u / key_heads)], u % key_heads, scratch);
    }
  }
};
}  // namespace

void attention_backward(const Context& context, const Tensor& d_o, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& o,
                        const Tensor& lse, std::span<const AttentionSegment> segments, double scale, const Tensor& dq, const Tensor& dk,
                        const Tensor& dv) {
  attention::check_shapes(q, k, v, scale);
  for (const Tensor* x : {&d_o, &o, &dq})
    AF_CHECK(x->shape == q.shape && x->dtype == q.dtype, "attention: {} {} for q {} {}", x->shape.str(), name_of(x->dtype), q.shape.str(),
             name_of(q.dtype));
  for (const Tensor* x : {&dk, &dv})
    AF_CHECK(x->shape == k.shape && x->dtype == k.dtype, "attention: {} {} for k {} {}", x->shape.str(), name_of(x->dtype), k.shape.str(),
             name_of(k.dtype));
  AF_CHECK(lse.rows() == q.rows() && lse.cols() == q.shape[1], "attention: lse {} for q {}", lse.shape.str(), q.shape.str());
  Arena::Scope scope(context.scratch);
  attention::with_types(q.dtype, [&](auto t, auto s) {
    Backward<decltype(t), decltype(s)>{d_o, q, k, v, o, lse, dq, dk, dv, {}, scale, attention::sorted_segments(context, segments, q.rows(), k.rows()),
                                       {},  {}}
        .run(context);
  });
}

}  // namespace af
