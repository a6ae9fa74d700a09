#include "parallel/comm.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <utility>

#include "parallel/comm_engine.h"

namespace af {

const char* name_of(Axis axis) {
  constexpr const char* names[kAxes] = {"world", "tp", "cp", "ep", "etp", "dp", "edp", "pp"};
  return names[int(axis)];
}

const char* name_of(CommKind kind) {
  constexpr const char* names[] = {"all_reduce", "all_gather", "reduce_scatter", "all_to_all_v", "broadcast", "send", "receive", "barrier"};
  return names[int(kind)];
}

Pending& Pending::operator=(Pending&& other) {
  if (this != &other) {
    wait();
    operation_ = std::exchange(other.operation_, nullptr);
  }
  return *this;
}

Pending::~Pending() noexcept(false) {
  if (!operation_) return;
  if (std::uncaught_exceptions() && !done()) {
    operation_->group->engine->abandon(operation_);
  } else if (std::uncaught_exceptions()) {
    try {
      wait();
    } catch (const InternalError&) {  // the error under way came first
    }
  } else {
    wait();
  }
}

void Pending::wait() {
  if (comm::Operation* operation = std::exchange(operation_, nullptr)) operation->group->engine->wait(operation);
}

bool Pending::done() const { return !operation_ || operation_->state.load() != comm::Operation::State::running; }

int Comm::rank_of_group() const { return group_->rank; }
int Comm::size_of_group() const { return group_->size(); }
Axis Comm::axis() const { return group_ ? group_->axis : Axis::world; }
int Comm::world_rank(int rank) const { return group_ ? group_->members[std::size_t(rank)] : 0; }
AxisBytes Comm::bytes() const { return group_ ? group_->engine->bytes() : AxisBytes(); }
double Comm::seconds_waited() const { return group_ ? double(group_->engine->waited()) * 1e-9 : 0; }
comm::Engine* Comm::engine() const { return group_ ? group_->engine : nullptr; }

Comm Comm::split(Axis axis, int color, int key) const {
  if (!group_) return {};
  struct Choice {
    std::int64_t color, key, next_group;
  };
  const int n = size();
  Choice mine = {color, key, group_->engine->next_group()};
  std::vector<Choice> all(static_cast<std::size_t>(n));
  all_gather(Tensor(&mine, DType::i64, {1, 3}), Tensor(all.data(), DType::i64, {n, 3})).wait();
  int id = 0;
  std::vector<int> ranks;  // of this group
  for (int i = 0; i < n; ++i) {
    id = std::max(id, int(all[std::size_t(i)].next_group));
    if (all[std::size_t(i)].color == color) ranks.push_back(i);
  }
  std::stable_sort(ranks.begin(), ranks.end(), [&](int a, int b) { return all[std::size_t(a)].key < all[std::size_t(b)].key; });
  const int place = int(std::find(ranks.begin(), ranks.end(), rank()) - ranks.begin());
  for (int& r : ranks) r = group_->members[std::size_t(r)];
  comm::Group* made = group_->engine->add_group(axis, id, std::move(ranks), place);  // of one rank too, so that numbers stay in step
  return made->size() > 1 ? Comm(made) : Comm();
}

namespace {

std::uint64_t hash_of(std::span<const std::int64_t> rows) {  // FNV-1a, never 0
  std::uint64_t h = 14695981039346656037u;
  for (std::int64_t r : rows) h = (h ^ std::uint64_t(r)) * 1099511628211u;
  return h ? h : 1;
}

void copy_alone(const Tensor& x, const Tensor& out) {
  if (x.bytes() && x.data != out.data) std::memmove(out.data, x.data, x.bytes());
}

void check_pair(const char* what, const Tensor& x, const Tensor& out) {
  AF_CHECK(x.contiguous() && out.contiguous(), "{}: strided tensors {} and {}", what, x.shape.str(), out.shape.str());
  AF_CHECK(x.dtype == out.dtype, "{}: {} to {}", what, name_of(x.dtype), name_of(out.dtype));
}

// Byte offsets of parts of rows[i] rows each.
void set_offsets(std::vector<std::int64_t>& offset, std::span<const std::int64_t> rows, std::int64_t row_bytes) {
  offset.assign(1, 0);
  for (std::int64_t r : rows) offset.push_back(offset.back() + r * row_bytes);
}

void set_even_offsets(std::vector<std::int64_t>& offset, int n, std::int64_t part_bytes) {
  offset.clear();
  for (int i = 0; i <= n; ++i) offset.push_back(i * part_bytes);
}

std::int64_t sum(std::span<const std::int64_t> rows) {
  std::int64_t s = 0;
  for (std::int64_t r : rows) s += r;
  return s;
}

std::string str(std::span<const std::int64_t> rows) {
  std::string s;
  for (std::int64_t r : rows) s += (s.empty() ? "" : " ") + std::to_string(r);
  return "[" + s + "]";
}

}  // namespace

// Everything that is no property of a kind is checked by the callers.
Pending Comm::start(CommKind kind, const Tensor& x, const Tensor& out, std::span<const std::int64_t> send_rows,
                    std::span<const std::int64_t> receive_rows, int peer, Reduction reduction) const {
  comm::Engine& engine = *group_->engine;
  comm::Operation& op = engine.take(group_);
  const int n = size();
  const std::int64_t element = std::int64_t(size_of(x.dtype));
  op.x = x, op.out = out;
  op.header = {.elements = x.numel(), .root = peer, .kind = kind, .dtype = x.dtype, .reduction = reduction};
  op.send_offset.clear(), op.receive_offset.clear();
  switch (kind) {
    case CommKind::all_reduce: {  // parts as even as can be
      const int owners = comm::owners_of_sum(n, std::int64_t(x.bytes()));
      for (int i = 0; i <= n; ++i) {
        const std::int64_t part = (i * owners + n - 1) / n;
        op.send_offset.push_back((x.numel() / owners * part + std::min(part, x.numel() % owners)) * element);
      }
      break;
    }
    case CommKind::all_gather:
      if (receive_rows.empty()) {
        set_even_offsets(op.receive_offset, n, std::int64_t(x.bytes()));
      } else {
        set_offsets(op.receive_offset, receive_rows, out.cols() * element);
        op.header.elements = out.cols(), op.header.rows_hash = hash_of(receive_rows);
      }
      op.send_offset = {0, 0};
      op.send_offset.resize(std::size_t(n) + 1);
      break;
    case CommKind::reduce_scatter:
      if (send_rows.empty()) {
        set_even_offsets(op.send_offset, n, std::int64_t(out.bytes()));
      } else {
        set_offsets(op.send_offset, send_rows, x.cols() * element);
        op.header.rows_hash = hash_of(send_rows);
      }
      break;
    case CommKind::all_to_all_v:
      set_offsets(op.send_offset, send_rows, x.cols() * element);
      set_offsets(op.receive_offset, receive_rows, x.cols() * element);
      op.header.elements = x.cols();
      break;
    case CommKind::broadcast:
    case CommKind::barrier:
      op.send_offset.assign(std::size_t(n) + 1, 0);
      op.receive_offset.assign(std::size_t(n) + 1, 0);
      break;
    case CommKind::send:
    case CommKind::receive:
      break;
  }
  return Pending(engine.submit(op));
}

Pending Comm::all_reduce(const Tensor& x, Reduction reduction) const {
  AF_CHECK(x.contiguous(), "all_reduce: strided tensor {}", x.shape.str());
  if (!group_) return {};
  return start(CommKind::all_reduce, x, {}, {}, {}, 0, reduction);
}

Pending Comm::all_gather(const Tensor& x, const Tensor& out) const {
  check_pair("all_gather", x, out);
  AF_CHECK(out.numel() == size() * x.numel(), "all_gather: {} from {} ranks to {}", x.shape.str(), size(), out.shape.str());
  if (!group_) return copy_alone(x, out), Pending();
  return start(CommKind::all_gather, x, out, {}, {}, 0, Reduction::sum);
}

Pending Comm::reduce_scatter(const Tensor& x, const Tensor& out) const {
  check_pair("reduce_scatter", x, out);
  AF_CHECK(x.numel() == size() * out.numel(), "reduce_scatter: {} on {} ranks to {}", x.shape.str(), size(), out.shape.str());
  if (!group_) return copy_alone(x, out), Pending();
  return start(CommKind::reduce_scatter, x, out, {}, {}, 0, Reduction::sum);
}

Pending Comm::all_gather_v(const Tensor& x, const Tensor& out, std::span<const std::int64_t> rows) const {
  check_pair("all_gather_v", x, out);
  AF_CHECK(int(rows.size()) == size() && rows[std::size_t(rank())] * out.cols() == x.numel() && sum(rows) * out.cols() == out.numel(),
           "all_gather_v: rank {} has {} of {} rows, out is {}", rank(), x.shape.str(), str(rows), out.shape.str());
  if (!group_) return copy_alone(x, out), Pending();
  return start(CommKind::all_gather, x, out, {}, rows, 0, Reduction::sum);
}

Pending Comm::reduce_scatter_v(const Tensor& x, const Tensor& out, std::span<const std::int64_t> rows) const {
  check_pair("reduce_scatter_v", x, out);
  AF_CHECK(int(rows.size()) == size() && rows[std::size_t(rank())] * x.cols() == out.numel() && sum(rows) * x.cols() == x.numel(),
           "reduce_scatter_v: {} in parts of {} rows, out of rank {} is {}", x.shape.str(), str(rows), rank(), out.shape.str());
  if (!group_) return copy_alone(x, out), Pending();
  return start(CommKind::reduce_scatter, x, out, rows, {}, 0, Reduction::sum);
}

Pending Comm::all_to_all_v(const Tensor& x, std::span<const std::int64_t> send_rows, const Tensor& out,
                           std::span<const std::int64_t> receive_rows) const {
  check_pair("all_to_all_v", x, out);
  AF_CHECK(int(send_rows.size()) == size() && int(receive_rows.size()) == size() && x.cols() == out.cols() && sum(send_rows) == x.rows() &&
               sum(receive_rows) == out.rows(),
           "all_to_all_v: {} in parts of {} rows to {} in parts of {}", x.shape.str(), str(send_rows), out.shape.str(), str(receive_rows));
  if (!group_) return copy_alone(x, out), Pending();
  return start(CommKind::all_to_all_v, x, out, send_rows, receive_rows, 0, Reduction::sum);
}

Pending Comm::broadcast(const Tensor& x, int root) const {
  AF_CHECK(x.contiguous() && 0 <= root && root < size(), "broadcast of {} from rank {} of {}", x.shape.str(), root, size());
  if (!group_) return {};
  return start(CommKind::broadcast, x, {}, {}, {}, root, Reduction::sum);
}

Pending Comm::send(const Tensor& x, int to) const {
  AF_CHECK(x.contiguous() && 0 <= to && to < size() && to != rank(), "send of {} from rank {} of {} to rank {}", x.shape.str(), rank(), size(), to);
  return start(CommKind::send, x, {}, {}, {}, to, Reduction::sum);
}

Pending Comm::receive(const Tensor& x, int from) const {
  AF_CHECK(x.contiguous() && 0 <= from && from < size() && from != rank(), "receive of {} on rank {} of {} from rank {}", x.shape.str(), rank(),
           size(), from);
  return start(CommKind::receive, x, {}, {}, {}, from, Reduction::sum);
}

Pending Comm::barrier() const {
  if (!group_) return {};
  return start(CommKind::barrier, {}, {}, {}, {}, 0, Reduction::sum);
}

}  // namespace af
