#include "core/ops/rope.h"

#include "tests/core/op_fixture.h"

namespace af {
namespace {
using namespace testing;

// The constants are those of transformers 4.57.6 (ROPE_INIT_FUNCTIONS, Qwen3RotaryEmbedding) with torch 2.13.
void expect_equal(const std::vector<float>& ours, const std::vector<float>& theirs) {
  ASSERT_EQ(ours.size(), theirs.size());
  for (std::size_t i = 0; i < ours.size(); ++i)
    EXPECT_NEAR(ours[i], theirs[i], 1.2e-7 * theirs[i]) << "frequency " << i;  // one unit in the last place
}

TEST(Rope, InverseFrequencies) {
  expect_equal(rope_inverse_frequencies({1e6, {}}, 16),
               {1.f, 0.177827939f, 0.0316227786f, 0.00562341325f, 0.00100000005f, 0.00017782794f, 3.16227743e-05f, 5.62341347e-06f});
  expect_equal(rope_inverse_frequencies({1e4, {}}, 20), {1.f, 0.398107171f, 0.158489317f, 0.0630957261f, 0.0251188632f, 0.00999999978f,
                                                         0.00398107059f, 0.00158489333f, 0.000630957307f, 0.0002511887f});
  EXPECT_EQ(rope_attention_factor({1e6, {}}), 1);
}

TEST(Rope, YarnOfQwen3) {  // factor 4 over 32768: the ramp lies between dimensions 23 and 40
  RopeSettings settings{1e6, YarnScaling{.factor = 4, .original_max_position_embeddings = 32768, .attention_factor = {}}};
  EXPECT_DOUBLE_EQ(rope_attention_factor(settings), 1.138629436111989);
  const std::vector<float> whole = rope_inverse_frequencies(settings, 128), plain = rope_inverse_frequencies({1e6, {}}, 128);
  expect_equal({whole.begin() + 22, whole.begin() + 42},
               {0.00865964312f,  0.00697830599f, 0.00537532149f,  0.0041317381f,   0.00316842273f,  0.00242342241f,  0.00184827659f,
                0.00140511245f,  0.00106436096f, 0.000802959781f, 0.000602941145f, 0.000450323569f, 0.000334240554f, 0.000246258394f,
                0.000179841154f, 0.00012993149f, 9.26230132e-05f, 6.4903943e-05f,  4.44569851e-05f, 3.58253164e-05f});
  for (int i = 0; i < 23; ++i) EXPECT_EQ(whole[std::size_t(i)], plain[std::size_t(i)]);
  for (int i = 40; i < 64; ++i) EXPECT_FLOAT_EQ(whole[std::size_t(i)], plain[std::size_t(i)] / 4);

  settings.yarn->truncate = false;
  const std::vector<float> between = rope_inverse_frequencies(settings, 128);
  expect_equal({between.begin() + 23, between.begin() + 41},
               {0.00697830599f, 0.00551727042f, 0.0042343582f, 0.00324163493f, 0.00247477763f, 0.00188350258f, 0.00142853614f, 0.00107923767f,
                0.000811725389f, 0.000607408001f, 0.000451830361f, 0.000333768374f, 0.000244518887f, 0.000177344235f, 0.000127036881f,
                8.95792473e-05f, 6.18780759e-05f, 4.44569851e-05f});
}

TEST(Rope, YarnWithOtherBounds) {
  const RopeSettings settings{1e4, YarnScaling{8, 64, 16, 2, 1.25}};
  EXPECT_EQ(rope_attention_factor(settings), 1.25);
  expect_equal(rope_inverse_frequencies(settings, 16),
               {1.f, 0.177878112f, 0.0125000002f, 0.00395284733f, 0.00124999997f, 0.000395284733f, 0.000125000006f, 3.95284733e-05f});
}

TEST(Rope, Tables) {
  const OnCpu cpu;
  const i64 positions = 131072;
  const Operand cos({positions, 8}, DType::f32), sin({positions, 8}, DType::f32);
  rope_tables(cpu, {1e6, {}}, cos, sin);
  const struct {
    i64 position;
    Numbers cos, sin;
  } expected[] = {
      {0, Numbers(8, 1.), Numbers(8, 0.)},
      {77,
       {-0.0309750326, 0.429930687, -0.760548592, 0.907709837, 0.997036934, 0.999906242, 0.99999702, 0.99999994},
       {0.999520183, 0.902861893, 0.649281025, 0.419598401, 0.0769239441, 0.013692324, 0.00243495125, 0.000433002831}},
      {131071,
       {-0.817983508, -0.819624782, -0.4815346, -0.355013937, 0.640311718, -0.251140654, -0.537576377, 0.740443408},
       {-0.575241685, -0.572900653, -0.876427054, 0.934861004, -0.768115163, -0.967950583, -0.843215048, 0.672118664}},
  };
  const float* c = cos.tensor().as<const float>();
  const float* s = sin.tensor().as<const float>();
  for (const auto& e : expected)
    for (int i = 0; i < 8; ++i) {
      EXPECT_NEAR(c[e.position * 8 + i], e.cos[std::size_t(i)], 2e-7) << e.position << ", " << i;
      EXPECT_NEAR(s[e.position * 8 + i], e.sin[std::size_t(i)], 2e-7) << e.position << ", " << i;
    }
  EXPECT_TRUE(cos.canaries_alive() && sin.canaries_alive());
}

TEST(Rope, TablesAreScaledByTheAttentionFactor) {
  const OnCpu cpu;
  const RopeSettings settings{1e4, YarnScaling{8, 64, 16, 2, 1.25}};
  const std::vector<float> inverse = rope_inverse_frequencies(settings, 16);
  const Operand cos({3, 8}, DType::f64), sin({3, 8}, DType::f64);
  rope_tables(cpu, settings, cos, sin);
  for (i64 p = 0; p < 3; ++p)
    for (i64 i = 0; i < 8; ++i) {
      const double angle = float(p) * inverse[std::size_t(i)];
      EXPECT_DOUBLE_EQ(cos.values()[std::size_t(p * 8 + i)], 1.25 * std::cos(angle));
      EXPECT_DOUBLE_EQ(sin.values()[std::size_t(p * 8 + i)], 1.25 * std::sin(angle));
    }
}

}  // namespace
}  // namespace af
