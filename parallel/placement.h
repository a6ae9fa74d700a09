// Where the optimizer's state of a model lies, as rectangles of the published tensors in global coordinates: the language
// in which two layouts, or a layout and a file, understand each other.
#pragma once
#include <vector>

#include "parallel/mesh.h"
#include "parallel/optimizer.h"

namespace af {

// A rectangle [rows, cols] of a tensor; one-dimensional tensors are a single column.
struct Rectangle {
  std::int64_t row = 0, rows = 0, col = 0, cols = 0;
  std::int64_t numel() const { return rows * cols; }
  bool operator==(const Rectangle&) const = default;
};
Rectangle intersection(const Rectangle& a, const Rectangle& b);  // numel() 0 where they are disjoint

// Part of this rank's share: the rectangle's elements lie row by row, one after the other, from `offset` of the bucket's share.
struct StatePiece {
  const Slab* slab;  // whose tensor this is
  Rectangle where;   // in the tensor
  int bucket;
  std::int64_t offset;
};

// Everything in the share, or only what this rank counts (parameter.h): over all ranks each element of each tensor once.
enum class Held { all, counted };
// A flat range through a slab is up to three pieces: the end of a row, whole rows, the beginning of a row. No piece crosses a
// multiple of `segment` elements of its bucket's share.
std::vector<StatePiece> pieces_of(const ParameterSet& set, Held held, std::int64_t segment = std::int64_t(1) << 62);

// Moves a training state to another layout of the same model within the running job: master weights and moments travel over
// mesh.world (the new mesh's), the values follow from the masters. Collective.
//   set        allocate_values()d; has values and gradients afterwards
//   optimizer  of `set`, with Memory::later
// What is old is void afterwards. Its gradients are freed first (its values too where the masters are apart), its state bucket
// by bucket as soon as it is sent; new buckets are allocated as they arrive, the new gradients at the end.
// Peak on a rank: old and new values (with masters apart the new alone), the part of the old state that is not sent yet, the
// part of the new that has arrived, and kMoveSegment elements of the three states on the way out and what meets them on the way
// in. That is what the larger of the two layouts takes in training, or less, where both shares are of like size.
inline constexpr std::int64_t kMoveSegment = 1 << 20;
void redistribute(const Context& context, ParameterSet& old_set, Optimizer& old_optimizer, const Mesh& mesh, ParameterSet& set, Optimizer& optimizer,
                  std::int64_t segment = kMoveSegment);

}  // namespace af
