// A dataset is read by a child process, whatever happens to which.
#include "launch/dataset_check.h"

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <fstream>

#include "tests/data/corpus.h"

namespace af {
namespace {

TEST(DatasetCheck, SaysWhatTheDirectCheckSays) {
  ScratchFolder folder;
  Corpus(3, 20, 30, true, true).write(folder / "whole.h5");
  EXPECT_EQ(problems_in_child(folder / "whole.h5", 60), std::vector<std::string>{});
  std::ofstream(folder / "garbage.h5") << "not HDF5";
  for (const char* name : {"garbage.h5", "absent.h5"}) {
    const std::string text = complaint_of([&] { problems_of_dataset(folder / name); });
    EXPECT_NE(text, "");
    EXPECT_EQ(problems_in_child(folder / name, 60), std::vector<std::string>{text});
  }
}

TEST(DatasetCheck, GivesUpAChildThatNeverEnds) {
  ScratchFolder folder;
  ASSERT_EQ(::mkfifo((folder / "pipe.h5").c_str(), 0600), 0);  // opening it waits for a writer
  const auto begin = std::chrono::steady_clock::now();
  const std::vector<std::string> problems = problems_in_child(folder / "pipe.h5", 1);
  ASSERT_EQ(problems.size(), 1u);
  EXPECT_NE(problems[0].find("pipe.h5: could not be read within 1 s"), std::string::npos) << problems[0];
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(30));
}

// Kills the first child of its parent that is not itself: a crash inside the library, as the parent sees one. (SIGKILL: sanitizers
// catch the signals of real crashes.)
[[noreturn]] void kill_sibling() {
  const std::string list = "/proc/" + std::to_string(::getppid()) + "/task/" + std::to_string(::getppid()) + "/children";
  for (int i = 0; i < 2000; ++i, ::usleep(5000)) {
    std::ifstream children(list);
    for (pid_t child = 0; children >> child;)
      if (child != ::getpid()) {
        ::kill(child, SIGKILL);
        ::_exit(0);
      }
  }
  ::_exit(1);
}

TEST(DatasetCheck, AChildThatDiesIsAProblemOfTheFile) {
  ScratchFolder folder;
  ASSERT_EQ(::mkfifo((folder / "pipe.h5").c_str(), 0600), 0);
  const pid_t killer = ::fork();
  if (killer == 0) kill_sibling();
  const std::vector<std::string> problems = problems_in_child(folder / "pipe.h5", 30);
  int status = 1;
  ASSERT_EQ(::waitpid(killer, &status, 0), killer);
  EXPECT_EQ(status, 0);
  ASSERT_EQ(problems.size(), 1u);
  EXPECT_NE(problems[0].find("pipe.h5: is damaged so that HDF5's library crashed (Killed)"), std::string::npos) << problems[0];
}

TEST(DatasetCheck, TimeIsByTheFile) {
  ScratchFolder folder;
  std::ofstream(folder / "x").close();
  EXPECT_EQ(seconds_to_read(folder / "x"), 60);
  EXPECT_EQ(::truncate((folder / "x").c_str(), 2'000'000'000), 0);
  EXPECT_EQ(seconds_to_read(folder / "x"), 160);
  EXPECT_EQ(seconds_to_read(folder / "absent"), 60);
}

}  // namespace
}  // namespace af
