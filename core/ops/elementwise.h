// The small change: fill, convert, add, scale, and sums that are the same for any number of threads.
#pragma once
#include "core/memory.h"

namespace af {

void fill(const Context& context, const Tensor& x, double value);               // any float or integer type; strided rows allowed
void convert(const Context& context, const Tensor& from, const Tensor& to);     // between float types; strided rows allowed
void copy_integers(const Context& context, const Tensor& from, const Tensor& to);  // int32 or int64, contiguous
void add(const Context& context, const Tensor& a, const Tensor& b, const Tensor& out);  // out = a + b, same type; out may be a or b
void scale(const Context& context, const Tensor& x, double factor);
double sum_of_squares(const Context& context, const Tensor& x);                 // fp64 over chunks cut by shape alone
double sum(const Context& context, const Tensor& x);                            // likewise

}  // namespace af
