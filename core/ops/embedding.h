// Table look-up and its transpose.
#pragma once
#include "core/memory.h"

namespace af {

// out [T, H] = table[ids - first_id]; table [V, H] holds the rows of ids first_id .. first_id + V (a share of the
// vocabulary); ids [T] int32 >= 0. Other ids: a row of zeros.
void embedding(const Context& context, const Tensor& table, const Tensor& ids, const Tensor& out, std::int64_t first_id = 0);
// d_table [V, H] (accumulator type) += scatter of dy by ids; the addends of one row are taken in token order.
void embedding_backward(const Context& context, const Tensor& dy, const Tensor& ids, const Tensor& d_table, std::int64_t first_id = 0);

}  // namespace af
