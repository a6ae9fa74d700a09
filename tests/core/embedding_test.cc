#include "core/ops/embedding.h"

#include "tests/core/op_fixture.h"

namespace af {
namespace {
using namespace testing;

TEST(Embedding, TakesRows) {
  const OnCpu cpu;
  const i64 v = 300, h = 24, t = 50;
  for (const DType dtype : kFloats) {
    const Operand table = random_operand({v, h}, dtype, 1, 8), ids({t}, DType::i32, below(t, 2, int(v))), out({t, h}, dtype, 3);
    embedding(cpu, table, ids, out);
    const Numbers rows = table.values(), taken = out.values();
    for (i64 i = 0; i < t * h; ++i) ASSERT_EQ(taken[std::size_t(i)], rows[std::size_t(i64(ids.values()[std::size_t(i / h)]) * h + i % h)]);
    EXPECT_TRUE(out.canaries_alive());
  }
}

// The transpose: added token by token, exactly in that order.
TEST(Embedding, BackwardAddsInTokenOrder) {
  const OnCpu cpu;
  for (const i64 h : {24, 300})
    for (const DType dtype : kFloats) {
      const i64 v = 700, t = 1500;
      Numbers choice = below(t, 2, int(v));
      for (i64 i = 0; i < t; i += 3) choice[std::size_t(i)] = 5;  // a frequent one, and its neighbour in the bucket
      for (i64 i = 1; i < t; i += 7) choice[std::size_t(i)] = 5 + 256;
      const Operand dy = random_operand({t, h}, dtype, 1, 5), ids({t}, DType::i32, choice),
                    d_table = random_operand({v, h}, accumulator_of(dtype), 3, 2);
      Numbers expected = d_table.values();
      const Numbers addends = dy.values();
      for (i64 i = 0; i < t * h; ++i) {
        double& sum = expected[std::size_t(i64(choice[std::size_t(i / h)]) * h + i % h)];
        sum += addends[std::size_t(i)];
        if (dtype != DType::f64) sum = float(sum);
      }
      embedding_backward(cpu, dy, ids, d_table);
      ASSERT_EQ(d_table.values(), expected);
      EXPECT_TRUE(d_table.canaries_alive());
    }
}

// A share of the vocabulary: ids of other shares are rows of zeros, and shares add up to the whole, bit by bit.
TEST(Embedding, SharesOfTheVocabulary) {
  const OnCpu cpu;
  const i64 v = 700, h = 24, t = 900;
  for (const DType dtype : kFloats)
    for (const std::vector<i64>& cuts : {std::vector<i64>{0, 700}, {0, 1, 350, 699, 700}, {0, 256, 256, 600, 700}}) {
      const Operand table = random_operand({v, h}, dtype, 1), ids({t}, DType::i32, below(t, 2, int(v))), whole({t, h}, dtype);
      const Operand dy = random_operand({t, h}, dtype, 3), d_whole = random_operand({v, h}, accumulator_of(dtype), 4);
      const Operand d_shares({v, h}, accumulator_of(dtype), d_whole.values());
      embedding(cpu, table, ids, whole);
      embedding_backward(cpu, dy, ids, d_whole);
      const Numbers id = ids.values();
      Numbers sum(std::size_t(t * h), 0.);
      for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
        const Tensor share = table.tensor().slice_rows(cuts[i], cuts[i + 1]);
        const Operand part = random_operand({t, h}, dtype, 5, 8);
        embedding(cpu, share, ids, part, cuts[i]);
        const Numbers rows = part.values();
        for (i64 j = 0; j < t * h; ++j) {
          const bool own = id[std::size_t(j / h)] >= double(cuts[i]) && id[std::size_t(j / h)] < double(cuts[i + 1]);
          ASSERT_TRUE(own || rows[std::size_t(j)] == 0);
          sum[std::size_t(j)] += rows[std::size_t(j)];
        }
        EXPECT_TRUE(part.canaries_alive());
        embedding_backward(cpu, dy, ids, d_shares.tensor().slice_rows(cuts[i], cuts[i + 1]), cuts[i]);
      }
      EXPECT_EQ(sum, whole.values());
      EXPECT_EQ(d_shares.values(), d_whole.values());
    }
}

TEST(Embedding, NoTokens) {
  const OnCpu cpu;
  const Operand table = random_operand({4, 3}, DType::f32, 1), ids({0}, DType::i32), rows({0, 3}, DType::f32);
  const Numbers before = table.values();
  embedding(cpu, table, ids, rows);
  embedding_backward(cpu, rows, ids, table);
  EXPECT_EQ(table.values(), before);
}

}  // namespace
}  // namespace af
