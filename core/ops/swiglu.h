// SwiGLU (arXiv 2002.05202): y = silu(gate) * up, with gate and up side by side in one row.
#pragma once
#include "core/memory.h"

namespace af {

// gate_up [R, 2F], y [R, F]; row_scale [R] (accumulator type) or empty: y = row_scale * silu(gate) * up. The router's
// weight enters here, before the down projection, so that its gradient needs no expert output kept.
void swiglu(const Context& context, const Tensor& gate_up, const Tensor& row_scale, const Tensor& y);
// d_gate_up [R, 2F] overwritten, it may be gate_up itself; d_row_scale [R] overwritten (empty where row_scale is).
void swiglu_backward(const Context& context, const Tensor& dy, const Tensor& gate_up, const Tensor& row_scale, const Tensor& d_gate_up,
                     const Tensor& d_row_scale);

}  // namespace af
