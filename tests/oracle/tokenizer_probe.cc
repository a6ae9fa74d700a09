// Our tokenizer for tests/oracle/tokenizer_compare.py.
//   tokenizer_probe encode TOKENIZER split|recognise INPUT OUTPUT   INPUT: a JSON string a line; OUTPUT: {"ids": [...], "text": decoded} a line
//   tokenizer_probe time TOKENIZER THREADS INPUT                    seconds of encoding all of INPUT's strings, and how many tokens
//   tokenizer_probe sha256 TOKENIZER
#include <chrono>
#include <fstream>
#include <iostream>
#include <thread>

#include "core/error.h"
#include "data/json.h"
#include "data/tokenizer.h"

namespace {

std::vector<std::string> read_strings(const std::string& path) {
  std::vector<std::string> texts;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) texts.push_back(af::Json::parse(line, path, std::int64_t(texts.size()) + 1).string());
  return texts;
}

int encode(const std::vector<std::string>& arguments) {
  auto tokenizer = af::make_tokenizer(arguments[1]);
  auto encoder = tokenizer->encoder();
  auto specials = arguments[2] == "split" ? af::SpecialTokens::split : af::SpecialTokens::recognise;
  std::ofstream out(arguments[4]);
  for (const std::string& text : read_strings(arguments[3])) {
    std::vector<std::uint32_t> ids;
    encoder->encode(text, specials, ids);
    af::Json line, list{af::Json::Array()};
    for (std::uint32_t id : ids) list.push_back(id);
    line.set("ids", std::move(list));
    line.set("text", tokenizer->decode(ids));
    out << line.dump() << '\n';
  }
  return out.good() ? 0 : 1;
}

int time(const std::vector<std::string>& arguments) {
  auto tokenizer = af::make_tokenizer(arguments[1]);
  const std::size_t threads = std::stoul(arguments[2]);
  const std::vector<std::string> texts = read_strings(arguments[3]);
  std::vector<std::size_t> counts(threads);
  auto begin = std::chrono::steady_clock::now();
  std::vector<std::thread> workers;
  for (std::size_t t = 0; t < threads; ++t) {
    workers.emplace_back([&, t] {
      auto encoder = tokenizer->encoder();
      std::vector<std::uint32_t> ids;
      for (std::size_t i = t; i < texts.size(); i += threads) {
        ids.clear();
        encoder->encode(texts[i], af::SpecialTokens::recognise, ids);
        counts[t] += ids.size();
      }
    });
  }
  for (std::thread& worker : workers) worker.join();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  std::size_t tokens = 0;
  for (std::size_t count : counts) tokens += count;
  std::cout << seconds << ' ' << tokens << '\n';
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  try {
    if (arguments.size() == 5 && arguments[0] == "encode") return encode(arguments);
    if (arguments.size() == 4 && arguments[0] == "time") return time(arguments);
    if (arguments.size() == 2 && arguments[0] == "sha256") {
      std::cout << af::make_tokenizer(arguments[1])->sha256() << '\n';
      return 0;
    }
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 2;
  }
  std::cerr << "tokenizer_probe: see the head of tests/oracle/tokenizer_probe.cc\n";
  return 2;
}
