// metrics.jsonl read back with a JSON parser, and the log line in Megatron's words.
#include "launch/metrics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "core/error.h"
#include "data/json.h"

namespace af {
namespace {

StepMetrics example() {
  StepMetrics s;
  s.iteration = 7;
  s.stage = "stage1";
  s.consumed_samples = 56;
  s.consumed_tokens = 7168;
  s.lm_loss = 2.5;
  s.grad_norm = 1.25;
  s.params_norm = 30;
  s.learning_rate = 2e-5;
  s.global_batch_size = 8;
  s.iteration_time_ms = 500;
  s.tokens = 1024;
  s.model_flops = 3e11;
  s.peak_tflops = 1.2;
  s.memory_bytes = 1000;
  return s;
}

struct TemporaryFile {
  std::string path = (std::filesystem::temp_directory_path() / ("af_metrics_test_" + std::to_string(::getpid()))).string();
  TemporaryFile() { std::filesystem::remove(path); }
  ~TemporaryFile() { std::filesystem::remove(path); }
  std::string text() const {
    std::ostringstream out;
    out << std::ifstream(path).rdbuf();
    return out.str();
  }
};

TEST(JsonLine, ReadsBack) {
  const std::string odd = "quote \" backslash \\ newline \n tab \t nul " + std::string(1, '\0') + " \x7f \xc3\xa9 \xe2\x82\xac \xf0\x9f\x99\x82";
  JsonLine line;
  line.add("text", odd).add("yes", true).add("n", std::int64_t(9007199254740993)).add("x", 0.1).add("tiny", 5e-324).add("whole", 3.0);
  line.add("nan", std::nan("")).add("inf", -HUGE_VAL).add("inner", JsonLine().add("a \"key\"", 1));
  EXPECT_EQ(line.text().find('\n'), std::string::npos);
  const Json json = Json::parse(line.text(), "line");
  EXPECT_EQ(json.find("text")->string(), odd);
  EXPECT_TRUE(json.find("yes")->boolean());
  EXPECT_EQ(json.find("n")->integer(), 9007199254740993);
  EXPECT_EQ(json.find("x")->number(), 0.1);
  EXPECT_EQ(json.find("tiny")->number(), 5e-324);
  EXPECT_EQ(json.find("whole")->number(), 3.0);
  EXPECT_TRUE(json.find("nan")->is_null());
  EXPECT_TRUE(json.find("inf")->is_null());
  EXPECT_EQ(json.find("inner")->find("a \"key\"")->integer(), 1);
}

// Bytes that are not UTF-8 (a file name) become U+FFFD, one each; the strict parser would refuse them.
TEST(JsonLine, ReplacesWhatIsNotUtf8) {
  const std::pair<std::string, int> bad[] = {{"\xff", 1},        {"\xc3", 1}, {"\xc0\xaf", 2}, {"\xed\xa0\x80", 3}, {"\xf4\x90\x80\x80", 4},
                                             {"\xe0\x80\x80", 3}};
  for (const auto& [bytes, count] : bad) {
    std::string expected = "a";
    for (int i = 0; i < count; ++i) expected += "\xef\xbf\xbd";
    EXPECT_EQ(Json::parse(JsonLine().add("k", "a" + bytes + "b").text(), "line").find("k")->string(), expected + "b");
  }
}

TEST(Metrics, NamesOfTheContract) {
  StepMetrics s = example();
  const char* always[] = {"iteration",
                          "stage",
                          "consumed_samples",
                          "consumed_tokens",
                          "lm_loss",
                          "grad_norm",
                          "params_norm",
                          "learning_rate",
                          "global_batch_size",
                          "iteration_time_ms",
                          "tokens_per_second",
                          "tflops_per_gpu",
                          "mfu",
                          "memory_bytes",
                          "comm_bytes",
                          "skipped",
                          "nan"};
  const char* moe[] = {"load_balancing_loss", "z_loss", "tokens_per_expert"};
  const Json dense = Json::parse(to_json(s).text(), "line");
  for (const char* name : always) EXPECT_NE(dense.find(name), nullptr) << name;
  for (const char* name : moe) EXPECT_EQ(dense.find(name), nullptr) << name;
  for (const char* name : {"tp", "cp", "ep", "dp", "pp"}) EXPECT_EQ(dense.find("comm_bytes")->find(name)->integer(), 0) << name;
  EXPECT_EQ(dense.find("tokens_per_second")->number(), 2048);
  EXPECT_DOUBLE_EQ(dense.find("tflops_per_gpu")->number(), 0.6);
  EXPECT_DOUBLE_EQ(dense.find("mfu")->number(), 0.5);

  s.load_balancing_loss = 0.001;
  s.z_loss = 0.5;
  s.tokens_per_expert = TokensPerExpert{1, 9, 0.25};
  s.lm_loss = std::nan("");
  const Json line = Json::parse(to_json(s).text(), "line");
  for (const char* name : moe) EXPECT_NE(line.find(name), nullptr) << name;
  EXPECT_EQ(line.find("tokens_per_expert")->find("cv")->number(), 0.25);
  EXPECT_TRUE(line.find("lm_loss")->is_null());
}

TEST(MetricsFile, FlushesAppendsAndClosesATornLine) {
  TemporaryFile file;
  {
    MetricsFile metrics(file.path);
    metrics.write(example());
    EXPECT_EQ(file.text(), to_json(example()).text() + "\n");  // already there, not only when the file is closed
  }
  { std::ofstream(file.path, std::ios::app) << "{\"iteration\": 8, \"lm_l"; }  // what a killed process leaves
  MetricsFile metrics(file.path);
  metrics.write(event("resume").add("iteration", 7));
  metrics.write(event("checkpoint"));
  std::istringstream lines(file.text());
  std::vector<std::string> all;
  for (std::string line; std::getline(lines, line);) all.push_back(line);
  ASSERT_EQ(all.size(), 4u);
  EXPECT_EQ(all[2], "{\"event\": \"resume\", \"iteration\": 7}");
  EXPECT_EQ(all[3], "{\"event\": \"checkpoint\"}");
}

TEST(MetricsFile, SaysWhereItCannotWrite) { EXPECT_THROW(MetricsFile("/nowhere/at/all/metrics.jsonl"), UserError); }

TEST(LogWindow, MegatronsWordsAndAverages) {
  LogWindow window;
  StepMetrics a = example(), b = example();
  a.lm_loss = 3;
  a.load_balancing_loss = 0.25;
  b.load_balancing_loss = 0.75;
  b.iteration = 8;
  b.iteration_time_ms = 1500;
  b.skipped = b.nan = 1;
  b.tokens_per_expert = TokensPerExpert{1, 9, 0.25};
  window.add(a);
  window.add(b);
  EXPECT_EQ(window.steps(), 2);
  const std::string line = window.line(100, 6e14);  // at 3e11 FLOP/s
  // Elapsed: 2000 ms for 2 iterations, 2048 tokens and 6e11 FLOP.
  for (const char* part :
       {" iteration        8/     100 |", " consumed samples:           56 |", " consumed tokens:           7168 |",
        " elapsed time per iteration (ms): 1000.0 |", " tokens/s: 1024 |", " throughput per GPU (TFLOP/s/GPU): 0.300 |", " MFU: 25.0% |",
        " learning rate: 2.000000E-05 |", " global batch size:     8 |", " lm loss: 2.750000E+00 |", " load_balancing_loss: 5.000000E-01 |",
        " grad norm: 1.250 |", " params norm: 30.000 |", " tokens per expert (min/max/cv): 1/9/0.25 |", " number of skipped iterations:   1 |",
        " number of nan iterations:   1 |", " ETA: 00:33:20 |"}) {
    EXPECT_NE(line.find(part), std::string::npos) << part << "\nin" << line;
  }
  EXPECT_EQ(line.find("z_loss"), std::string::npos);
  EXPECT_EQ(window.steps(), 0);
  window.add(a);
  EXPECT_NE(window.line(100, 0).find(" lm loss: 3.000000E+00 |"), std::string::npos);  // begun anew
}

TEST(LogWindow, WithoutAPeakThereIsNoMfu) {
  LogWindow window;
  StepMetrics s = example();
  s.peak_tflops = 0;
  window.add(s);
  EXPECT_EQ(window.line(100, 0).find("MFU"), std::string::npos);
  EXPECT_EQ(Json::parse(to_json(s).text(), "line").find("mfu"), nullptr);
}

TEST(Duration, ForPeople) {
  EXPECT_EQ(duration(0), "00:00:00");
  EXPECT_EQ(duration(3725.4), "01:02:05");
  EXPECT_EQ(duration(86400 * 3 + 61), "3d 00:01:01");
  EXPECT_EQ(duration(std::nan("")), "?");
  EXPECT_EQ(duration(HUGE_VAL), "?");
}

}  // namespace
}  // namespace af
