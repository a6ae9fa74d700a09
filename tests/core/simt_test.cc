// The GPU's side of every kernel, on an emulated device, against the CPU; and the emulator against its own mutants.
#include "tests/core/simt.h"

#include <set>

#include "tests/core/op_scenarios.h"

namespace af {
namespace {
using namespace testing;

struct Emulated {
  Arena scratch{Device{}, "scratch"};
  Context context{Device{Device::Type::cuda, 1, nullptr, 2}, scratch};
};

constexpr Size kSizes[] = {{9, 96}, {5, 77}, {3, 4096}, {3, 2051}};  // a warp or a block per row; whole packs or not

class OnEmulatedDevice : public ::testing::TestWithParam<Scenario> {};

TEST_P(OnEmulatedDevice, EqualsTheCpu) {
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const Size size : kSizes) {
      const Numbers expected = GetParam().run(OnCpu(), dtype, size);
      for (simt::seed = 1; simt::seed <= 3; ++simt::seed) {
        Emulated device;
        const Numbers values = GetParam().run(device.context, dtype, size);
        if (GetParam().run == run_fill_normal) {
          EXPECT_EQ(values, expected);  // weights are the same bits on every machine
        } else {
          expect_near(values, expected, dtype == DType::f32 ? 4e-6 : 1.2e-2);
        }
        if (HasFailure()) FAIL() << name_of(dtype) << " [" << size.rows << ", " << size.cols << "], seed " << simt::seed;
      }
    }
}
INSTANTIATE_TEST_SUITE_P(Ops, OnEmulatedDevice, ::testing::ValuesIn(kScenarios), [](const auto& test) { return std::string(test.param.name); });

TEST(OnEmulatedDevice, Float64IsRefused) {
  Emulated device;
  const Operand x({4}, DType::f64);
  EXPECT_THROW(fill(device.context, x, 1), InternalError);
}

// ---------------------------------------------------------------------------- kernels with known mistakes
constexpr int kThreads = 64;

void reverse(const float* in, float* out, bool with_barrier) {
  __shared__ float shared[kThreads];
  shared[threadIdx.x] = in[threadIdx.x];
  if (with_barrier) __syncthreads();
  out[threadIdx.x] = shared[kThreads - 1 - threadIdx.x];
}
std::set<std::vector<float>> reversed_for_several_seeds(bool with_barrier) {
  std::set<std::vector<float>> results;
  std::vector<float> in(kThreads), out(kThreads);
  for (int i = 0; i < kThreads; ++i) in[std::size_t(i)] = float(i);
  for (simt::seed = 1; simt::seed <= 5; ++simt::seed) {
    simt::launch(1, kThreads, [&] { reverse(in.data(), out.data(), with_barrier); });
    results.insert(out);
  }
  return results;
}
TEST(Emulator, AMissingBarrierShowsAcrossSeeds) {
#if defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a data race by intent: ThreadSanitizer would report it";
#endif
  EXPECT_GT(reversed_for_several_seeds(false).size(), 1u);
  EXPECT_EQ(reversed_for_several_seeds(true).size(), 1u);
}

std::string error_of(const std::function<void()>& kernel) {
  try {
    simt::launch(1, kThreads, kernel);
  } catch (const simt::Error& error) {
    return error.what();
  }
  return "none";
}
TEST(Emulator, MistakesAreErrors) {
  EXPECT_EQ(error_of([] { __syncthreads(); }), "none");
  EXPECT_EQ(error_of([] {
              if (threadIdx.x < 32) __syncthreads();
            }),
            "deadlock: 32 threads have returned, 32 stand at a barrier, 0 in a warp operation");
  EXPECT_EQ(error_of([] {
              if (threadIdx.x < 32) {
                __syncthreads();
              } else {
                __syncthreads();
              }
            }),
            "the threads of a block stand at different barriers");
  EXPECT_EQ(error_of([] {
              if (threadIdx.x < 16) __syncwarp();
            }),
            "deadlock: 48 threads have returned, 0 stand at a barrier, 16 in a warp operation");
  EXPECT_EQ(error_of([] { __syncwarp(0xffff); }), "warp operation: the calling lane is not in its mask");
  EXPECT_EQ(error_of([] { __syncwarp(threadIdx.x < 16 ? 0x1ffff : 0xffffffff); }), "warp operation: lanes name different masks");
  EXPECT_EQ(error_of([] { __syncthreads(); }), "none");  // and it works again
}

// A team's own mistake: without team.barrier() the row's first value may be overwritten before all have read it.
struct Shift {
  Rows<float> x;
  bool with_barrier;
  template <class Team>
  void operator()(i64 r, Team team) const {
    const auto row = x[r];
    const float first = row[0];
    if (with_barrier) team.barrier();
    team.map(
        row, [=](float v) { return v + first; }, row);
  }
};
TEST(Emulator, ATeamsMissingBarrierShowsAcrossSeeds) {
#if defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a data race by intent: ThreadSanitizer would report it";
#endif
  for (const i64 cols : {128, 4096})
    for (const bool with_barrier : {false, true}) {
      std::set<Numbers> results;
      for (simt::seed = 1; simt::seed <= 5; ++simt::seed) {
        Emulated device;
        const Operand x({2, cols}, DType::f32, Numbers(std::size_t(2 * cols), 1.));
        for_each_row(device.context.device, 2, cols, Shift{rows_of<float>(x), with_barrier});
        results.insert(x.values());
      }
      EXPECT_EQ(results.size() == 1, with_barrier) << cols;
    }
}

}  // namespace
}  // namespace af
