#include "core/ops/adamw.h"

#include "tests/core/op_fixture.h"

namespace af {
namespace {
using namespace testing;

// Three steps of torch.optim.AdamW (2.13): lr 0.01, betas (0.9, 0.95), eps 1e-8, weight decay 0.1, gradients halved.
TEST(AdamW, EqualsTorch) {
  const OnCpu cpu;
  const Numbers start = {0.5, -1.25, 2.0, 0.0, 1e-3};
  const Numbers gradients[] = {{0.1, -0.2, 3.0, 0.0, 1e-8}, {-0.3, 0.4, 1.0, 0.5, -1e-8}, {0.05, 0.6, -2.0, 0.25, 1e-7}};
  const Numbers p = {0.49619065487202413, -1.2466214818823329, 1.9729426369831931, -0.015307160906316748, -0.0067394885797450906};
  const Numbers m = {-0.0069499999999999987, 0.039899999999999991, 0.06649999999999999, 0.034999999999999989, 4.9549999999999987e-09};
  const Numbers v = {0.001212812500000001, 0.0068512500000000058, 0.16340625000000014, 0.0037500000000000033, 1.2731562500000011e-16};
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64})
    for (const bool in_place : {false, true}) {
      const DType acc = accumulator_of(dtype);
      if (in_place && acc != dtype) continue;
      const Operand master({5}, acc, start), first({5}, acc, Numbers(5, 0.)), second({5}, acc, Numbers(5, 0.)), param({5}, dtype);
      for (int t = 1; t <= 3; ++t) {
        const Operand gradient({5}, acc, gradients[t - 1]);
        adamw(cpu, {0.01, 0.9, 0.95, 1e-8, 0.1, t, 0.5}, gradient, master, first, second, in_place ? master.tensor() : param.tensor());
      }
      const double relative = acc == DType::f64 ? 1e-13 : 1e-6;
      expect_near(master.values(), p, relative, 0.01);
      expect_near(first.values(), m, relative, 1e-9);
      expect_near(second.values(), v, relative, 1e-16);
      if (!in_place) {
        EXPECT_EQ(param.values(), Operand({5}, dtype, master.values()).values());
      }
      EXPECT_TRUE(master.canaries_alive() && first.canaries_alive() && second.canaries_alive() && param.canaries_alive());
    }
}

TEST(AdamW, EveryElementAlike) {  // wherever it stands in a chunk
  const OnCpu cpu;
  const i64 n = 4096 * 2 + 77;
  const Operand master({n}, DType::f32, Numbers(std::size_t(n), 0.3)), m({n}, DType::f32, Numbers(std::size_t(n), 0.1));
  const Operand v({n}, DType::f32, Numbers(std::size_t(n), 0.2)), gradient({n}, DType::f32, Numbers(std::size_t(n), -0.7)), param({n}, DType::bf16);
  adamw(cpu, {1e-3, 0.9, 0.95, 1e-8, 0.1, 7, 0.9}, gradient, master, m, v, param);
  for (const Operand* x : {&master, &m, &v, &param}) {
    const Numbers all = x->values();
    for (const double one : all) ASSERT_EQ(one, all[0]);
    EXPECT_TRUE(x->canaries_alive());
  }
}

}  // namespace
}  // namespace af
