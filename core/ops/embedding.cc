#include "core/ops/embedding.h"

#include "core/kernel.h"
#include "core/ops/counting_sort.h"

namespace af {
namespace {
template <class T>
struct LookUp {
  Rows<const T> table;
  const std::int32_t* ids;
  i64 first_id, entries;
  Rows<T> out;
  template <class Team>
  AF_HD void operator()(i64 r, Team team) const {
    const i64 entry = ids[r] - first_id;
    if (entry >= 0 && entry < entries) {
      team.copy(out[r], table[entry]);
    } else {
      team.map(
          out[r], [](int) { return Acc<T>(0); }, Index{});
    }
  }
};

// A team owns the table rows of one bucket (id modulo kBuckets) and kWidth columns: it adds the bucket's tokens in order.
constexpr i64 kBuckets = 256, kWidth = 256;
template <class T>
struct AddTokens {
  CountingSort sorted;
  Rows<const T> dy;
  Rows<Acc<T>> d_table;
  i64 first_id, entries;
  template <class Team>
  AF_HD void operator()(i64 r, Team team) const {
    using A = Acc<T>;
    const i64 bucket = r % kBuckets, from = r / kBuckets * kWidth;
    const i64 width = dy.cols - from < kWidth ? dy.cols - from : kWidth;
    for (i64 i = sorted.offsets[bucket]; i < sorted.offsets[bucket + 1]; ++i) {
      const i64 token = sorted.order[i];
      const i64 entry = sorted.keys[token] - first_id;
      if (entry < 0 || entry >= entries) continue;
      const auto row = d_table[entry].part(from, width);
      team.map(
          row, [](A sum, A d) { return sum + d; }, row, dy[token].part(from, width));
    }
  }
};
}  // namespace

void embedding(const Context& context, const Tensor& table, const Tensor& ids, const Tensor& out, std::int64_t first_id) {
  AF_CHECK(table.cols() == out.cols() && ids.numel() == out.rows(), "embedding: table {}, ids {}, out {}", table.shape.str(), ids.shape.str(),
           out.shape.str());
  dispatch(table.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    for_each_row(context.device, out.rows(), out.cols(), 
                 LookUp<T>{rows_of<const T>(table), ids.as<const std::int32_t>(), first_id, table.rows(), rows_of<T>(out)});
  });
}

void embedding_backward(const Context& context, const Tensor& dy, const Tensor& ids, const Tensor& d_table, std::int64_t first_id) {
  AF_CHECK(dy.cols() == d_table.cols() && ids.numel() == dy.rows(), "embedding_backward: dy {}, ids {}, d_table {}", dy.shape.str(), ids.shape.str(),
           d_table.shape.str());
  const Arena::Scope scope(context.scratch);
  const Tensor order = context.scratch.tensor({ids.numel()}, DType::i32);
  const CountingSort sorted = counting_sort(context, ids, kBuckets, order, Tensor());
  dispatch(dy.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const i64 teams = kBuckets * ((dy.cols() + kWidth - 1) / kWidth);
    for_each_row(context.device, teams, kWidth, AddTokens<T>{sorted, rows_of<const T>(dy), rows_of<Acc<T>>(d_table), first_id, d_table.rows()},
                 dy.numel() / (teams * kWidth) + 1);
  });
}

}  // namespace af
