#include "core/ops/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/kernel.h"

namespace af {
namespace {
// The dimension whose wave turns `rotations` times within the original context length.
double correction_dim(double rotations, int dim, double base, double length) {
  return dim * std::log(length / (rotations * 2 * std::numbers::pi)) / (2 * std::log(base));
}

// fp32 through the turns in fp64: they are exact to 1e-11 at position 131072, and no libm needs to be vectorised.
AF_HD double turns(float angle) {
  const double t = double(angle) * (0.5 / std::numbers::pi);
  return t - floor(t);
}
AF_HD float cosine(float angle) { return float(cos_turns(turns(angle))); }
AF_HD float sine(float angle) {
  const double t = turns(angle) + 0.75;
  return float(cos_turns(t < 1 ? t : t - 1));
}
AF_HD double cosine(double angle) { return ::cos(angle); }
AF_HD double sine(double angle) { return ::sin(angle); }

template <class A>
struct Tables {
  Row<const float> inverse_frequencies;
  Rows<A> cos, sin;
  A factor;
  template <class Team>
  AF_HD void operator()(i64 position, Team team) const {
    const float p = float(position);
    const A k = factor;
    team.map(
        outs(cos[position], sin[position]),
        [=](float frequency) {
          const float angle = p * frequency;
          return vals(cosine(A(angle)) * k, sine(A(angle)) * k);
        },
        inverse_frequencies);
  }
};
}  // namespace

std::vector<float> rope_inverse_frequencies(const RopeSettings& settings, int head_dim) {
  AF_CHECK(head_dim > 0 && head_dim % 2 == 0, "RoPE turns pairs: head_dim {} is not even", head_dim);
  const int half = head_dim / 2;
  std::vector<float> inverse(half);
  float low = 0, span = 1;
  if (settings.yarn) {
    const YarnScaling& yarn = *settings.yarn;
    const double length = double(yarn.original_max_position_embeddings);
    double first = correction_dim(yarn.beta_fast, head_dim, settings.theta, length);
    double last = correction_dim(yarn.beta_slow, head_dim, settings.theta, length);
    if (yarn.truncate) first = std::floor(first), last = std::ceil(last);
    first = std::max(first, 0.0);
    last = std::min(last, double(head_dim - 1));
    if (first == last) last += 0.001;
    low = float(first);
    span = float(last - first);
  }
  for (int i = 0; i < half; ++i) {
    const float wave = std::pow(float(settings.theta), float(2 * i) / float(head_dim));
    inverse[i] = 1.f / wave;
    if (settings.yarn) {  // below `low` as trained, above `low + span` slowed down by `factor`, a ramp between
      const float keep = 1.f - std::clamp((float(i) - low) / span, 0.f, 1.f);
      inverse[i] = 1.f / (float(settings.yarn->factor) * wave) * (1.f - keep) + inverse[i] * keep;
    }
  }
  return inverse;
}

double rope_attention_factor(const RopeSettings& settings) {
  if (!settings.yarn) return 1;
  if (settings.yarn->attention_factor) return *settings.yarn->attention_factor;
  return settings.yarn->factor <= 1 ? 1 : 0.1 * std::log(settings.yarn->factor) + 1;
}

void rope_tables(const Context& context, const RopeSettings& settings, const Tensor& cos, const Tensor& sin) {
  AF_CHECK(cos.shape.rank == 2 && cos.shape == sin.shape, "rope_tables: cos {}, sin {}", cos.shape.str(), sin.shape.str());
  const std::vector<float> host = rope_inverse_frequencies(settings, int(2 * cos.cols()));
  const Arena::Scope scope(context.scratch);
  const Tensor inverse = context.scratch.tensor({cos.cols()}, DType::f32);
  copy_to_device(context.device, inverse.data, host.data(), host.size() * sizeof(float));
  dispatch_accumulator(cos.dtype, [&](auto type) {
    using A = typename decltype(type)::type;
    for_each_row(context.device, cos.rows(), cos.cols(),
                 Tables<A>{row_of<const float>(inverse), rows_of<A>(cos), rows_of<A>(sin), A(rope_attention_factor(settings))}, 8);
  });
}

}  // namespace af
