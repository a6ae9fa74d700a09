#include "parallel/together.h"

#include <gtest/gtest.h>

#include <mutex>
#include <vector>

#include "parallel/comm_threads.h"

namespace af::test {
namespace {

// What each of 4 ranks caught: "user: ..." or "internal: ...", "" where nothing was thrown.
std::vector<std::string> caught(const std::function<void(int rank)>& work) {
  std::vector<std::string> messages(4);
  run_ranks(4, {}, [&](const Comm& world) {
    try {
      together(world, [&] { work(world.rank()); });
    } catch (const UserError& error) {
      messages[std::size_t(world.rank())] = fmt::format("user: {}", error.what());
    } catch (const InternalError& error) {
      messages[std::size_t(world.rank())] = fmt::format("internal: {}", error.what());
    }
    world.barrier().wait();  // all go on together
  });
  return messages;
}

TEST(Together, TheFirstRanksErrorIsThrownOnAll) {
  EXPECT_EQ(caught([](int) {}), std::vector<std::string>(4));
  for (std::size_t length : {0, 1, 4, 7, 1000}) {
    const std::string text(length, 'x');
    EXPECT_EQ(caught([&](int rank) { if (rank == 2) throw UserError(text); }), std::vector<std::string>(4, "user: " + text));
  }
  EXPECT_EQ(caught([&](int rank) {
              if (rank == 3) throw UserError("third");
              if (rank == 1) throw InternalError("first");
            }), std::vector<std::string>(4, "internal: first"));
  EXPECT_EQ(caught([&](int rank) { user_error("rank {}", rank); }), std::vector<std::string>(4, "user: rank 0"));
}

// Another kind of exception is itself on its own rank.
TEST(Together, AnythingElseIsAnInternalError) {
  run_ranks(2, {}, [&](const Comm& world) {
    const auto work = [&] {
      if (world.rank() == 1) throw std::out_of_range("too far");
    };
    if (world.rank() == 1) {
      EXPECT_THROW(together(world, work), std::out_of_range);
    } else {
      EXPECT_THROW(together(world, work), InternalError);
    }
  });
  EXPECT_THROW(together(Comm(), [] { throw UserError("alone"); }), UserError);
}

}  // namespace
}  // namespace af::test
