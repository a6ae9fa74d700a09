#include "launch/checkpoint_tensors.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <optional>
#include <unordered_map>
#include <utility>

#include <fmt/format.h>

#include "core/ops/elementwise.h"
#include "core/random.h"
#include "data/hdf5_file.h"
#include "launch/hf_checkpoint.h"
#include "parallel/placement.h"
#include "parallel/together.h"

namespace af {
namespace {

constexpr const char* kGroups[] = {"master", "exp_avg", "exp_avg_sq"};  // as OptimizerState

H5Type h5_type(DType dtype) { return dtype == DType::f64 ? H5Type::f64 : H5Type::f32; }
std::vector<std::int64_t> dims_of(const Shape& shape) { return {shape.dims, shape.dims + shape.rank}; }
std::int64_t cols_of(const Shape& shape) { return shape.rank > 1 ? shape[1] : 1; }

// Rows of a tensor, with all their columns, and where they stand in a block's memory.
struct BlockRows {
  std::size_t tensor;
  std::int64_t row, rows, offset;
};
using Block = std::vector<BlockRows>;

// The file's elements in order, cut in blocks of at most `limit` of them (or one row).
std::vector<Block> cut_in_blocks(const std::vector<PublishedTensor>& tensors, std::int64_t limit) {
  std::vector<Block> blocks;
  std::int64_t used = limit;
  for (std::size_t t = 0; t < tensors.size(); ++t) {
    const std::int64_t cols = cols_of(tensors[t].shape);
    for (std::int64_t row = 0; row < tensors[t].shape[0];) {
      if (used > 0 && used + cols > limit) blocks.emplace_back(), used = 0;
      const std::int64_t rows = std::min(tensors[t].shape[0] - row, std::max<std::int64_t>(1, (limit - used) / cols));
      blocks.back().push_back({t, row, rows, used});
      used += rows * cols;
      row += rows;
    }
  }
  return blocks;
}

// What rank 0 knows of a piece: its tensor (index), its rectangle.
struct RemotePiece {
  std::int64_t tensor;
  Rectangle where;
};
static_assert(sizeof(RemotePiece) == 5 * sizeof(std::int64_t));

// The pieces of every rank on rank 0, one after the other; rank r has counts[r] of them.
std::vector<RemotePiece> collect(const Comm& world, std::vector<RemotePiece>& mine, std::vector<std::int64_t>& counts) {
  const std::int64_t own = std::int64_t(mine.size());
  counts.assign(std::size_t(world.size()), 0);
  counts[std::size_t(world.rank())] = own;
  Tensor all_counts(counts.data(), DType::i64, {world.size()});
  world.all_gather(all_counts.slice_rows(world.rank(), world.rank() + 1), all_counts).wait();
  if (world.size() == 1) return mine;
  std::vector<std::int64_t> send(counts.size()), receive(counts.size());
  send[0] = own;
  if (world.rank() == 0) receive = counts;
  std::int64_t total = 0;
  for (std::int64_t n : receive) total += n;
  std::vector<RemotePiece> all(static_cast<std::size_t>(total));
  world.all_to_all_v(Tensor(mine.data(), DType::i64, {own, 5}), send, Tensor(all.data(), DType::i64, {total, 5}), receive).wait();
  return all;
}

// The rows of a piece that stand in a block: part of both, and where in the block the first of its elements goes.
struct Overlap {
  std::size_t piece, entry;      // entry: which rows of the block
  Rectangle where;
  std::int64_t offset, pitch;  // in the block: of the first element, from row to row
};

template <class F>
void for_each_overlap(const Block& block, const std::vector<PublishedTensor>& tensors, const std::vector<std::vector<std::size_t>>& by_tensor,
                      const std::vector<RemotePiece>& pieces, F f) {
  for (std::size_t entry = 0; entry < block.size(); ++entry) {
    const BlockRows& rows = block[entry];
    const std::int64_t cols = cols_of(tensors[rows.tensor].shape);
    for (std::size_t i : by_tensor[rows.tensor]) {
      const Rectangle part = intersection(pieces[i].where, {rows.row, rows.rows, 0, cols});
      if (part.numel()) f(Overlap{i, entry, part, rows.offset + (part.row - rows.row) * cols + part.col, cols});
    }
  }
}

void copy_rows(const char* dense, const Overlap& part, char* block, std::size_t size) {
  for (std::int64_t r = 0; r < part.where.rows; ++r)
    std::memcpy(block + std::size_t(part.offset + r * part.pitch) * size, dense + std::size_t(r * part.where.cols) * size, std::size_t(part.where.cols) * size);
}

enum : std::int64_t { kStop, kGo };

// One rank's side of the writing. Rank 0 asks for each message when it has room; when it fails it tells the others to stop.
class TensorWriter {
 public:
  TensorWriter(const std::string& path, const ModelConfig& model, const ParameterSet& set, const Optimizer& optimizer, const Comm& world,
               std::int64_t block_bytes)
      : path_(path), optimizer_(optimizer), world_(world), dtype_(accumulator_of(set.dtype())), tensors_(published_tensors(model)),
        blocks_(cut_in_blocks(tensors_, std::max<std::int64_t>(1, block_bytes / std::int64_t(size_of(dtype_))))), held_(pieces_of(set, Held::counted)) {
    std::unordered_map<std::string, std::int64_t> index;
    for (std::size_t t = 0; t < tensors_.size(); ++t) index[tensors_[t].name] = std::int64_t(t);
    for (const StatePiece& piece : held_) {
      const auto found = index.find(piece.slab->name);
      AF_CHECK(found != index.end(), "{} is no tensor of the model", piece.slab->name);
      mine_.push_back({found->second, piece.where});
    }
    std::vector<std::int64_t> counts;
    if (world.rank() == 0) {
      pieces_ = collect(world, mine_, counts);
      for (std::size_t r = 0; r < counts.size(); ++r) rank_of_.insert(rank_of_.end(), std::size_t(counts[r]), int(r));
      stopped_.resize(counts.size());
    } else {
      collect(world, mine_, counts);
      pieces_ = mine_;
    }
    by_tensor_.resize(tensors_.size());
    for (std::size_t i = 0; i < pieces_.size(); ++i) by_tensor_[std::size_t(pieces_[i].tensor)].push_back(i);
  }

  void run() {
    std::exception_ptr failure;
    if (world_.rank() == 0) {
      attempt(failure, [&] { file_.emplace(H5File::create(path_)); });
      for (int g = 0; g < 3; ++g) {
        if (!failure) attempt(failure, [&] { file_->create_group(kGroups[g]); });
        for (const Block& block : blocks_) {
          if (!gather(g, block, !failure)) continue;
          attempt(failure, [&] { write(g, block); });
        }
      }
    } else {
      send_all();
    }
    together(world_, [&] {
      if (failure) std::rethrow_exception(failure);
      dataset_.reset();
      if (file_) file_->close();
    });
  }

 private:
  template <class F>
  static void attempt(std::exception_ptr& failure, F work) {
    try {
      work();
    } catch (...) {
      failure = std::current_exception();
    }
  }
  const char* held(int group, std::size_t piece) const {
    return static_cast<const char*>(optimizer_.state(OptimizerState(group), held_[piece].bucket).data) + std::size_t(held_[piece].offset) * size_of(dtype_);
  }
  // Whole rows of a piece lie one after the other.
  const char* held(int group, const Overlap& part) const {
    return held(group, part.piece) + std::size_t((part.where.row - mine_[part.piece].where.row) * part.where.cols) * size_of(dtype_);
  }

  // Rank 0: the block's elements in block_, or where sources_ say. Returns false where `go` is not set: whoever has a part of it is told to stop.
  bool gather(int group, const Block& block, bool go) {
    const std::size_t size = size_of(dtype_);
    struct Message {
      int rank;
      std::int64_t numel;
      std::size_t begin;
    };
    std::vector<Overlap> overlaps;
    std::vector<Message> messages;
    for_each_overlap(block, tensors_, by_tensor_, pieces_, [&](const Overlap& part) { overlaps.push_back(part); });
    std::stable_sort(overlaps.begin(), overlaps.end(), [&](const Overlap& a, const Overlap& b) { return rank_of_[a.piece] < rank_of_[b.piece]; });
    std::int64_t total = 0, received = 0;
    for (const BlockRows& rows : block) total += rows.rows * cols_of(tensors_[rows.tensor].shape);
    for (const Overlap& part : overlaps) {
      const int rank = rank_of_[part.piece];
      received += part.where.numel();
      if (rank == 0) continue;
      if (messages.empty() || messages.back().rank != rank) messages.push_back({rank, 0, std::size_t(0)});
      messages.back().numel += part.where.numel();
    }
    if (!go) {
      for (const Message& m : messages)
        if (!std::exchange(stopped_[std::size_t(m.rank)], char(1))) tell(m.rank, kStop);
      return false;
    }
    AF_CHECK(received == total, "{} of {} elements of {} and what follows are held by some rank", received, total, tensors_[block[0].tensor].name);
    block_.resize(std::max(block_.size(), std::size_t(total) * size));
    std::size_t bytes = 0;
    for (Message& m : messages) m.begin = std::exchange(bytes, bytes + std::size_t(m.numel) * size);
    messages_.resize(std::max(messages_.size(), bytes));
    std::vector<Pending> pending;
    for (const Message& m : messages) {
      pending.push_back(world_.receive(Tensor(messages_.data() + m.begin, dtype_, {m.numel}), m.rank));
      tell(m.rank, kGo);
    }
    for (Pending& p : pending) p.wait();
    sources_.clear();
    for (const BlockRows& rows : block) sources_.push_back(block_.data() + std::size_t(rows.offset) * size);
    const char* at = messages_.data();
    for (const Overlap& part : overlaps) {
      const bool own = rank_of_[part.piece] == 0, all = part.where.rows == block[part.entry].rows && part.where.cols == part.pitch;
      const char* from = own ? held(group, part) : std::exchange(at, at + std::size_t(part.where.numel()) * size);
      if (all) sources_[part.entry] = from;
      else copy_rows(from, part, block_.data(), size);
    }
    return true;
  }
  void tell(int rank, std::int64_t word) { world_.send(Tensor(&word, DType::i64, {1}), rank).wait(); }

  void write(int group, const Block& block) {
    const H5Type type = h5_type(dtype_);
    for (std::size_t entry = 0; entry < block.size(); ++entry) {
      const BlockRows& rows = block[entry];
      const PublishedTensor& tensor = tensors_[rows.tensor];
      if (rows.row == 0) dataset_.emplace(file_->create_dataset(fmt::format("{}/{}", kGroups[group], tensor.name), type, dims_of(tensor.shape)));
      std::vector<std::int64_t> begin(std::size_t(tensor.shape.rank), 0), count = dims_of(tensor.shape);
      begin[0] = rows.row;
      count[0] = rows.rows;
      dataset_->write(begin, count, type, sources_[entry]);
    }
  }

  void send_all() {
    for (int g = 0; g < 3; ++g)
      for (const Block& block : blocks_)
        if (!send(g, block)) return;
  }
  // Another rank: sends what it has of the block when it is asked to. Returns false when it is told to stop.
  bool send(int group, const Block& block) {
    messages_.clear();
    for_each_overlap(block, tensors_, by_tensor_, pieces_, [&](const Overlap& part) {
      const char* from = held(group, part);
      messages_.insert(messages_.end(), from, from + std::size_t(part.where.numel()) * size_of(dtype_));
    });
    if (messages_.empty()) return true;
    std::int64_t word = kStop;
    world_.receive(Tensor(&word, DType::i64, {1}), 0).wait();
    if (word == kStop) return false;
    world_.send(Tensor(messages_.data(), dtype_, {std::int64_t(messages_.size() / size_of(dtype_))}), 0).wait();
    return true;
  }

  const std::string& path_;
  const Optimizer& optimizer_;
  const Comm& world_;
  DType dtype_;
  std::vector<PublishedTensor> tensors_;
  std::vector<Block> blocks_;
  std::vector<StatePiece> held_;           // of this rank
  std::vector<RemotePiece> mine_;     // the same
  std::vector<RemotePiece> pieces_;   // rank 0: of all ranks; others: mine_
  std::vector<int> rank_of_;          // rank 0: of a piece
  std::vector<std::vector<std::size_t>> by_tensor_;  // into pieces_
  std::vector<char> stopped_;         // rank 0: ranks that were told to stop
  std::vector<char> block_, messages_;
  std::vector<const char*> sources_;  // of a block's rows: what one rank has as a whole is not copied
  std::optional<H5File> file_;
  std::optional<H5Dataset> dataset_;  // of the block's last tensor, which the next block may go on with
};

// The tensor of a slab, after its shape and type are checked.
H5Dataset dataset_of(const H5File& file, const char* group, const Slab& slab, DType dtype) {
  const std::string name = fmt::format("{}/{}", group, slab.name);
  if (!file.has(name)) user_error("{}: tensor {} is missing; this checkpoint belongs to another model", file.path(), name);
  H5Dataset dataset = file.dataset(name);
  if (dataset.shape() != dims_of(slab.global_shape))
    user_error("{}: tensor {} is {}, the model's is {}; this checkpoint belongs to another model", file.path(), name,
               fmt::format("[{}]", fmt::join(dataset.shape(), ", ")), slab.global_shape.str());
  if (dataset.type() != h5_type(dtype))
    user_error("{}: tensor {} is {}, this run computes in {}; resume with the same runtime.precision", file.path(), name, name_of(dataset.type()),
               name_of(dtype));
  return dataset;
}

void read_rectangle(const H5Dataset& dataset, const Rectangle& where, DType dtype, void* out) {
  std::vector<std::int64_t> begin = {where.row}, count = {where.rows};
  if (dataset.shape().size() > 1) begin.push_back(where.col), count.push_back(where.cols);
  dataset.read(begin, count, h5_type(dtype), out);
}

}  // namespace

void write_tensors(const std::string& path, const ModelConfig& model, const ParameterSet& set, const Optimizer& optimizer, const Comm& world,
                   std::int64_t block_bytes) {
  TensorWriter(path, model, set, optimizer, world, block_bytes).run();
}

void read_tensors(const std::string& path, const ParameterSet& set, Optimizer& optimizer) {
  const H5File file = H5File::open(path);
  const DType dtype = accumulator_of(set.dtype());
  const std::vector<StatePiece> pieces = pieces_of(set, Held::all);
  for (int g = 0; g < 3; ++g) {
    std::optional<H5Dataset> dataset;
    const Slab* opened = nullptr;
    for (const StatePiece& piece : pieces) {
      if (std::exchange(opened, piece.slab) != piece.slab) dataset.emplace(dataset_of(file, kGroups[g], *piece.slab, dtype));
      char* out = static_cast<char*>(optimizer.state(OptimizerState(g), piece.bucket).data) + std::size_t(piece.offset) * size_of(dtype);
      read_rectangle(*dataset, piece.where, dtype, out);
    }
  }
}

void read_values(const Context& context, const std::string& path, ParameterSet& set) {
  const H5File file = H5File::open(path);
  const DType dtype = accumulator_of(set.dtype());
  std::vector<char> buffer;
  for (const Parameter& p : set.parameters())
    for (const Slab& slab : p.slabs) {
      const H5Dataset dataset = dataset_of(file, kGroups[0], slab, dtype);
      const Tensor values = slab_view(slab, p.value);
      const std::int64_t step = std::max<std::int64_t>(1, kCheckpointBlockBytes / 8 / slab.cols);
      for (std::int64_t row = 0; row < slab.rows; row += step) {
        const std::int64_t rows = std::min(step, slab.rows - row);
        const Rectangle where{slab.row_begin + row, rows, slab.col_begin, slab.cols};
        const Tensor out = values.slice_rows(row, row + rows);
        if (dtype == set.dtype()) {
          read_rectangle(dataset, where, dtype, out.data);
          continue;
        }
        buffer.resize(std::size_t(where.numel()) * size_of(dtype));
        read_rectangle(dataset, where, dtype, buffer.data());
        convert(context, Tensor(buffer.data(), dtype, {rows, slab.cols}), out);
      }
    }
}

}  // namespace af
