// Conversions between the files' number types, against the compiler's own (_Float16, float, double), over every 16-bit value
// and with denormals flushed to zero.
#include "data/float_bytes.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <vector>

namespace af {
namespace {

template <class To, class From>
std::vector<To> converted(const std::string& from_type, const std::vector<From>& from, const std::string& to_type) {
  std::vector<To> to(from.size());
  convert_floats(from_type, from.data(), to_type, to.data(), std::int64_t(from.size()));
  return to;
}

std::vector<std::uint16_t> all_16_bits() {
  std::vector<std::uint16_t> out(65536);
  for (int i = 0; i < 65536; i++) out[std::size_t(i)] = std::uint16_t(i);
  return out;
}

// Random bits, and around every number of the 16-bit type the middles to the next one, where ties are decided.
std::vector<float> hard_floats(bool f16) {
  std::vector<float> out;
  for (int i = 0; i < 65535; i++) {
    const auto value = [&](int k) { return f16 ? float(std::bit_cast<_Float16>(std::uint16_t(k))) : std::bit_cast<float>(std::uint32_t(k) << 16); };
    const float a = value(i), b = value(i + 1);
    if (std::isnan(a) || std::isnan(b)) continue;
    const float middle = float((double(a) + double(b)) / 2);
    for (const float x : {a, middle, std::nextafter(middle, 0.f), std::nextafter(middle, INFINITY)}) out.push_back(x);
  }
  std::uint64_t state = 1;
  for (int i = 0; i < 200000; i++) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    out.push_back(std::bit_cast<float>(std::uint32_t(state >> 32)));
  }
  return out;
}

TEST(FloatBytes, SixteenBitsGoToFloatAndBackUnchanged) {
  for (const char* type : {"F16", "BF16"}) {
    const auto all = all_16_bits();
    const auto floats = converted<std::uint32_t>(type, all, "F32");
    const auto doubles = converted<double>(type, all, "F64");
    const auto back = converted<std::uint16_t>("F32", floats, type), back_from_double = converted<std::uint16_t>("F64", doubles, type);
    for (std::size_t i = 0; i < all.size(); i++) {
      const float value = std::bit_cast<float>(floats[i]);
      EXPECT_TRUE(type[0] == 'B' || std::isnan(value) || value == float(std::bit_cast<_Float16>(all[i]))) << i;
      EXPECT_TRUE(std::isnan(value) ? std::isnan(doubles[i]) : doubles[i] == double(value)) << i;
      if (std::isnan(value)) continue;
      ASSERT_EQ(back[i], all[i]);
      ASSERT_EQ(back_from_double[i], all[i]);
    }
  }
}

TEST(FloatBytes, RoundsToNearestEvenAsTheCompilerDoes) {
  const std::vector<float> floats = hard_floats(true);
  const auto halves = converted<std::uint16_t>("F32", floats, "F16");
  for (std::size_t i = 0; i < floats.size(); i++) {
    if (std::isnan(floats[i])) continue;
    ASSERT_EQ(halves[i], std::bit_cast<std::uint16_t>(_Float16(floats[i]))) << floats[i];
  }
  const std::vector<float> others = hard_floats(false);
  const auto brains = converted<std::uint16_t>("F32", others, "BF16");
  for (std::size_t i = 0; i < others.size(); i++) {
    if (std::isnan(others[i])) continue;
    const double x = others[i], y = std::bit_cast<float>(std::uint32_t(brains[i]) << 16);
    const double below = std::bit_cast<float>(std::uint32_t(std::uint16_t(brains[i] - 1)) << 16),
                 above = std::bit_cast<float>(std::uint32_t(std::uint16_t(brains[i] + 1)) << 16);
    if (std::isinf(y) || std::isnan(below) || std::isnan(above) || (brains[i] & 0x7fff) == 0) continue;
    ASSERT_LE(std::abs(x - y), std::min(std::abs(x - below), std::abs(x - above)));
    const bool tie = std::abs(x - y) == std::abs(x - below) || std::abs(x - y) == std::abs(x - above);
    ASSERT_TRUE(!tie || brains[i] % 2 == 0);
  }
  std::vector<double> doubles;
  for (const float x : floats)
    for (const double scale : {1.0, 1 + 1e-9, 1 + std::ldexp(1, -24), 3e-30}) doubles.push_back(double(x) * scale);
  const auto singles = converted<float>("F64", doubles, "F32");
  const auto again = converted<double>("F32", singles, "F64");
  for (std::size_t i = 0; i < doubles.size(); i++) {
    if (std::isnan(doubles[i])) continue;
    ASSERT_EQ(std::bit_cast<std::uint32_t>(singles[i]), std::bit_cast<std::uint32_t>(float(doubles[i]))) << doubles[i];
    ASSERT_EQ(again[i], double(singles[i]));
  }
}

TEST(FloatBytes, FlushingDenormalsDoesNotReachThem) {
  const unsigned mode = __builtin_ia32_stmxcsr();
  __builtin_ia32_ldmxcsr(mode | 0x8040);  // FTZ and DAZ, as the trainer sets them
  const auto doubles = converted<std::uint64_t>("F32", std::vector<std::uint32_t>{1, 0x80000001u, 0x007fffffu}, "F64");
  const auto floats = converted<std::uint32_t>("F64", doubles, "F32");
  const auto from_bf16 = converted<std::uint32_t>("BF16", std::vector<std::uint16_t>{1, 0x8001}, "F32");
  const auto to_bf16 = converted<std::uint16_t>("F32", from_bf16, "BF16");
  __builtin_ia32_ldmxcsr(mode);
  EXPECT_EQ(std::bit_cast<double>(doubles[0]), std::ldexp(1, -149));
  EXPECT_EQ(floats, (std::vector<std::uint32_t>{1, 0x80000001u, 0x007fffffu}));
  EXPECT_EQ(to_bf16, (std::vector<std::uint16_t>{1, 0x8001}));
}

TEST(FloatBytes, FindsTheFirstNumberThatIsNotFinite) {
  std::vector<float> x(10000, 1.f);
  EXPECT_EQ(first_not_finite("F32", x.data(), 10000), -1);
  x[9000] = -INFINITY;
  EXPECT_EQ(first_not_finite("F32", x.data(), 10000), 9000);
  x[4097] = NAN;
  EXPECT_EQ(first_not_finite("F32", x.data(), 10000), 4097);
  for (const char* type : {"F16", "BF16", "F64"}) {
    std::vector<std::uint64_t> bytes(10000);
    convert_floats("F32", x.data(), type, bytes.data(), 10000);
    EXPECT_EQ(first_not_finite(type, bytes.data(), 10000), 4097) << type;
    EXPECT_EQ(first_not_finite(type, bytes.data(), 4097), -1) << type;
  }
}

}  // namespace
}  // namespace af
