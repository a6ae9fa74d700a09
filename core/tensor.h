// A view of numbers in a device's memory: shape, type, row stride. It owns nothing (memory.h does) and is passed by
// value. The last dimension is contiguous; dimension 0 may be strided (a slice of columns), inner ones may not.
#pragma once
#include <cstdint>
#include <initializer_list>
#include <string>

#include "core/dtype.h"
#include "core/error.h"

namespace af {

struct Shape {
  static constexpr int kMaxRank = 4;
  int rank = 0;
  std::int64_t dims[kMaxRank] = {};

  Shape() = default;
  Shape(std::initializer_list<std::int64_t> list);
  std::int64_t operator[](int i) const { return dims[i]; }
  std::int64_t numel() const;
  bool operator==(const Shape& other) const;
  std::string str() const;  // "[3, 4]"
};

struct Tensor {
  void* data = nullptr;
  DType dtype = DType::f32;
  Shape shape;
  std::int64_t stride = 0;  // elements from row to row (dimension 0)

  Tensor() = default;
  Tensor(void* data, DType dtype, const Shape& shape);  // contiguous
  bool empty() const { return data == nullptr; }
  std::int64_t rows() const { return shape.rank ? shape.dims[0] : 1; }
  std::int64_t cols() const;  // the product of all other dimensions
  std::int64_t numel() const { return shape.numel(); }
  std::size_t bytes() const { return std::size_t(numel()) * size_of(dtype); }
  bool contiguous() const { return shape.rank == 0 || stride == cols() || rows() <= 1; }

  Tensor slice_rows(std::int64_t begin, std::int64_t end) const;
  Tensor slice_cols(std::int64_t begin, std::int64_t end) const;  // of a matrix: [R, end - begin] with the old stride
  // Same elements, other shape. The rows may be strided only where dimension 0 stays.
  Tensor view(const Shape& shape) const;

  template <class T> T* as() const {
    AF_CHECK(dtype_of<std::remove_const_t<T>>::value == dtype, "a {} tensor {} was read as another type", name_of(dtype), shape.str());
    return static_cast<T*>(data);
  }
};

}  // namespace af
