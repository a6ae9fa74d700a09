// Matmul, grouped matmul and attention in GFLOP/s, ours beside CBLAS, in turns (the machine's speed wanders), medians.
//   ops_bench [threads] [substring of the rows wanted] [rounds]
#include <fmt/core.h>
#include <omp.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "core/ops/attention.h"
#include "core/ops/matmul.h"
#include "core/ops/matmul_cblas.h"

namespace af {
namespace {
constexpr double kSecondsPerRound = 0.05;

struct Bench {
  int threads, rounds;
  std::string wanted;
  Arena arena{Device{}, "tensors"}, scratch{Device{}, "scratch"};
  Context context{Device{Device::Type::cpu, threads, nullptr, 0}, scratch};

  Tensor random(const Shape& shape) {
    Tensor t = arena.tensor(shape, DType::f32);
    std::minstd_rand generator(1);
    std::uniform_real_distribution<float> uniform(-1, 1);
    for (std::int64_t i = 0; i < t.numel(); ++i) t.as<float>()[i] = uniform(generator);
    return t;
  }

  double gflops(double flops, const std::function<void()>& f, int repeats) {
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < repeats; ++i) f();
    return flops * repeats / std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() * 1e-9;
  }

  bool wants(const std::string& name) const { return name.find(wanted) != std::string::npos; }
  void row(const std::string& name, double flops, const std::function<void()>& ours, const std::function<void()>& theirs = {}) {
    if (!wants(name)) return;
    ours();
    const double once = flops / gflops(flops, ours, 1) * 1e-9;
    const int repeats = int(std::clamp(kSecondsPerRound / once, 1.0, 1000.0));
    std::vector<double> a, b;
    for (int i = 0; i < rounds; ++i) {
      a.push_back(gflops(flops, ours, repeats));
      if (theirs) b.push_back(gflops(flops, theirs, repeats));
    }
    const auto median = [](std::vector<double>& v) {
      return std::nth_element(v.begin(), v.begin() + std::ptrdiff_t(v.size() / 2), v.end()), v[v.size() / 2];
    };
    const double x = median(a), y = theirs ? median(b) : 0;
    fmt::print("{:44} {:7.1f}", name, x);
    if (theirs) fmt::print("  CBLAS {:7.1f}  ratio {:.2f}", y, x / y);
    fmt::print("\n");
  }

  // y = x W^T, dx = dy W, dW += dy^T x
  void linear(std::int64_t tokens, std::int64_t in, std::int64_t out) {
    const std::string name = fmt::format("matmul {} x {} x {} ", tokens, in, out);
    if (!wants(name + "forward") && !wants(name + "dx") && !wants(name + "dw")) return;
    arena.reset();
    const Tensor x = random({tokens, in}), w = random({out, in}), y = random({tokens, out}), dw = random({out, in});
    const double flops = 2.0 * double(tokens * in) * double(out);
    const auto both = [&](const char* what, const Tensor& a, Trans ta, const Tensor& b, Trans tb, const Tensor& c, Accumulate accumulate) {
      row(
          name + what, flops, [=, this] { matmul(context, a, ta, b, tb, c, accumulate); },
          [=, this] { matmul_cblas(context, a, ta, b, tb, c, accumulate); });
    };
    both("forward", x, Trans::no, w, Trans::yes, y, Accumulate::no);
    both("dx", y, Trans::no, w, Trans::no, x, Accumulate::no);
    both("dw", y, Trans::yes, x, Trans::no, dw, Accumulate::yes);
  }

  void experts(std::int64_t count, std::int64_t tokens, std::int64_t in, std::int64_t out) {
    const std::string name = fmt::format("grouped {} x {} tokens, {} -> {} ", count, tokens, in, out);
    if (!wants(name + "forward") && !wants(name + "dx") && !wants(name + "dw")) return;
    arena.reset();
    const Tensor x = random({count * tokens, in}), w = random({count, out, in}), y = random({count * tokens, out}), dw = random({count, out, in});
    std::vector<std::int64_t> offsets;
    for (std::int64_t e = 0; e <= count; ++e) offsets.push_back(e * tokens);
    const auto each = [=](const std::function<void(const Tensor&, const Tensor&, std::int64_t)>& f) {
      for (std::int64_t e = 0; e < count; ++e) f(x.slice_rows(e * tokens, (e + 1) * tokens), y.slice_rows(e * tokens, (e + 1) * tokens), e);
    };
    const auto expert = [=](const Tensor& t, std::int64_t e) { return t.slice_rows(e, e + 1).view({out, in}); };
    const double flops = 2.0 * double(count * tokens * in) * double(out);
    row(
        name + "forward", flops, [&] { grouped_matmul(context, x, w, Trans::yes, offsets, y); },
        [&] { each([&](auto& xe, auto& ye, auto e) { matmul_cblas(context, xe, Trans::no, expert(w, e), Trans::yes, ye, Accumulate::no); }); });
    row(
        name + "dx", flops, [&] { grouped_matmul(context, y, w, Trans::no, offsets, x); },
        [&] { each([&](auto& xe, auto& ye, auto e) { matmul_cblas(context, ye, Trans::no, expert(w, e), Trans::no, xe, Accumulate::no); }); });
    row(
        name + "dw", flops, [&] { grouped_matmul_weight_gradient(context, y, x, offsets, dw); },
        [&] { each([&](auto& xe, auto& ye, auto e) { matmul_cblas(context, ye, Trans::yes, xe, Trans::no, expert(dw, e), Accumulate::yes); }); });
  }

  // FLOPs of the causal half: 4 (forward) and 10 (backward) a pair of query and key, dimension and head.
  void attention(std::int64_t documents, std::int64_t length, std::int64_t heads, std::int64_t key_heads, std::int64_t dim) {
    const std::string name = fmt::format("attention {} x {}, {}:{} heads of {} ", documents, length, heads, key_heads, dim);
    if (!wants(name + "forward") && !wants(name + "backward")) return;
    arena.reset();
    const std::int64_t tokens = documents * length;
    const Tensor q = random({tokens, heads, dim}), k = random({tokens, key_heads, dim}), v = random({tokens, key_heads, dim}),
                 o = random({tokens, heads, dim});
    const Tensor lse = random({tokens, heads}), d_o = random({tokens, heads, dim}), dq = random({tokens, heads, dim});
    const Tensor dk = random({tokens, key_heads, dim}), dv = random({tokens, key_heads, dim});
    std::vector<AttentionSegment> segments;
    for (std::int64_t i = 0; i < documents; ++i) segments.push_back({i * length, (i + 1) * length, i * length, (i + 1) * length});
    const double pairs = double(documents) * double(length) * double(length + 1) / 2 * double(heads * dim), scale = 1 / std::sqrt(double(dim));
    row(name + "forward", 4 * pairs, [&] { attention_forward(context, q, k, v, segments, scale, o, lse); });
    row(name + "backward", 10 * pairs, [&] { attention_backward(context, d_o, q, k, v, o, lse, segments, scale, dq, dk, dv); });
  }
};
}  // namespace
}  // namespace af

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 2;
  omp_set_num_threads(threads);  // CBLAS's
  af::Bench bench{threads, argc > 3 ? std::atoi(argv[3]) : 7, argc > 2 ? argv[2] : ""};
  fmt::print("GFLOP/s, {} threads\n", threads);
  bench.linear(2048, 2048, 2048);
  bench.linear(1024, 512, 3072);
  bench.linear(256, 2048, 768);
  for (std::int64_t tokens : {16, 64, 256}) bench.experts(32, tokens, 512, 512);
  for (std::int64_t tokens : {16, 64}) bench.experts(8, tokens, 2048, 1536);
  for (std::int64_t dim : {64, 128})
    for (std::int64_t length : {1024, 4096}) bench.attention(1, length, 8, 2, dim);
  bench.attention(128, 32, 8, 2, 64);
  bench.attention(20, 200, 8, 8, 64);
}
