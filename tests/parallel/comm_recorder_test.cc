#include "parallel/comm_recorder.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <thread>

#include "parallel/comm_threads.h"
#include "parallel/comm_trace.h"
#include "tests/parallel/comm_cases.h"

namespace af {
namespace {

using test::tensor_of;

struct Folder {
  Folder() {
    char name[] = "/tmp/af_comm_XXXXXX";
    path = mkdtemp(name);
  }
  ~Folder() { std::filesystem::remove_all(path); }
  std::string path;
};

TEST(FlightRecorder, SurvivesSigkill) {
  Folder folder;
  const std::string path = FlightRecorder::path_of(folder.path, 3);
  const pid_t child = fork();  // without threads: a child of a threaded process may not start any
  if (child == 0) {
    FlightRecorder recorder(path, 3, 8);
    for (std::uint64_t i = 0; i < 20; ++i) {
      FlightRecord& r = recorder.at(i);
      r.number = r.sequence = i, r.axis = Axis::tp, r.kind = CommKind::all_reduce;
      r.begun = r.ended = 1000, r.missing_count = i == 19 ? 2 : 0, r.missing[0] = 1, r.missing[1] = 4;
      r.state = i < 19 ? FlightRecord::State::done : FlightRecord::State::started;
    }
    raise(SIGKILL);
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  const std::vector<FlightRecord> records = read_flight_records(path);
  ASSERT_EQ(records.size(), 8u);
  for (std::size_t i = 0; i < 8; ++i) EXPECT_EQ(records[i].number, 12 + i);
  EXPECT_EQ(records.back().str(2'000'001'000), "all_reduce #19 on axis tp (started 2.0 s before, waits for rank 1, 4)");
  EXPECT_EQ(records.front().str(2'000'001'000), "all_reduce #12 on axis tp (done 2.0 s before)");
  EXPECT_TRUE(read_flight_records(folder.path + "/none").empty());
  std::ofstream(folder.path + "/other") << "something else altogether, and long enough to be a head";
  EXPECT_TRUE(read_flight_records(folder.path + "/other").empty());
  struct stat file = {};
  { FlightRecorder fresh(folder.path + "/fresh", 0); }
  ASSERT_EQ(::stat((folder.path + "/fresh").c_str(), &file), 0);
  EXPECT_GE(file.st_blocks * 512, file.st_size) << "a store into it may find the disk full";
  EXPECT_THROW(FlightRecorder(folder.path + "/none/rank-0.flight", 0), UserError);
}

TEST(FlightRecorder, KnowsWhoWaitsForWhom) {
  Folder folder;
  ThreadOptions options;
  options.comm.recorder_directory = folder.path;
  options.comm.timeout_seconds = 0.4;
  std::string message;
  try {
    run_ranks(12, options, [&](const Comm& world) {  // a tree: rank 7 is nobody's neighbour but 6's and 8's
      std::vector<float> x(10);
      const Comm dp = world.split(Axis::dp, 0, 0);
      dp.all_reduce(tensor_of(x));
      if (world.rank() == 7) {
        float y = 0;
        world.receive(Tensor(&y, DType::f32, {1}), 3);
      } else {
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        dp.all_reduce(tensor_of(x));
      }
    });
  } catch (const InternalError& error) {
    message = error.what();
  }
  if (message.find("receive #0") < message.find("all_reduce")) {  // rank 7's own watchdog was first
    EXPECT_NE(message.find("rank 7: receive #0 on axis world (1 float32) has not ended"), std::string::npos) << message;
    EXPECT_NE(message.find("rank 3 did not arrive; rank 3 was last in all_reduce #1 on axis dp (started"), std::string::npos) << message;
  } else {
    EXPECT_NE(message.find("rank 7 did not arrive; rank 7 was last in receive #0 on axis world from rank 3 (started"), std::string::npos) << message;
  }
  const std::vector<FlightRecord> records = read_flight_records(FlightRecorder::path_of(folder.path, 8));
  ASSERT_GE(records.size(), 2u);
  const FlightRecord& last = records.back();
  EXPECT_EQ(last.state, FlightRecord::State::failed);
  EXPECT_EQ(last.kind, CommKind::all_reduce);
  EXPECT_EQ(last.sequence, 1u);
  EXPECT_EQ(last.group_size, 12);
  EXPECT_EQ(std::count(last.missing, last.missing + std::min(last.missing_count, FlightRecord::kMostMissing), 7), 1);
  EXPECT_EQ(records[records.size() - 2].state, FlightRecord::State::done);
}

// One file of all ranks: an operation that overlaps begins before its wait, and its data are there before the wait ends.
TEST(Trace, OneFileOfAllRanks) {
  Folder folder;
  const std::string path = folder.path + "/trace.json";
  ThreadOptions options;
  options.comm.trace = true;
  run_ranks(3, options, [&](const Comm& world) {
    const Comm tp = world.split(Axis::tp, 0, 0);
    std::vector<float> x(900);
    Pending p = tp.all_reduce(tensor_of(x));
    while (!p.done()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    p.wait();
    write_trace(world, path);
  });
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  int operations = 0, waits = 0;
  for (std::string line; std::getline(text, line);) {
    if (line.find("\"cat\": \"tp\"") == std::string::npos) continue;
    char name[64] = "";
    int rank = -1, row = -1;
    double ts = -1, duration = -1;
    ASSERT_EQ(
        std::sscanf(line.c_str(), "{\"name\": \"%63[^\"]\", \"cat\": \"tp\", \"ph\": \"X\", \"pid\": %d, \"tid\": %d, \"ts\": %lf, \"dur\": %lf",
                    name, &rank, &row, &ts, &duration),
        5)
        << line;
    EXPECT_GE(ts, 0);
    EXPECT_NE(line.find("\"args\": {\"axis\": \"tp\", \"seq\": 0, \"bytes\": 4800}"), std::string::npos) << line;
    const bool wait = std::string(name) == "wait all_reduce";
    EXPECT_EQ(row, wait ? 100 : int(Axis::tp));
    ++(wait ? waits : operations);
    EXPECT_TRUE(!wait || duration < 4000) << duration;
  }
  EXPECT_EQ(operations, 3);
  EXPECT_EQ(waits, 3);
  EXPECT_EQ(text.str().substr(0, 1), "{");
  EXPECT_EQ(text.str().substr(text.str().size() - 3), "]}\n");
}

}  // namespace
}  // namespace af
