#include "core/random.h"

#include "tests/core/op_fixture.h"

namespace af {
namespace {
using namespace testing;
using std::uint32_t;
using std::uint64_t;

TEST(Random, PhiloxKnownAnswers) {  // kat_vectors of Random123
  constexpr uint32_t f = 0xffffffff;
  EXPECT_EQ(philox({0, 0, 0, 0}, {0, 0}), (std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox({f, f, f, f}, {f, f}), (std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (std::array<uint32_t, 4>{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Random, HashOfNames) {  // FNV-1a test vectors
  EXPECT_EQ(hash_name(""), 0xcbf29ce484222325u);
  EXPECT_EQ(hash_name("a"), 0xaf63dc4c8601ec8cu);
  EXPECT_EQ(hash_name("foobar"), 0x85944171f73967e8u);
}

TEST(Random, NumbersDependOnSeedStreamAndIndex) {
  const uint64_t first = random_bits(1, 2, 3);
  EXPECT_EQ(first, random_bits(1, 2, 3));
  for (const uint64_t other : {random_bits(2, 2, 3), random_bits(1, 3, 3), random_bits(1, 2, 4), random_bits(1, 2, 3 + (uint64_t(1) << 32)),
                               random_bits(1, 2 + (uint64_t(1) << 32), 3), random_bits(1 + (uint64_t(1) << 32), 2, 3)})
    EXPECT_NE(first, other);
}

TEST(Random, UniformAndBelow) {
  const int n = 20000;
  double mean = 0, squares = 0;
  int counts[7] = {};
  for (int i = 0; i < n; ++i) {
    const double u = random_uniform(5, 6, uint64_t(i));
    ASSERT_TRUE(0 <= u && u < 1);
    mean += u / n;
    squares += (u - 0.5) * (u - 0.5) / n;
    ++counts[random_below(5, 7, uint64_t(i), 7)];
  }
  EXPECT_NEAR(mean, 0.5, 5 * std::sqrt(1 / 12. / n));
  EXPECT_NEAR(squares, 1 / 12., 5 * std::sqrt(1 / 180. / n));
  for (const int count : counts) EXPECT_NEAR(count, n / 7., 5 * std::sqrt(n * 6 / 49.));
  EXPECT_EQ(random_below(1, 2, 3, 1), 0u);
  const uint64_t large = (uint64_t(1) << 63) + 1;  // nearly half of all draws must be taken again
  for (uint64_t i = 0; i < 1000; ++i) ASSERT_LT(random_below(1, 2, i, large), large);
}

TEST(Random, MomentsOfTheNormal) {
  const OnCpu cpu(2);
  const i64 n = 1 << 20;
  for (const DType dtype : {DType::f32, DType::f64}) {
    const Operand x({1024, n / 1024}, dtype);
    fill_normal(cpu, {11, 12, 0, 0, n / 1024}, 0.5, x);
    double moments[5] = {};
    for (const double v : x.values())
      for (int k = 1; k <= 4; ++k) moments[k] += std::pow(v / 0.5, k) / double(n);
    EXPECT_NEAR(moments[1], 0, 5 * std::sqrt(1. / double(n)));
    EXPECT_NEAR(moments[2], 1, 5 * std::sqrt(2. / double(n)));
    EXPECT_NEAR(moments[3], 0, 5 * std::sqrt(15. / double(n)));
    EXPECT_NEAR(moments[4], 3, 5 * std::sqrt(96. / double(n)));
  }
}

// Against Box-Muller as the textbook writes it, from the same counters.
TEST(Random, NormalsAreBoxMullers) {
  const OnCpu cpu;
  const uint64_t seed = 0x123456789abcdef0, stream = hash_name("model.embed_tokens.weight");
  const i64 n = 5000;
  const Operand x({n}, DType::f64);
  fill_normal(cpu, {seed, stream, 7, 0, 1}, 2, x);
  const Numbers drawn = x.values();
  for (i64 i = 0; i < n; ++i) {
    const auto index = uint64_t(i + 7);
    const auto w = philox({uint32_t(index), uint32_t(index >> 32), uint32_t(stream), uint32_t(stream >> 32)}, {uint32_t(seed), uint32_t(seed >> 32)});
    const double u = 1 - double((uint64_t(w[1]) << 32 | w[0]) >> 12) * 0x1p-52, v = double((uint64_t(w[3]) << 32 | w[2]) >> 12) * 0x1p-52;
    ASSERT_NEAR(drawn[std::size_t(i)], 2 * std::sqrt(-2 * std::log(u)) * std::cos(2 * M_PI * v), 2e-14);
  }
}

TEST(Random, AnyRectangleHasTheSameBits) {
  const i64 rows = 40, cols = 70;
  for (const DType dtype : kFloats) {
    const Operand whole({rows, cols}, dtype);
    fill_normal(OnCpu(1), {3, 4, 0, 0, cols}, 0.02, whole);
    const struct {
      i64 row, col, rows, cols, pad;
    } parts[] = {{0, 0, 40, 70, 0}, {3, 0, 5, 70, 0}, {0, 13, 40, 9, 4}, {17, 33, 11, 37, 1}, {39, 69, 1, 1, 0}, {5, 5, 0, 8, 0}};
    for (const auto& p : parts) {
      const Operand part({p.rows, p.cols}, dtype, p.pad);
      fill_normal(OnCpu(3), {3, 4, p.row, p.col, cols}, 0.02, part);
      for (i64 r = 0; r < p.rows; ++r)
        for (i64 c = 0; c < p.cols; ++c)
          ASSERT_EQ(get(part, r * part.tensor().stride + c), get(whole, (p.row + r) * cols + p.col + c)) << r << ", " << c;
      EXPECT_TRUE(part.canaries_alive());
    }
  }
}

}  // namespace
}  // namespace af
