#include <gtest/gtest.h>

#include <cstring>

#include "core/ops/matmul.h"
#include "tests/core/matmul_fixture.h"

namespace af {
namespace {
using testing::Machine;
using testing::Owned;
using Offsets = std::vector<std::int64_t>;

const Offsets kSplits[] = {
    {0, 1, 3, 6, 10},        // few rows each
    {0, 0, 200, 200, 200},   // one expert has everything
    {5, 5, 30, 30, 90},      // rows before the first and after the last expert
    {0, 64, 128, 192, 200},  //
    {0, 0, 0, 0, 0},         // no rows at all
};
constexpr std::int64_t kExperts = 4, kRows = 200;

// Each expert by a matmul of its own, which is tested against the sum of products: bit by bit.
TEST(GroupedMatmul, IsOneMatmulPerExpert) {
  if (!simd::kFast) GTEST_SKIP() << "matmul is the library's on this CPU";
  for (const Offsets& offsets : kSplits)
    for (DType type : {DType::f32, DType::bf16, DType::f64})
      for (auto [n, k] : {std::pair<std::int64_t, std::int64_t>{70, 33}, {16, 600}, {300, 48}})
        for (Trans trans : {Trans::no, Trans::yes}) {
          Owned a({kRows, k}, type, 3), b(trans == Trans::yes ? Shape{kExperts, n, k} : Shape{kExperts, k, n}, type);
          Owned c({kRows, n}, type, 5, 77), expected({kRows, n}, type, 5, 77);
          a.randomize(1), b.randomize(2);
          for (int threads : {1, 2, 3}) {
            Machine machine(threads);
            grouped_matmul(machine.context, a.tensor, b.tensor, trans, offsets, c.tensor);
            for (std::int64_t e = 0; e < kExperts; ++e) {
              const std::int64_t begin = offsets[std::size_t(e)], end = offsets[std::size_t(e) + 1];
              const Tensor weight = b.tensor.slice_rows(e, e + 1).view({b.tensor.shape[1], b.tensor.shape[2]});
              matmul(machine.context, a.tensor.slice_rows(begin, end), Trans::no, weight, trans, expected.tensor.slice_rows(begin, end),
                     Accumulate::no);
            }
            ASSERT_EQ(std::memcmp(c.memory.data(), expected.memory.data(), c.memory.size() * 8), 0)
                << name_of(type) << " n " << n << " k " << k << " offsets[1] " << offsets[1] << " threads " << threads;
          }
        }
}

// A token's bits do not depend on which rows its expert has beside it.
TEST(GroupedMatmul, BitsOfARowDoNotDependOnItsGroup) {
  Owned a({kRows, 700}, DType::f32), b({1, 90, 700}, DType::f32), whole({kRows, 90}, DType::f32);
  a.randomize(1), b.randomize(2);
  Machine machine;
  grouped_matmul(machine.context, a.tensor, b.tensor, Trans::yes, Offsets{0, kRows}, whole.tensor);
  for (std::int64_t begin = 0; begin < kRows; begin += 1 + begin / 3) {
    for (std::int64_t end : {begin + 1, std::min(kRows, begin + 21)}) {
      Owned part({kRows, 90}, DType::f32);
      grouped_matmul(machine.context, a.tensor, b.tensor, Trans::yes, Offsets{begin, end}, part.tensor);
      for (std::int64_t i = begin; i < end; ++i)
        for (std::int64_t j = 0; j < 90; ++j) ASSERT_EQ(part.get(i, j), whole.get(i, j)) << "rows " << begin << ".." << end;
    }
  }
}

TEST(GroupedMatmul, WeightGradientIsOneMatmulPerExpert) {
  if (!simd::kFast) GTEST_SKIP() << "matmul is the library's on this CPU";
  for (const Offsets& offsets : kSplits)
    for (auto [type, sums] : {std::pair{DType::f32, DType::f32}, {DType::bf16, DType::f32}, {DType::f64, DType::f64}})
      for (auto [n, k] : {std::pair<std::int64_t, std::int64_t>{70, 33}, {300, 48}}) {
        Owned dy({kRows, n}, type, 3), x({kRows, k}, type, 2), dw({kExperts, n, k}, sums), expected({kExperts, n, k}, sums);
        dy.randomize(1), x.randomize(2), dw.randomize(3), expected.randomize(3);
        for (int threads : {1, 3}) {
          Machine machine(threads);
          grouped_matmul_weight_gradient(machine.context, dy.tensor, x.tensor, offsets, dw.tensor);
          for (std::int64_t e = 0; e < kExperts; ++e) {
            const std::int64_t begin = offsets[std::size_t(e)], end = offsets[std::size_t(e) + 1];
            const Tensor gradient = expected.tensor.slice_rows(e, e + 1).view({n, k});
            matmul(machine.context, dy.tensor.slice_rows(begin, end), Trans::yes, x.tensor.slice_rows(begin, end), Trans::no, gradient,
                   Accumulate::yes);
          }
          ASSERT_EQ(std::memcmp(dw.memory.data(), expected.memory.data(), dw.memory.size() * 8), 0) << name_of(type) << " n " << n << " k " << k;
        }
      }
}

TEST(GroupedMatmul, RefusesWrongOffsets) {
  Owned a({10, 4}, DType::f32), b({2, 5, 4}, DType::f32), c({10, 5}, DType::f32);
  Machine machine;
  for (const Offsets& wrong : {Offsets{0, 5}, Offsets{0, 6, 5}, Offsets{0, 5, 11}, Offsets{-1, 5, 10}})
    EXPECT_THROW(grouped_matmul(machine.context, a.tensor, b.tensor, Trans::yes, wrong, c.tensor), InternalError);
}

}  // namespace
}  // namespace af
