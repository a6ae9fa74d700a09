#include "core/tensor.h"

namespace af {

Shape::Shape(std::initializer_list<std::int64_t> list) {
  AF_CHECK(list.size() <= kMaxRank, "a shape of {} dimensions, at most {}", list.size(), kMaxRank);
  for (std::int64_t d : list) dims[rank++] = d;
}

std::int64_t Shape::numel() const {
  std::int64_t n = 1;
  for (int i = 0; i < rank; ++i) n *= dims[i];
  return n;
}

bool Shape::operator==(const Shape& other) const {
  if (rank != other.rank) return false;
  for (int i = 0; i < rank; ++i)
    if (dims[i] != other.dims[i]) return false;
  return true;
}

std::string Shape::str() const {
  std::string s = "[";
  for (int i = 0; i < rank; ++i) s += (i ? ", " : "") + std::to_string(dims[i]);
  return s + "]";
}

Tensor::Tensor(void* data, DType dtype, const Shape& shape) : data(data), dtype(dtype), shape(shape) { stride = cols(); }

std::int64_t Tensor::cols() const {
  std::int64_t n = 1;
  for (int i = 1; i < shape.rank; ++i) n *= shape.dims[i];
  return n;
}

Tensor Tensor::slice_rows(std::int64_t begin, std::int64_t end) const {
  AF_CHECK(0 <= begin && begin <= end && end <= rows(), "rows {}..{} of {}", begin, end, shape.str());
  Tensor t = *this;
  t.data = static_cast<char*>(data) + std::size_t(begin * stride) * size_of(dtype);
  t.shape.dims[0] = end - begin;
  return t;
}

Tensor Tensor::slice_cols(std::int64_t begin, std::int64_t end) const {
  AF_CHECK(shape.rank == 2 && 0 <= begin && begin <= end && end <= shape[1], "columns {}..{} of {}", begin, end, shape.str());
  Tensor t = *this;
  t.data = static_cast<char*>(data) + std::size_t(begin) * size_of(dtype);
  t.shape.dims[1] = end - begin;
  return t;
}

Tensor Tensor::view(const Shape& to) const {
  AF_CHECK(to.numel() == numel(), "{} seen as {}", shape.str(), to.str());
  AF_CHECK(contiguous() || to[0] == rows(), "the strided {} seen as {}", shape.str(), to.str());
  Tensor t = *this;
  t.shape = to;
  t.stride = contiguous() ? t.cols() : stride;
  return t;
}

}  // namespace af
