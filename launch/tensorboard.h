// Scalars for TensorBoard: an event file (TFRecord framing around Event messages, both written by hand) in a folder.
// Tags are Megatron-LM's: "lm loss", "learning-rate", "grad-norm", ... over iterations, and with " vs samples" over consumed samples.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "data/append_file.h"
#include "launch/metrics.h"
#include "launch/validation.h"

namespace af {

struct Scalar {
  std::string tag;
  double value;
};

// uint64 length, masked CRC-32C of it, the data, masked CRC-32C of these; little-endian.
std::string tfrecord(std::string_view data);
// Protocol buffer tensorflow.Event with a Summary of simple values.
std::string event_message(double wall_time, std::int64_t step, std::span<const Scalar> scalars);

// A new file of its own in the folder: a resumed run adds one, and TensorBoard shows them as one run. Flushed at each write; what a full disk
// does not take waits (data/append_file.h).
class TensorBoardFile {
 public:
  explicit TensorBoardFile(const std::string& folder);
  void write(const StepMetrics& step);
  // By source: "lm loss validation/NAME", "lm loss validation ppl/NAME", below the first ".../ROLE" and ".../BEGIN-END" of positions.
  void write(const ValidationResult& result, std::int64_t iteration, std::int64_t consumed_samples);
  const AppendFile& file() const { return *file_; }

 private:
  void write(std::int64_t step, std::span<const Scalar> scalars);
  void append(const std::string& message);
  std::optional<AppendFile> file_;
};

}  // namespace af
