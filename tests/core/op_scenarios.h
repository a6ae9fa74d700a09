// Every operation once, as a function of the device: what it writes, as numbers. Run for several numbers of threads
// (kernel_test.cc: the same bits) and on the emulated GPU (simt_test.cc: the same up to rounding).
#pragma once
#include <algorithm>

#include "core/ops/adamw.h"
#include "core/ops/cross_entropy.h"
#include "core/ops/elementwise.h"
#include "core/ops/embedding.h"
#include "core/ops/moe.h"
#include "core/ops/norm.h"
#include "core/ops/rope.h"
#include "core/ops/swiglu.h"
#include "core/random.h"
#include "tests/core/op_fixture.h"

namespace af::testing {

struct Size {
  i64 rows, cols;
};
inline void append(Numbers& to, const Operand& from) {
  ASSERT_TRUE(from.canaries_alive());
  const Numbers v = from.values();
  to.insert(to.end(), v.begin(), v.end());
}
template <class... Operands>
Numbers outputs(const Operands&... operands) {
  Numbers all;
  (append(all, operands), ...);
  return all;
}
inline Operand zeros(const Shape& shape, DType dtype) { return Operand(shape, dtype, Numbers(std::size_t(shape.numel()), 0.)); }

inline Numbers run_rms_norm(const Context& context, DType dtype, Size size) {
  const DType acc = accumulator_of(dtype);
  const Shape shape{size.rows, size.cols};
  const Operand x = random_operand(shape, dtype, 1, 8), w = random_operand({size.cols}, dtype, 2), dy = random_operand(shape, dtype, 3);
  const Operand y(shape, dtype), rstd({size.rows}, acc), dx(shape, dtype, 8), dw = zeros({size.cols}, acc);
  rms_norm(context, x, w, 1e-6, y, rstd);
  rms_norm_backward(context, dy, x, w, rstd, dx, Accumulate::no, dw);
  rms_norm_backward(context, dy, x, w, rstd, y, Accumulate::yes, dw);
  return outputs(y, rstd, dx, dw);
}
inline Numbers run_head_norm_rope(const Context& context, DType dtype, Size size) {
  const DType acc = accumulator_of(dtype);
  Numbers all;
  for (const i64 d : {20, 128}) {
    const i64 heads = std::clamp<i64>(size.cols / d, 1, 5), positions = 32;
    const Shape shape{size.rows, heads, d};
    const Operand x = random_operand(shape, dtype, 1, 24), w = random_operand({d}, dtype, 2), dy = random_operand(shape, dtype, 3);
    const Operand at({size.rows}, DType::i32, below(size.rows, 4, int(positions))), cos({positions, d / 2}, acc), sin({positions, d / 2}, acc);
    rope_tables(context, {1e6, {}}, cos, sin);
    const HeadNormRope p{w, cos, sin, at, 1e-6};
    const Operand y(shape, dtype), rstd({size.rows, heads}, acc), dx(shape, dtype, 24), dw = zeros({d}, acc);
    head_norm_rope(context, x, p, y, rstd);
    head_norm_rope_backward(context, dy, x, p, rstd, dx, dw);
    const Numbers some = outputs(y, rstd, dx, dw, cos, sin);
    all.insert(all.end(), some.begin(), some.end());
  }
  return all;
}
inline Numbers run_swiglu(const Context& context, DType dtype, Size size) {
  const DType acc = accumulator_of(dtype);
  const Operand x = random_operand({size.rows, 2 * size.cols}, dtype, 1), scale = random_operand({size.rows}, acc, 2);
  const Operand dy = random_operand({size.rows, size.cols}, dtype, 3), y({size.rows, size.cols}, dtype, 8), dx({size.rows, 2 * size.cols}, dtype);
  const Operand plain({size.rows, size.cols}, dtype), d_scale({size.rows}, acc);
  swiglu(context, x, {}, plain);
  swiglu(context, x, scale, y);
  swiglu_backward(context, dy, x, scale, dx, d_scale);
  return outputs(plain, y, dx, d_scale);
}
inline Numbers run_cross_entropy(const Context& context, DType dtype, Size size) {
  const DType acc = accumulator_of(dtype);
  Numbers targets = below(size.rows, 2, int(size.cols));
  targets[0] = -1;
  const Operand logits = random_operand({size.rows, size.cols}, acc, 1, 4, 3), target({size.rows}, DType::i32, targets), loss({size.rows}, acc);
  cross_entropy(context, logits, target, loss, 0.5, WithGradient::yes);
  return outputs(logits, loss);
}
inline Numbers run_embedding(const Context& context, DType dtype, Size size) {
  const i64 v = 300, h = std::min<i64>(size.cols, 270);
  const Operand table = random_operand({v, h}, dtype, 1), ids({size.rows}, DType::i32, below(size.rows, 2, int(v)));
  const Operand out({size.rows, h}, dtype, 8), d_table = random_operand({v, h}, accumulator_of(dtype), 3);
  embedding(context, table, ids, out);
  embedding_backward(context, out, ids, d_table);
  return outputs(out, d_table);
}
// Three shares of the vocabulary, the last with one entry.
inline Numbers run_cross_entropy_shares(const Context& context, DType dtype, Size size) {
  const DType acc = accumulator_of(dtype);
  const i64 cuts[] = {0, size.cols / 2, size.cols - 1, size.cols};
  Numbers targets = below(size.rows, 2, int(size.cols));
  targets[0] = -1;
  targets.back() = double(size.cols - 1);
  const Operand target({size.rows}, DType::i32, targets), all({3 * size.rows, 3}, acc), loss({size.rows}, acc), total({size.rows, 2}, acc);
  std::vector<Operand> parts;
  for (int i = 0; i < 3; ++i) {
    parts.push_back(random_operand({size.rows, cuts[i + 1] - cuts[i]}, acc, unsigned(10 + i), 4, 3));
    cross_entropy_share(context, parts.back(), target, cuts[i], all.tensor().slice_rows(i * size.rows, (i + 1) * size.rows));
  }
  cross_entropy_total(context, all, target, loss, total);
  for (int i = 0; i < 3; ++i) cross_entropy_share_gradient(context, parts[std::size_t(i)], target, cuts[i], total, 0.5);
  return outputs(parts[0], parts[1], parts[2], loss, total);
}
inline Numbers run_embedding_shares(const Context& context, DType dtype, Size size) {
  const i64 v = 300, h = std::min<i64>(size.cols, 270), first = 100;
  const Operand table = random_operand({v - 2 * first, h}, dtype, 1), ids({size.rows}, DType::i32, below(size.rows, 2, int(v)));
  const Operand out({size.rows, h}, dtype, 8), dy = random_operand({size.rows, h}, dtype, 4), d_table = random_operand({v - 2 * first, h}, accumulator_of(dtype), 3);
  embedding(context, table, ids, out, first);
  embedding_backward(context, dy, ids, d_table, first);
  return outputs(out, d_table);
}
inline Numbers run_route(const Context& context, DType dtype, Size size) {
  const DType acc = accumulator_of(dtype);
  const i64 t = size.rows * 4, experts = std::min<i64>(size.cols, 200), groups = 2;
  const int k = 5;
  Numbers all;
  for (const NormTopk norm : {NormTopk::no, NormTopk::yes}) {
    const Operand logits = random_operand({t, experts}, acc, 1), probs({t, experts}, acc), expert({t, k}, DType::i32), weight({t, k}, acc),
                  lse({t}, acc);
    const Operand d_weight = random_operand({t, k}, acc, 2), d_probs = random_operand({groups, experts}, acc, 3), d_logits({t, experts}, acc);
    const Operand counts({groups, experts}, DType::i64), sums({groups, experts}, DType::f64);
    route(context, logits, k, norm, probs, expert, weight, lse);
    route_backward(context, d_weight, {probs, expert, weight, lse, norm, d_probs, 0.1}, d_logits);
    expert_load(context, probs, expert, counts, sums);
    const Numbers some = outputs(probs, expert, weight, lse, d_logits, counts, sums);
    all.insert(all.end(), some.begin(), some.end());
  }
  return all;
}
inline Numbers run_permutation(const Context& context, DType dtype, Size size) {
  const int k = 3;
  const i64 t = size.rows, experts = 60;
  const Operand expert({t, k}, DType::i32, below(t * k, 1, int(experts))), source({t * k}, DType::i32), position({t, k}, DType::i32);
  const Operand x = random_operand({t, size.cols}, dtype, 2), weight = random_operand({t, k}, dtype, 3),
                base = random_operand({t, size.cols}, dtype, 4);
  const Operand rows({t * k, size.cols}, dtype, 8), scalars({t * k}, dtype), back({t, k}, dtype), out({t, size.cols}, dtype);
  Numbers offsets;
  std::vector<i64> host(std::size_t(experts + 1));
  permutation(context, expert, experts, source, position, host.data());
  permute_rows(context, x, source, k, rows);
  permute_scalars(context, weight, source, scalars);
  unpermute_scalars(context, scalars, position, back);
  unpermute_sum(context, rows, position, {}, out);
  unpermute_sum(context, rows, position, base, base);
  Numbers all = outputs(source, position, rows, scalars, back, out, base);
  all.insert(all.end(), host.begin(), host.end());
  return all;
}
inline Numbers run_elementwise(const Context& context, DType dtype, Size size) {
  const Shape shape{size.rows, size.cols};
  const Operand a = random_operand(shape, dtype, 1), b = random_operand(shape, dtype, 2, 8), out(shape, dtype), other(shape, DType::f32, 4),
                filled(shape, dtype, 8);
  const Operand whole({size.rows * size.cols}, DType::i32);
  add(context, a, b, out);
  scale(context, out, 1.5);
  convert(context, out, other);
  fill(context, filled, 2.5);
  fill(context, whole, 7);
  Numbers all = outputs(out, other, filled, whole);
  for (const Operand* x : {&a, &b}) {
    all.push_back(sum(context, *x));
    all.push_back(sum_of_squares(context, *x));
  }
  return all;
}
inline Numbers run_adamw(const Context& context, DType dtype, Size size) {
  const DType acc = accumulator_of(dtype);
  const i64 n = size.rows * size.cols;
  const Operand master = random_operand({n}, acc, 1), gradient = random_operand({n}, acc, 2), m = zeros({n}, acc), v = zeros({n}, acc),
                param({n}, dtype);
  for (int step = 1; step <= 2; ++step) adamw(context, {1e-2, 0.9, 0.95, 1e-8, 0.1, step, 0.5}, gradient, master, m, v, param);
  adamw(context, {1e-2, 0.9, 0.95, 1e-8, 0.1, 3, 0.5}, gradient, master, m, v, acc == dtype ? master : param);
  return outputs(master, m, v, param);
}
inline Numbers run_fill_normal(const Context& context, DType dtype, Size size) {
  const Operand out({size.rows, size.cols}, dtype, 8);
  fill_normal(context, {1, 2, 3, 4, size.cols + 9}, 0.02, out);
  return outputs(out);
}

struct Scenario {
  const char* name;
  Numbers (*run)(const Context&, DType, Size);
};
inline constexpr Scenario kScenarios[] = {
    {"rms_norm", run_rms_norm},           {"head_norm_rope", run_head_norm_rope}, {"swiglu", run_swiglu},
    {"cross_entropy", run_cross_entropy}, {"embedding", run_embedding},           {"route", run_route},
    {"permutation", run_permutation},     {"elementwise", run_elementwise},       {"adamw", run_adamw},
    {"fill_normal", run_fill_normal},     {"cross_entropy_shares", run_cross_entropy_shares}, {"embedding_shares", run_embedding_shares},
};

}  // namespace af::testing
