#include "parallel/together.h"

#include <exception>
#include <string>

namespace af {

void together(const Comm& group, const std::function<void()>& work) {
  if (group.size() == 1) return work();
  enum : std::int64_t { none, user, internal };
  std::exception_ptr own;
  std::string message;
  std::int64_t kind = none;
  try {
    work();
  } catch (const UserError& error) {
    own = std::current_exception(), message = error.what(), kind = user;
  } catch (const std::exception& error) {
    own = std::current_exception(), message = error.what(), kind = internal;
  }
  std::int64_t first = own ? group.size() - group.rank() : 0;  // the lower the rank, the larger
  group.all_reduce(Tensor(&first, DType::i64, {1}), Reduction::max).wait();
  if (first == 0) return;
  const int root = int(group.size() - first);
  std::int64_t head[2] = {kind, std::int64_t(message.size())};
  group.broadcast(Tensor(head, DType::i64, {2}), root).wait();
  if (group.rank() == root) message.resize(std::size_t(head[1] + 3) / 4 * 4);
  else message.assign(std::size_t(head[1] + 3) / 4 * 4, ' ');
  group.broadcast(Tensor(message.data(), DType::i32, {std::int64_t(message.size()) / 4}), root).wait();
  if (group.rank() == root) std::rethrow_exception(own);
  message.resize(std::size_t(head[1]));
  if (head[0] == user) throw UserError(message);
  throw InternalError(message);
}

}  // namespace af
