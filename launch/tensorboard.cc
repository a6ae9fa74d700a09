#include "launch/tensorboard.h"

#include <fmt/format.h>
#include <unistd.h>

#include <bit>
#include <chrono>
#include <cmath>
#include <filesystem>

#include "core/error.h"
#include "data/crc32c.h"

namespace af {
namespace {

static_assert(std::endian::native == std::endian::little);

template <class T>
void append_bytes(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

// TFRecord's: a checksum of data that hold checksums would have weak spots.
std::uint32_t masked_crc(std::string_view bytes) { return std::rotr(crc32c(bytes), 15) + 0xa282ead8u; }

// Protocol buffers: a field is (number << 3 | wire type) and its value.
void append_varint(std::string& out, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += char(value | 0x80);
  out += char(value);
}
enum Wire { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };
void append_key(std::string& out, int field, Wire wire) { append_varint(out, std::uint64_t(field << 3 | wire)); }
void append_field(std::string& out, int field, std::string_view bytes) {
  append_key(out, field, kBytes);
  append_varint(out, bytes.size());
  out += bytes;
}

std::string event_head(double wall_time) {
  std::string out;
  append_key(out, 1, kFixed64);
  append_bytes(out, wall_time);
  return out;
}

double now() { return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(); }

std::string host_name() {
  char name[256] = {};
  return gethostname(name, sizeof name - 1) == 0 ? name : "localhost";
}

std::vector<Scalar> over_samples(std::vector<Scalar> scalars) {
  for (Scalar& scalar : scalars) scalar.tag += " vs samples";
  return scalars;
}

}  // namespace

std::string tfrecord(std::string_view data) {
  std::string out;
  append_bytes(out, std::uint64_t(data.size()));
  append_bytes(out, masked_crc(out));
  out += data;
  append_bytes(out, masked_crc(data));
  return out;
}

std::string event_message(double wall_time, std::int64_t step, std::span<const Scalar> scalars) {
  std::string summary;
  for (const Scalar& scalar : scalars) {
    std::string value;
    append_field(value, 1, scalar.tag);
    append_key(value, 2, kFixed32);
    append_bytes(value, float(scalar.value));
    append_field(summary, 1, value);
  }
  std::string out = event_head(wall_time);
  append_key(out, 2, kVarint);
  append_varint(out, std::uint64_t(step));
  append_field(out, 5, summary);
  return out;
}

TensorBoardFile::TensorBoardFile(const std::string& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  const std::int64_t seconds = std::int64_t(now());  // ten digits: TensorBoard reads the files in the order of their names
  for (int attempt = 0; !file_; ++attempt)
    if (const std::string path = fmt::format("{}/events.out.tfevents.{:010}.{}.{}.{}", folder, seconds, host_name(), getpid(), attempt); !std::filesystem::exists(path))
      file_.emplace(path);
  std::string first = event_head(now());
  append_field(first, 3, "brain.Event:2");  // file_version
  append(first);
}

void TensorBoardFile::append(const std::string& message) { file_->append(tfrecord(message)); }

void TensorBoardFile::write(std::int64_t step, std::span<const Scalar> scalars) { append(event_message(now(), step, scalars)); }

void TensorBoardFile::write(const StepMetrics& s) {
  std::vector<Scalar> both = {{"learning-rate", s.learning_rate}, {"batch-size", double(s.global_batch_size)}, {"lm loss", s.lm_loss}};
  if (s.load_balancing_loss) both.push_back({"load_balancing_loss", *s.load_balancing_loss});
  if (s.z_loss) both.push_back({"z_loss", *s.z_loss});
  both.push_back({"grad-norm", s.grad_norm});
  both.push_back({"params-norm", s.params_norm});
  both.push_back({"iteration-time", s.iteration_time_ms * 1e-3});
  std::vector<Scalar> once = both;
  once.push_back({"throughput", s.tflops_per_gpu()});
  once.push_back({"tokens-per-second", s.tokens_per_second()});
  if (s.peak_tflops > 0) once.push_back({"mfu", s.mfu()});
  once.push_back({"memory-bytes", double(s.memory_bytes)});
  if (s.tokens_per_expert) {
    once.push_back({"tokens-per-expert/min", s.tokens_per_expert->min});
    once.push_back({"tokens-per-expert/max", s.tokens_per_expert->max});
    once.push_back({"tokens-per-expert/cv", s.tokens_per_expert->cv});
  }
  write(s.iteration, once);
  write(s.consumed_samples, over_samples(both));
}

void TensorBoardFile::write(const ValidationResult& result, std::int64_t iteration, std::int64_t consumed_samples) {
  const std::string tag = "lm loss validation/" + result.name;
  const std::vector<Scalar> both = {{tag, result.total.mean()}, {"lm loss validation ppl/" + result.name, std::exp(result.total.mean())}};
  std::vector<Scalar> once = both;
  for (const RoleLoss& part : result.by_role) once.push_back({fmt::format("{}/{}", tag, kRoleNames[std::size_t(part.role)]), part.mean()});
  for (const PositionLoss& part : result.by_position) once.push_back({fmt::format("{}/{}-{}", tag, part.begin, part.end), part.mean()});
  write(iteration, once);
  write(consumed_samples, over_samples(both));
}

}  // namespace af
