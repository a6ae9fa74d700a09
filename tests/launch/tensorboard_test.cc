// Event files taken apart by hand; TensorBoard's own reader has its say in tests/oracle.
#include "launch/tensorboard.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>

#include "core/error.h"
#include "data/crc32c.h"
#include "data/file.h"

namespace af {
namespace {

std::string hex(std::string_view bytes) {
  std::string out;
  for (const unsigned char c : bytes) out += fmt::format("{:02x}", c);
  return out;
}

// Field by field: 09 wall_time (double), 10 step (varint), 2a summary {0a value {0a tag, 15 simple_value (float)}}.
TEST(TensorBoard, AMessageByHand) {
  const Scalar scalars[] = {{"ab", 1.5}, {"c", -2}};
  EXPECT_EQ(hex(event_message(1.0, 300, scalars)),
            "09000000000000f03f"
            "10ac02"
            "2a15"
            "0a09" "0a026162" "150000c03f"
            "0a08" "0a0163" "15000000c0");
}

// A record that TensorFlow wrote around the 24 bytes that begin every event file of version 2 (its wall_time was 1.0).
TEST(TensorBoard, ARecordByHand) {
  const std::string data("\x09\0\0\0\0\0\0\xf0\x3f\x1a\x0d" "brain.Event:2", 24);
  const std::string record = tfrecord(data);
  ASSERT_EQ(record.size(), 8 + 4 + 24 + 4u);
  EXPECT_EQ(hex(record.substr(0, 12)), "1800000000000000a37f4b22");  // the well-known first 12 bytes of event files
  EXPECT_EQ(record.substr(12, 24), data);
  std::uint32_t masked;
  std::memcpy(&masked, record.data() + 36, 4);
  EXPECT_EQ(std::rotl(masked - 0xa282ead8u, 15), crc32c(data));
}

struct Event {
  double wall_time = 0;
  std::int64_t step = 0;
  std::string file_version;
  std::map<std::string, float> values;
};

// A decoder of its own: protobuf fields of types 0, 1, 2 and 5.
struct Message {
  std::string_view rest;
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      const auto c = static_cast<unsigned char>(rest.at(0));
      rest.remove_prefix(1);
      value |= std::uint64_t(c & 0x7f) << shift;
      if (c < 0x80) return value;
    }
  }
  std::string_view take(std::size_t n) {
    if (n > rest.size()) throw std::out_of_range("field");
    const std::string_view out = rest.substr(0, n);
    rest.remove_prefix(n);
    return out;
  }
  template <class T>
  T fixed() {
    T value;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }
};

Event decode(std::string_view data) {
  Event event;
  for (Message m{data}; !m.rest.empty();) {
    switch (m.varint()) {
      case 1 << 3 | 1: event.wall_time = m.fixed<double>(); break;
      case 2 << 3 | 0: event.step = std::int64_t(m.varint()); break;
      case 3 << 3 | 2: event.file_version = m.take(m.varint()); break;
      case 5 << 3 | 2:
        for (Message summary{m.take(m.varint())}; !summary.rest.empty();) {
          EXPECT_EQ(summary.varint(), 1u << 3 | 2);
          Message value{summary.take(summary.varint())};
          EXPECT_EQ(value.varint(), 1u << 3 | 2);
          const std::string tag(value.take(value.varint()));
          EXPECT_EQ(value.varint(), 2u << 3 | 5);
          event.values[tag] = value.fixed<float>();
        }
        break;
      default: ADD_FAILURE() << "an unknown field"; return event;
    }
  }
  return event;
}

std::vector<Event> read_events(const std::string& path) {
  const std::string bytes = read_file(path);
  std::vector<Event> events;
  for (Message m{bytes}; !m.rest.empty();) {
    const std::string_view length = m.take(8);
    const auto masked = [](std::string_view part) { return std::rotr(crc32c(part), 15) + 0xa282ead8u; };
    EXPECT_EQ(m.fixed<std::uint32_t>(), masked(length));
    const std::string_view data = m.take(std::size_t(Message{length}.fixed<std::uint64_t>()));
    EXPECT_EQ(m.fixed<std::uint32_t>(), masked(data));
    events.push_back(decode(data));
  }
  return events;
}

struct TemporaryFolder {
  std::string path = (std::filesystem::temp_directory_path() / fmt::format("af_tensorboard_test_{}", ::getpid())).string();
  TemporaryFolder() { std::filesystem::remove_all(path); }
  ~TemporaryFolder() { std::filesystem::remove_all(path); }
};

TEST(TensorBoard, AStepAndAValidation) {
  TemporaryFolder folder;
  TensorBoardFile file(folder.path + "/tensorboard");
  StepMetrics step;
  step.iteration = 7, step.consumed_samples = 56, step.lm_loss = 2.5, step.grad_norm = 1.25, step.learning_rate = 0.5, step.global_batch_size = 8;
  step.iteration_time_ms = 500, step.tokens = 1000;
  file.write(step);
  LossTable table(128);
  PackedSequence sequence;
  sequence.targets = {3, -1, 4}, sequence.positions = {0, 1, 100}, sequence.roles = {std::uint8_t(Role::thought), 0, std::uint8_t(Role::action)};
  float losses[] = {1, 0, 4};
  table.add(sequence, Tensor(losses, DType::f32, {3}));
  ValidationResult result = table.result();
  result.name = "held";
  file.write(result, 7, 56);

  const std::vector<Event> events = read_events(file.file().path());  // it is flushed
  ASSERT_EQ(events.size(), 5u);
  EXPECT_EQ(events[0].file_version, "brain.Event:2");
  EXPECT_GT(events[0].wall_time, 1.5e9);
  EXPECT_EQ(events[1].step, 7);
  EXPECT_EQ(events[1].values.at("lm loss"), 2.5f);
  EXPECT_EQ(events[1].values.at("grad-norm"), 1.25f);
  EXPECT_EQ(events[1].values.at("learning-rate"), 0.5f);
  EXPECT_EQ(events[1].values.at("batch-size"), 8.0f);
  EXPECT_EQ(events[1].values.at("iteration-time"), 0.5f);
  EXPECT_EQ(events[1].values.at("tokens-per-second"), 2000.0f);
  EXPECT_FALSE(events[1].values.contains("mfu"));
  EXPECT_EQ(events[2].step, 56);
  EXPECT_EQ(events[2].values.at("lm loss vs samples"), 2.5f);
  EXPECT_FALSE(events[2].values.contains("lm loss"));
  EXPECT_EQ(events[3].step, 7);
  const std::map<std::string, float> expected = {{"lm loss validation/held", 2.5f},        {"lm loss validation ppl/held", std::exp(2.5f)},
                                                 {"lm loss validation/held/thought", 1.0f}, {"lm loss validation/held/action", 4.0f},
                                                 {"lm loss validation/held/0-64", 1.0f},    {"lm loss validation/held/64-128", 4.0f}};
  EXPECT_EQ(events[3].values.size(), expected.size());
  for (const auto& [tag, value] : expected) EXPECT_FLOAT_EQ(events[3].values.at(tag), value) << tag;
  EXPECT_EQ(events[4].step, 56);
  EXPECT_EQ(events[4].values.at("lm loss validation/held vs samples"), 2.5f);
}

// A resumed run begins a file of its own, even in the same second, and TensorBoard reads files in the order of their names.
TEST(TensorBoard, FilesFollowEachOther) {
  TemporaryFolder folder;
  std::vector<std::string> names;
  for (int i = 0; i < 3; ++i) {
    TensorBoardFile file(folder.path);
    StepMetrics step;
    step.iteration = i, step.iteration_time_ms = 1;
    file.write(step);
    names.push_back(file.file().path());
  }
  EXPECT_LT(names[0], names[1]);
  EXPECT_LT(names[1], names[2]);
  for (std::size_t i = 0; i < names.size(); ++i) EXPECT_EQ(read_events(names[i]).at(1).step, std::int64_t(i));
  std::filesystem::permissions(folder.path, std::filesystem::perms::none);
  std::filesystem::remove_all(folder.path);
  write_file(folder.path, "a file where the folder should be");
  EXPECT_THROW(TensorBoardFile(folder.path + "/tensorboard"), UserError);
}

}  // namespace
}  // namespace af
