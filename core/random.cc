#include "core/random.h"

#include "core/kernel.h"

namespace af {
namespace {
using u32 = std::uint32_t;
using u64 = std::uint64_t;
struct Words {
  u32 w[4];
};

AF_HD Words philox_words(Words c, u32 k0, u32 k1) {
  AF_UNROLL
  for (int round = 0; round < 10; ++round) {
    const u64 a = u64(0xD2511F53u) * c.w[0], b = u64(0xCD9E8D57u) * c.w[2];
    c = {{u32(b >> 32) ^ c.w[1] ^ k0, u32(b), u32(a >> 32) ^ c.w[3] ^ k1, u32(a)}};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c;
}
AF_HD Words words_at(u64 seed, u64 stream, u64 index) {
  return philox_words({{u32(index), u32(index >> 32), u32(stream), u32(stream >> 32)}}, u32(seed), u32(seed >> 32));
}
AF_HD u64 join(u32 low, u32 high) { return u64(high) << 32 | low; }

// Every a * b + c is written as fma and no other is left to the compiler, which would fuse here and not there (in a loop's
// vector body and its tail, say): so the numbers are the same bits wherever they stand and on every machine.

// ln(u) for u in (0, 1], to 1e-15: u = 2^e m, m in [sqrt(1/2), sqrt(2)), ln m = 2 artanh((m - 1) / (m + 1)).
AF_HD double natural_log(double u) {
  const u64 root_half = bits<u64>(0.70710678118654752);
  const u64 shifted = bits<u64>(u) - root_half;
  const double e = double(int(u32(shifted >> 52) << 20) >> 20);  // the exponent's 12 bits, with their sign
  const double m = bits<double>((shifted & ((u64(1) << 52) - 1)) + root_half);
  const double s = (m - 1) / (m + 1), q = s * s;
  double sum = 1. / 19;
  sum = fma(sum, q, 1. / 17);
  sum = fma(sum, q, 1. / 15);
  sum = fma(sum, q, 1. / 13);
  sum = fma(sum, q, 1. / 11);
  sum = fma(sum, q, 1. / 9);
  sum = fma(sum, q, 1. / 7);
  sum = fma(sum, q, 1. / 5);
  sum = fma(sum, q, 1. / 3);
  return fma(e, 0.69314718055994531, 2 * fma(s * q, sum, s));
}
// Box-Muller, one normal per counter, so that a number needs no neighbour.
template <class T>
struct FillNormal {
  u64 seed, stream, first, global_cols;  // first: number of element (0, 0)
  double std;
  Rows<T> out;
  template <class Team>
  AF_HD void operator()(i64 r, Team team) const {
    const u64 key = seed, name = stream, begin = first + u64(r) * global_cols;
    const double factor = std;
    team.map(
        out[r],
        [=](int i) {
          const Words w = words_at(key, name, begin + u64(i));
          // 52 bits into [1, 2): no conversion of 64-bit integers, which older vector units lack
          const double a = 2 - bits<double>(join(w.w[0], w.w[1]) >> 12 | u64(0x3ff) << 52);  // (0, 1]
          const double b = bits<double>(join(w.w[2], w.w[3]) >> 12 | u64(0x3ff) << 52) - 1;  // [0, 1)
          return Acc<T>(factor * (root(-2 * natural_log(a)) * cos_turns(b)));
        },
        Index{});
  }
};
}  // namespace

std::array<u32, 4> philox(std::array<u32, 4> counter, std::array<u32, 2> key) {
  const Words w = philox_words({{counter[0], counter[1], counter[2], counter[3]}}, key[0], key[1]);
  return {w.w[0], w.w[1], w.w[2], w.w[3]};
}

u64 hash_name(std::string_view name) {
  u64 hash = 14695981039346656037u;
  for (const char c : name) hash = (hash ^ u64(static_cast<unsigned char>(c))) * 1099511628211u;
  return hash;
}

u64 random_bits(u64 seed, u64 stream, u64 index) {
  const Words w = words_at(seed, stream, index);
  return join(w.w[0], w.w[1]);
}

double random_uniform(u64 seed, u64 stream, u64 index) { return double(random_bits(seed, stream, index) >> 11) * 0x1p-53; }

u64 random_below(u64 seed, u64 stream, u64 index, u64 n) {
  AF_CHECK(n > 0, "a random number below 0");
  const u64 reject = (0 - n) % n;  // 2^64 mod n: so many low products would favour some results (Lemire, arXiv 1805.10941)
  for (u64 attempt = 0;; ++attempt) {
    const u64 x = random_bits(seed + attempt * 0x9E3779B97F4A7C15u, stream, index);
    const auto product = static_cast<unsigned __int128>(x) * n;
    if (u64(product) >= reject) return u64(product >> 64);
  }
}

void fill_normal(const Context& context, const RandomRectangle& rectangle, double std, const Tensor& out) {
  dispatch(out.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const u64 first = u64(rectangle.row_begin) * u64(rectangle.global_cols) + u64(rectangle.col_begin);
    for_each_row(context.device, out.rows(), out.cols(),
                 FillNormal<T>{rectangle.seed, rectangle.stream, first, u64(rectangle.global_cols), std, rows_of<T>(out)}, 8);
  });
}

}  // namespace af
