#include "tests/fuzz/mutation.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <utility>

#include "tests/fuzz/hdf5_checksums.h"

#include <fmt/format.h>

namespace af::fuzz {
namespace {

constexpr std::size_t kMostBytes = 1 << 20;  // of a mutated file

const std::vector<std::uint64_t>& interesting() {
  static const std::vector<std::uint64_t> numbers = {
      0, 1, 2, 3, 7, 8, 15, 16, 31, 32, 63, 64, 127, 128, 255, 256, 511, 512, 1023, 1024, 4095, 4096, 0x7fff, 0x8000, 0xffff, 0x10000, 0xffffff,
      0x1000000, 0x7fffffff, 0x80000000, 0xffffffff, 0x100000000, 0x7fffffffffffffff, 0x8000000000000000, 0xffffffffffffffff, 0xfffffffffffffffe,
      0x2000000000000000, 0x1fffffffffffffff, 0x4000000000000000, 0x3fffffffffffffff};
  return numbers;
}

const std::vector<std::string>& values() {  // in the place of a number or word of a text
  static const std::vector<std::string> words = {
      "0", "-1", "-0", "1", "2", "3", "127", "128", "255", "256", "65535", "65536", "16777215", "16777216", "2147483647", "2147483648",
      "4294967295",
      "4294967296", "-2147483648", "9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809",
      "18446744073709551615", "18446744073709551616", "4611686018427387904", "1e308", "1e309", "-1e309", "1e-400", "0.1", "1.5", "1e6",
      "1e18", "1e19",
      "NaN", "Infinity", ".inf", ".nan", "0x10", "0o7", "1_000", "007", "+1", "1.", "true", "false", "null", "~", "yes", "\"\"", "\"x\"",
      "\"\\u0000\"",
      "\"\\ud800\"", "[]", "{}", "[1]", "[[]]", "{\"a\":1}", "[0, -1]", "''", "", "100000", "1000000"};
  return words;
}

bool of_number(char c) { return (c >= '0' && c <= '9') || c == '-' || c == '+' || c == '.' || c == 'e' || c == 'E'; }

// [begin, end) of a number in the text; empty where there is none.
std::pair<std::size_t, std::size_t> some_number(Random& random, const std::string& text, std::size_t begin, std::size_t end) {
  for (int attempt = 0; attempt < 20 && begin < end; ++attempt) {
    std::size_t at = begin + random.below(end - begin);
    while (at < end && !(text[at] >= '0' && text[at] <= '9')) ++at;
    if (at >= end) continue;
    std::size_t first = at, last = at;
    while (first > begin && of_number(text[first - 1])) --first;
    while (last < end && of_number(text[last])) ++last;
    return {first, last};
  }
  return {begin, begin};
}

std::string repeated(std::string_view part, std::size_t times) {
  std::string out;
  for (std::size_t i = 0; i < times && out.size() < kMostBytes; ++i) out += part;
  return out;
}

std::string nested(Random& random, Syntax syntax) {
  static const std::vector<std::size_t> depths = {3, 100, 499, 511, 512, 513, 2000, 30000, 200000};
  const std::size_t depth = random.of(depths), closed = random.one_in(3) ? 0 : depth;
  switch (random.below(syntax == Syntax::yaml ? 5 : 2)) {
    case 0:
      return repeated("[", depth) + repeated("]", closed);
    case 1:
      return repeated("{\"a\":", depth) + "1" + repeated("}", closed);
    case 2:
      return "\n" + repeated("- ", depth) + "1\n";
    case 3:
      return repeated("? ", depth) + "1\n";
    default: {
      std::string out = "\n";
      for (std::size_t i = 0; i < std::min<std::size_t>(depth, 1000); ++i) out += std::string(i, ' ') + "a:\n";
      return out;
    }
  }
}

std::string yaml_piece(Random& random) {
  static const std::vector<std::string> pieces = {
      "&a ", "*a", "*b", "&a [*a]", "<<: *a\n", "<<: {a: 1}\n",
      "!!binary ", "!!int ", "!!str ", "!<tag:x> ", "! ", "---\n", "...\n", "%YAML 1.2\n---\n",
      "%TAG ! tag:x,2000:\n", "\t", "\r\n", "|\n", ">\n", "|+9\n", "# ", "? ", ": ", "- ", "\"", "'", "{", "}", "[", "]", ",", "\"\\x\"",
      "\"\\uD800\"",
      "\"\\U00110000\"", "\xef\xbb\xbf", "\xff\xfe", "@", "`", "a: 1\n", "a: &a 1\nb: *a\n", "stages: []\n", "model: {preset: tiny_moe}\n",
      "null", "~: ~\n"};
  if (random.one_in(6)) {  // each line ten of the one before
    std::string bomb = "\nz0: &z0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n";
    const std::size_t lines = 1 + random.below(12);
    for (std::size_t i = 1; i < lines; ++i) bomb += fmt::format("z{}: &z{} [{}*z{}]\n", i, i, repeated(fmt::format("*z{}, ", i - 1), 9), i - 1);
    return bomb;
  }
  return random.of(pieces);
}

// Changes any bytes. Every case says what it did.
std::string change_bytes(Random& random, std::string& bytes, const std::string& other) {
  const std::size_t size = bytes.size();
  const auto block = [&](std::size_t most) { return 1 + random.below(std::min(most, std::max<std::size_t>(size, 1))); };
  switch (random.below(12)) {
    case 0:
    case 1: {
      if (size == 0) return "nothing to flip";
      const std::size_t at = random.below(size), bit = random.below(8);
      bytes[at] = char(bytes[at] ^ (1 << bit));
      return fmt::format("bit {} of byte {} flipped", bit, at);
    }
    case 2: {
      if (size == 0) return "nothing to set";
      const std::size_t at = random.below(size);
      bytes[at] = char(random.bits());
      return fmt::format("byte {} set", at);
    }
    case 3:
    case 4: {
      std::uint64_t number = random.of(interesting());
      const std::size_t width = std::size_t(1) << random.below(4);
      if (size < width) return "too short for a number";
      std::size_t at = random.below(size - width + 1);
      if (random.one_in(2)) at = at / width * width;
      if (random.one_in(4)) number = __builtin_bswap64(number) >> (64 - 8 * width);
      std::memcpy(bytes.data() + at, &number, width);
      return fmt::format("{} bytes at {} set to {:#x}", width, at, number);
    }
    case 5: {
      bytes.resize(random.below(size + 1));
      return fmt::format("cut to {} of {} bytes", bytes.size(), size);
    }
    case 6: {
      const std::size_t at = random.below(size), n = std::min(size - at, block(random.one_in(2) ? 16 : 4096));
      bytes.erase(at, n);
      return fmt::format("{} bytes at {} removed", n, at);
    }
    case 7: {
      const std::size_t from = random.below(size), n = std::min(size - from, block(random.one_in(2) ? 16 : 4096)), to = random.below(size + 1);
      const std::size_t times = random.one_in(8) ? 1 + random.below(2000) : 1;
      bytes.insert(to, repeated(std::string(bytes, from, n), times));
      return fmt::format("{} bytes at {} inserted {} times at {}", n, from, times, to);
    }
    case 8: {
      const std::size_t at = random.below(size + 1), n = block(64);
      std::string noise(n, random.one_in(2) ? '\0' : '\xff');
      if (random.one_in(2))
        for (char& c : noise) c = char(random.bits());
      bytes.insert(at, noise);
      return fmt::format("{} bytes of noise inserted at {}", n, at);
    }
    case 9: {
      const std::size_t from = random.below(size), n = std::min(size - from, block(512)), to = random.below(size);
      const std::string piece(bytes, from, n);
      bytes.replace(to, std::min(n, size - to), piece);
      return fmt::format("{} bytes at {} copied over {}", n, from, to);
    }
    case 10: {
      const std::size_t from = random.below(size), n = std::min(size - from, block(random.one_in(2) ? 8 : 4096));
      std::fill_n(bytes.begin() + std::ptrdiff_t(from), n, random.one_in(2) ? '\0' : '\xff');
      return fmt::format("{} bytes at {} wiped", n, from);
    }
    default: {
      const std::size_t at = random.below(size + 1), from = random.one_in(2) ? std::min(at, other.size()) : random.below(other.size() + 1);
      bytes = std::string(bytes, 0, at) + other.substr(from);
      return fmt::format("continued at {} with another sample from {}", at, from);
    }
  }
}

std::string change_text(Random& random, std::string& text, Syntax syntax, std::size_t begin, std::size_t end) {
  const auto [first, last] = some_number(random, text, begin, end);
  switch (random.below(6)) {
    case 0:
    case 1: {
      const std::string value = random.of(values());
      text.replace(first, last - first, value);
      return fmt::format("the number at {} is {}", first, value);
    }
    case 2: {
      const std::string piece = nested(random, syntax);
      random.one_in(2) ? text.replace(first, last - first, piece) : text.insert(begin + random.below(end - begin + 1), piece);
      return fmt::format("nested {}... of {} bytes", piece.substr(0, 12), piece.size());
    }
    case 3: {  // a word that stands between marks takes the place of another
      static constexpr std::string_view kMarks = "\"',:{}[]\n ";
      const auto word = [&] {
        std::size_t a = begin + random.below(end - begin + 1), b = a;
        while (a > begin && kMarks.find(text[a - 1]) == kMarks.npos) --a;
        while (b < end && kMarks.find(text[b]) == kMarks.npos) ++b;
        return std::pair(a, b);
      };
      const auto [a, b] = word();
      const auto [c, d] = word();
      const std::string from(text, c, d - c);
      text.replace(a, b - a, random.one_in(3) ? random.of(values()) : from);
      return fmt::format("the word at {} replaced", a);
    }
    case 4: {  // a line goes or comes again, elsewhere
      std::size_t a = begin + random.below(end - begin + 1);
      a = a == 0 ? 0 : text.rfind('\n', a - 1) + 1;
      const std::size_t b = std::min(text.find('\n', a), text.size() - 1);
      if (text.empty() || b == std::string::npos || a > b) return "no line";
      const std::string line(text, a, b - a + 1);
      if (random.one_in(2)) {
        text.erase(a, line.size());
        return fmt::format("line at {} removed", a);
      }
      std::size_t to = random.below(text.size());
      to = text.rfind('\n', to) + 1;
      text.insert(to, line);
      return fmt::format("line at {} again at {}", a, to);
    }
    default: {
      const std::string piece = syntax == Syntax::yaml ? yaml_piece(random) : random.of(values());
      std::size_t to = begin + random.below(end - begin + 1);
      if (random.one_in(3) && to < text.size()) to = text.rfind('\n', to) + 1;
      text.insert(to, piece);
      return fmt::format("'{}' inserted at {}", piece.substr(0, 30), to);
    }
  }
}

// The header is text whose length stands before it; the length follows unless it is what is damaged.
std::string change_safetensors(Random& random, std::string& bytes) {
  std::uint64_t length = 0;
  if (bytes.size() < 8) return "too short for a header";
  std::memcpy(&length, bytes.data(), 8);
  length = std::min<std::uint64_t>(length, bytes.size() - 8);
  if (random.one_in(8)) {
    const std::uint64_t wrong = random.one_in(2) ? random.of(interesting()) : length + random.below(64) - 32;
    std::memcpy(bytes.data(), &wrong, 8);
    return fmt::format("header of {} bytes said to have {}", length, wrong);
  }
  std::string header = bytes.substr(8, length);
  std::string story;
  if (random.one_in(4)) {
    static const std::vector<std::string> types = {"F64", "F32", "F16", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "X", ""};
    const std::size_t at = header.find("\"dtype\":\"", random.below(header.size() + 1));
    if (at == std::string::npos) return "no dtype there";
    const std::string type = random.of(types);
    header.replace(at + 9, header.find('"', at + 9) - at - 9, type);
    story = "dtype " + type;
  } else {
    story = change_text(random, header, Syntax::json, 0, header.size());
  }
  const std::uint64_t now = header.size();
  bytes = std::string(reinterpret_cast<const char*>(&now), 8) + header + bytes.substr(8 + length);
  return "header: " + story;
}

std::string change(Random& random, std::string& bytes, const std::string& other, Syntax syntax) {
  const bool knows = !random.one_in(3);
  switch (syntax) {
    case Syntax::json:
    case Syntax::yaml:
    case Syntax::lines:
      if (knows) return change_text(random, bytes, syntax, 0, bytes.size());
      break;
    case Syntax::safetensors:
      if (knows) return change_safetensors(random, bytes);
      break;
    case Syntax::hdf5: {  // metadata are few bytes among many
      if (!knows) break;
      const std::vector<Checksummed> parts = checksummed_parts(bytes);
      if (parts.empty()) break;
      const Checksummed part = random.of(parts);
      const std::size_t at = part.begin + random.below(part.size + 4);
      bytes[at] = char(random.one_in(2) ? bytes[at] ^ (1 << random.below(8)) : char(random.of(interesting())));
      return fmt::format("metadata at {}, byte {} set", part.begin, at);
    }
    case Syntax::hdf5_checksummed:
      if (std::string story = change_metadata(random, bytes); !story.empty() && !random.one_in(8)) return story;
      break;
    case Syntax::bytes:
      break;
  }
  return change_bytes(random, bytes, other);
}

}  // namespace

std::uint64_t Random::bits() {
  std::uint64_t z = state_ += 0x9e3779b97f4a7c15;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
  z = (z ^ z >> 27) * 0x94d049bb133111eb;
  return z ^ z >> 31;
}

Syntax syntax_of(const std::string& name) {
  if (name.ends_with(".json")) return Syntax::json;
  if (name.ends_with(".yaml")) return Syntax::yaml;
  if (name.ends_with(".safetensors")) return Syntax::safetensors;
  if (name.ends_with(".h5")) return Syntax::hdf5;
  if (name.ends_with(".txt") || name.ends_with(".tiktoken")) return Syntax::lines;
  return Syntax::bytes;
}

Files mutated(Random& random, const Files& sample, const std::vector<Files>& others, bool fix_checksums, std::string& story) {
  Files files = sample;
  const auto one = std::next(files.begin(), std::ptrdiff_t(random.below(files.size())));
  if (files.size() > 1 && random.one_in(50)) {
    if (random.one_in(2)) {
      story = one->first + " is missing";
      files.erase(one);
    } else {
      const auto other = std::next(files.begin(), std::ptrdiff_t(random.below(files.size())));
      story = fmt::format("{} and {} are swapped", one->first, other->first);
      std::swap(one->second, other->second);
    }
    return files;
  }
  story = one->first + ": ";
  Syntax syntax = syntax_of(one->first);
  if (syntax == Syntax::hdf5 && fix_checksums) syntax = Syntax::hdf5_checksummed;
  const Files& other = random.of(others);
  const auto same_name = other.find(one->first);
  const std::string& piece = same_name == other.end() ? other.begin()->second : same_name->second;
  for (std::size_t changes = 1 + (random.one_in(2) ? random.below(4) : 0), i = 0; i < changes; ++i) {
    story += (i == 0 ? "" : "; ") + change(random, one->second, piece, syntax);
    if (one->second.size() > kMostBytes) one->second.resize(kMostBytes);
  }
  return files;
}

}  // namespace af::fuzz
