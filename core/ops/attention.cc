// Forward. A thread takes a block of queries of one document, with all query heads that share a key head, and walks over
// the document's keys in blocks, packing each once for all of its rows:
//   S = Q K^T;  m' = max(m, max S);  P = exp(scale S - m');  O = exp(m - m') O + P V;  l = exp(m - m') l + sum P
// a few rows at a time, so that S never leaves the first cache. In the end o = O / l, lse = m + log l.
#include "core/ops/attention.h"

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <numbers>

#include "core/ops/attention_segments.h"
#include "core/ops/matmul_microkernel.h"

namespace af {
namespace {
using attention::kKeys;
using attention::Segment;
using attention::take;
using simd::kLanes;
using simd::Vector;

struct Work {  // rows begin .. of a segment
  std::int64_t segment, begin;
};

template <class T>
struct Scratch {       // of one thread
  T *keys, *values;    // a block, packed
  T *queries, *sums;   // [heads of the group, rows, padded D]: Q and O
  T* scores;           // [step, kKeys]
  T *maximum, *total;  // [heads of the group, rows]: m in units of log2, l
};

// scores [rows, kKeys] of rows of which the i-th sees visible + i keys of the block -> exp2(factor * scores - maximum), 0 where
// not seen, up to the `cols` that the last row sees; updates maximum and total, rescales sums.
template <class T>
void softmax_rows(std::int64_t rows, std::int64_t visible, std::int64_t cols, T factor, bool first, T* scores, T* maximum, T* total, T* sums,
                  std::int64_t sums_stride) {
  constexpr int L = kLanes<T>;
  constexpr T kLowest = -std::numeric_limits<T>::infinity();
  for (std::int64_t i = 0; i < rows; ++i, scores += kKeys<T>, sums += sums_stride) {
    const std::int64_t seen = std::clamp<std::int64_t>(visible + i, 0, cols), whole = seen / L * L;
    Vector<T> most = simd::splat(kLowest);
    for (std::int64_t j = 0; j < whole; j += L) {
      Vector<T> s = simd::load(scores + j);
      most = s > most ? s : most;
    }
    if (whole < seen) {
      Vector<T> s = simd::load(scores + whole);
      s = simd::first_lanes<T>(seen - whole) ? s : simd::splat(kLowest);
      simd::store(scores + whole, s);  // exp2 makes 0 of it
      most = s > most ? s : most;
    }
    const T before = maximum[i], after = seen ? std::max(first ? kLowest : before, simd::maximum<T>(most) * factor) : before;
    Vector<T> sum = {};
    const std::int64_t end = simd::padded<T>(seen);
    for (std::int64_t j = 0; j < end; j += L) {
      Vector<T> p = simd::exp2<T>(simd::load(scores + j) * factor - after);
      simd::store(scores + j, p);
      sum += p;
    }
    for (std::int64_t j = end; j < cols; j += L) simd::store(scores + j, Vector<T>{});
    maximum[i] = after;
    if (first) {
      total[i] = simd::sum<T>(sum);
    } else if (after != before) {
      const T shrink = simd::exp2<T>(simd::splat(before - after))[0];
      total[i] = total[i] * shrink + simd::sum<T>(sum);
      for (std::int64_t d = 0; d < sums_stride; d += L) simd::store(sums + d, simd::load(sums + d) * shrink);
    } else {
      total[i] += simd::sum<T>(sum);
    }
  }
}

template <class T, class S>
struct Forward {
  Tensor q, k, v, o, lse;
  double scale;
  std::span<const Segment> segments;
  std::int64_t heads = q.shape[1], key_heads = k.shape[1], group = heads / key_heads, dim = q.shape[2], width = simd::padded<T>(dim);
  std::int64_t step = micro::group_rows(int(width / kLanes<T>));  // rows that go through S and O together
  // Rows of a unit of work: enough that packing the keys is cheap beside using them.
  std::int64_t most_rows = std::max<std::int64_t>(1, 256 / group / step) * step;

  void block(const Work& work, std::int64_t key_head, const Scratch<T>& scratch) const {
    const Segment& s = segments[std::size_t(work.segment)];
    const std::int64_t rows = std::min(most_rows, s.queries() - work.begin), first_row = s.q_begin + work.begin;
    const S* from = static_cast<const S*>(q.data) + first_row * q.stride + key_head * group * dim;
    for (std::int64_t g = 0; g < group; ++g) micro::load_rows(from + g * dim, q.stride, rows, dim, scratch.queries + g * rows * width, width);

    const T factor = T(scale * std::numbers::log2e);
    const std::int64_t keys = s.visible(work.begin + rows - 1);
    const micro::Groups groups(rows, int(step));
    for (std::int64_t key = 0; key < keys; key += kKeys<T>) {
      const std::int64_t count = std::min(kKeys<T>, keys - key), at = (s.k_begin + key);
      const micro::Right<T> kt =
          micro::pack_columns(static_cast<const S*>(k.data) + at * k.stride + key_head * dim, k.stride, dim, count, scratch.keys);
      const micro::Right<T> vs =
          micro::pack_rows(static_cast<const S*>(v.data) + at * v.stride + key_head * dim, v.stride, count, dim, scratch.values);
      for (std::int64_t g = 0; g < group; ++g)
        for (std::int64_t part = 0; part < groups.count; ++part) {
          const std::int64_t begin = groups.begin(part), end = groups.begin(part + 1), row = g * rows + begin;
          const std::int64_t seen = std::min(count, s.visible(work.begin + end - 1) - key);
          if (seen <= 0) continue;
          T* sums = scratch.sums + row * width;
          micro::multiply(end - begin, simd::padded<T>(seen), dim, micro::Left<T>{scratch.queries + row * width, width, 1}, kt, scratch.scores,
                          kKeys<T>, false);
          softmax_rows(end - begin, s.visible(work.begin + begin) - key, seen, factor, key == 0, scratch.scores, scratch.maximum + row,
                       scratch.total + row, sums, width);
          micro::multiply(end - begin, width, seen, micro::Left<T>{scratch.scores, kKeys<T>, 1}, vs, sums, width, key > 0);
        }
    }

    for (std::int64_t g = 0; g < group; ++g)
      for (std::int64_t i = 0; i < rows; ++i) {
        const std::int64_t row = g * rows + i, head = key_head * group + g;
        T* sums = scratch.sums + row * width;
        const T inverse = 1 / scratch.total[row];
        for (std::int64_t d = 0; d < width; d += kLanes<T>) simd::store(sums + d, simd::load(sums + d) * inverse);
        micro::store_rows(sums, width, 1, dim, static_cast<S*>(o.data) + (first_row + i) * o.stride + head * dim, o.stride);
        lse.as<T>()[(first_row + i) * lse.stride + head] = (scratch.maximum[row] + std::log2(scratch.total[row])) * std::numbers::ln2_v<T>;
      }
  }

  void empty_rows(std::int64_t begin, std::int64_t end) const {
    for (std::int64_t i = begin; i < end; ++i) {
      std::fill_n(static_cast<S*>(o.data) + i * o.stride, heads * dim, S{});
      std::fill_n(lse.as<T>() + i * lse.stride, heads, -std::numeric_limits<T>::infinity());
    }
  }

  void run(const Context& context) const {
    std::int64_t blocks = 0, done = 0;
    for (const Segment& s : segments) {
      blocks += (s.queries() + most_rows - 1) / most_rows;
      empty_rows(done, s.q_begin);
      done = s.q_end;
    }
    empty_rows(done, q.rows());
    std::span<Work> work = take<Work>(context.scratch, blocks);
    std::size_t n = 0;
    for (std::size_t i = 0; i < segments.size(); ++i)  // the last rows see the most keys: they go first, that no thread ends late
      for (std::int64_t begin = (segments[i].queries() - 1) / most_rows * most_rows; begin >= 0; begin -= most_rows)
        work[n++] = {std::int64_t(i), begin};

    const std::int64_t units = blocks * key_heads;
    const int threads = int(std::min<std::int64_t>(attention::threads_for(context, segments, heads, dim), units));
    if (threads == 0) return;
    const std::int64_t rows = group * most_rows;
    const std::int64_t sizes[] = {dim * kKeys<T>, kKeys<T> * width, rows * width, rows * width, step * kKeys<T>, rows, rows};
    std::int64_t each = 0;
    for (std::int64_t size : sizes) each += simd::padded<T>(size);
    Tensor memory = context.scratch.tensor({threads, each}, dtype_of<T>::value);
    std::atomic<std::int64_t> next{0};
#pragma omp parallel num_threads(threads)
    {
      T* at = memory.as<T>() + omp_get_thread_num() * memory.stride;
      T* parts[7];
      for (int i = 0; i < 7; ++i) parts[i] = at, at += simd::padded<T>(sizes[i]);
      const Scratch<T> scratch{parts[0], parts[1], parts[2], parts[3], parts[4], parts[5], parts[6]};
      for (std::int64_t u; (u = next.fetch_add(1, std::memory_order_relaxed)) < units;)
        block(work[std::size_t(u / key_heads)], u % key_heads, scratch);
    }
  }
};
}  // namespace

void attention_forward(const Context& context, const Tensor& q, const Tensor& k, const Tensor& v, std::span<const AttentionSegment> segments,
                       double scale, const Tensor& o, const Tensor& lse) {
  attention::check_shapes(q, k, v, scale);
  AF_CHECK(o.shape == q.shape && o.dtype == q.dtype, "attention: o {} {} for q {} {}", o.shape.str(), name_of(o.dtype), q.shape.str(),
           name_of(q.dtype));
  AF_CHECK(lse.rows() == q.rows() && lse.cols() == q.shape[1], "attention: lse {} for q {}", lse.shape.str(), q.shape.str());
  Arena::Scope scope(context.scratch);
  attention::with_types(q.dtype, [&](auto t, auto s) {
    Forward<decltype(t), decltype(s)>{q, k, v, o, lse, scale, attention::sorted_segments(context, segments, q.rows(), k.rows())}.run(context);
  });
}

}  // namespace af
