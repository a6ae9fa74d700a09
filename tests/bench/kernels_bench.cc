// The row kernels' memory bandwidth beside that of an axpy, in turns: kernels_bench [THREADS [PART_OF_A_NAME]]
// Counted is what moves: a line that is written without being read is fetched first.
#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "core/ops/adamw.h"
#include "core/ops/cross_entropy.h"
#include "core/ops/elementwise.h"
#include "core/ops/embedding.h"
#include "core/ops/moe.h"
#include "core/ops/norm.h"
#include "core/ops/rope.h"
#include "core/ops/swiglu.h"
#include "core/random.h"

namespace {
using namespace af;
using std::int64_t;

double seconds(const std::function<void()>& run) {
  const auto start = std::chrono::steady_clock::now();
  run();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

struct Bench {
  Device device;
  Arena memory{device, "operands"}, scratch{device, "scratch"};
  Context context{device, scratch};
  std::string wanted;
  Tensor a, b;  // of the axpy: 128 MB each
  Bench(int threads, const char* name)
      : device{Device::Type::cpu, threads}, wanted(name), a(normal({1 << 25}, DType::f32)), b(normal({1 << 25}, DType::f32)) {}

  Tensor normal(const Shape& shape, DType dtype) {
    const Tensor t = memory.tensor(shape, dtype);
    fill_normal(context, {1, 2, 0, 0, t.cols()}, 0.5, t);
    return t;
  }
  Tensor below(const Shape& shape, int64_t limit) {
    const Tensor t = memory.tensor(shape, DType::i32);
    for (int64_t i = 0; i < t.numel(); ++i) t.as<std::int32_t>()[i] = std::int32_t(random_below(1, 3, std::uint64_t(i), std::uint64_t(limit)));
    return t;
  }
  // The best of 15 runs each, for neighbours slow some of them down.
  void report(const char* name, DType dtype, double elements, double bytes, const std::function<void()>& run) {
    if (std::string(name).find(wanted) == std::string::npos) return;
    std::vector<double> ours, axpy;
    run();
    for (int i = 0; i < 15; ++i) {
      ours.push_back(seconds(run));
      axpy.push_back(seconds([&] { add(context, a, b, b); }));
    }
    const double time = *std::min_element(ours.begin(), ours.end());
    const double speed = bytes / time / 1e9, reference = 12.0 * double(a.numel()) / *std::min_element(axpy.begin(), axpy.end()) / 1e9;
    fmt::print("{:24s} {:8s} {:8.3f} ms {:7.2f} GB/s {:5.0f} % of axpy {:8.1f} M elements/s\n", name, name_of(dtype), time * 1e3, speed,
               100 * speed / reference, elements / time / 1e6);
  }
};

void run(Bench& bench, DType dtype) {
  const Context& context = bench.context;
  const DType acc = accumulator_of(dtype);
  const double size = double(size_of(dtype)), wide = double(size_of(acc));
  const int64_t t = 4096, h = 2048, f = 768, experts = 128, heads = 16, d = 128;
  const int k = 8;
  const auto make = [&](const Shape& shape, DType type) { return bench.normal(shape, type); };
  {
    const Tensor x = make({t, h}, dtype), y = make({t, h}, dtype), dy = make({t, h}, dtype), w = make({h}, dtype), rstd = make({t}, acc),
                 dw = make({h}, acc);
    const double n = double(t * h);
    bench.report("rms_norm", dtype, n, 3 * n * size, [&] { rms_norm(context, x, w, 1e-6, y, rstd); });
    bench.report("rms_norm_backward", dtype, n, 4 * n * size, [&] { rms_norm_backward(context, dy, x, w, rstd, y, Accumulate::no, dw); });
    bench.report("add", dtype, n, 4 * n * size, [&] { add(context, x, dy, y); });
    bench.report("sum_of_squares", dtype, n, n * size, [&] { sum_of_squares(context, x); });
    bench.report("fill_normal", dtype, n, 2 * n * size, [&] { fill_normal(context, {1, 2, 0, 0, h}, 0.02, y); });
    const Tensor ids = bench.below({t}, 32768), table = make({32768, h}, dtype), d_table = make({32768, h}, acc);
    bench.report("embedding", dtype, n, 3 * n * size, [&] { embedding(context, table, ids, y); });
    bench.report("embedding_backward", dtype, n, n * (size + 2 * wide), [&] { embedding_backward(context, dy, ids, d_table); });
  }
  {
    const Tensor qkv = make({t, heads * 2, d}, dtype), x = qkv.view({t, heads * 2 * d}).slice_cols(0, heads * d).view({t, heads, d});
    const Tensor y = make({t, heads, d}, dtype), w = make({d}, dtype), dw = make({d}, acc), rstd = make({t, heads}, acc);
    const Tensor at = bench.below({t}, 4096), cos = make({4096, d / 2}, acc), sin = make({4096, d / 2}, acc), dx = make({t, heads, d}, dtype);
    const HeadNormRope p{w, cos, sin, at, 1e-6};
    const double n = double(t * heads * d);
    bench.report("head_norm_rope", dtype, n, 3 * n * size, [&] { head_norm_rope(context, x, p, y, rstd); });
    bench.report("head_norm_rope_backward", dtype, n, 4 * n * size, [&] { head_norm_rope_backward(context, y, x, p, rstd, dx, dw); });
    bench.report("rope_tables", acc, 4096.0 * d, 8192.0 * d * wide, [&] { rope_tables(context, {1e6, {}}, cos, sin); });
  }
  {
    const int64_t rows = 4 * t;
    const Tensor x = make({rows, 2 * f}, dtype), y = make({rows, f}, dtype), dx = make({rows, 2 * f}, dtype), s = make({rows}, acc),
                 ds = make({rows}, acc);
    const double n = double(rows * f);
    bench.report("swiglu", dtype, n, 4 * n * size, [&] { swiglu(context, x, {}, y); });
    bench.report("swiglu_backward", dtype, n, 7 * n * size, [&] { swiglu_backward(context, y, x, {}, dx, {}); });
    bench.report("swiglu_backward, scaled", dtype, n, 7 * n * size, [&] { swiglu_backward(context, y, x, s, dx, ds); });
  }
  {
    const Tensor logits = make({t, experts}, acc), probs = make({t, experts}, acc), d_logits = make({t, experts}, acc), lse = make({t}, acc);
    const Tensor expert = bench.memory.tensor({t, k}, DType::i32), weight = make({t, k}, acc), position = bench.memory.tensor({t, k}, DType::i32);
    const Tensor source = bench.memory.tensor({t * k}, DType::i32), x = make({t, h}, dtype), rows = make({t * k, h}, dtype);
    const double n = double(t * experts), m = double(t * h);
    std::vector<int64_t> offsets(experts + 1);
    bench.report("route", acc, n, 3 * n * wide, [&] { route(context, logits, k, NormTopk::yes, probs, expert, weight, lse); });
    bench.report("route_backward", acc, n, 3 * n * wide, [&] {
      route_backward(context, weight, {probs, expert, weight, lse, NormTopk::yes, {}, 0}, d_logits);
    });
    bench.report("permutation", DType::i32, double(t * k), double(t * k) * 12,
                 [&] { permutation(context, expert, experts, source, position, offsets.data()); });
    bench.report("permute_rows", dtype, k * m, (2 * k + 1) * m * size, [&] { permute_rows(context, x, source, k, rows); });
    bench.report("unpermute_sum", dtype, k * m, (k + 2) * m * size, [&] { unpermute_sum(context, rows, position, {}, x); });
  }
  {
    const int64_t n = 1 << 24;
    const Tensor p = make({n}, acc), g = make({n}, acc), m = make({n}, acc), v = make({n}, acc), copy = make({n}, dtype);
    scale(context, v, 0), scale(context, m, 0);
    const bool in_place = acc == dtype;
    bench.report("adamw", dtype, double(n), double(n) * (7 * wide + (in_place ? 0 : 2 * size)), [&] {
      adamw(context, {1e-3, 0.9, 0.95, 1e-8, 0.1, 3, 1}, g, p, m, v, in_place ? p : copy);
    });
  }
  if (acc == dtype) {
    const int64_t v = 151936, rows = 128;
    const Tensor logits = make({rows, v}, acc), targets = bench.below({rows}, v), loss = make({rows}, acc);
    const double n = double(rows * v);
    bench.report("cross_entropy", acc, n, 2 * n * wide, [&] { cross_entropy(context, logits, targets, loss, 1, WithGradient::yes); });
  }
  bench.memory.reset();
}
}  // namespace

int main(int argc, char** argv) {
  Bench bench(argc > 1 ? std::atoi(argv[1]) : 2, argc > 2 ? argv[2] : "");
  for (const DType dtype : {DType::f32, DType::bf16}) {
    bench.memory.reset();
    bench.a = bench.normal({1 << 25}, DType::f32), bench.b = bench.normal({1 << 25}, DType::f32);
    run(bench, dtype);
  }
}
