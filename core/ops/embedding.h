// Table look-up and its transpose.
#pragma once
#include "core/memory.h"

namespace af {

// out [T, H] = table[ids]; table [V, H], ids [T] int32 in [0, V).
void embedding(const Context& context, const Tensor& table, const Tensor& ids, const Tensor& out);
// d_table [V, H] (accumulator type) += scatter of dy by ids; the addends of one row are taken in token order.
void embedding_backward(const Context& context, const Tensor& dy, const Tensor& ids, const Tensor& d_table);

}  // namespace af
