#include "parallel/pipeline_layout.h"

#include <algorithm>
#include <cctype>

#include "core/error.h"

namespace af {
namespace {

constexpr const char* kKey = "pipeline_model_parallel_layout";
constexpr std::size_t kMaxLength = 1 << 20;  // of a layout written out

std::string stages_in_words(int pipeline_size, int virtual_size) {
  return virtual_size == 1 ? fmt::format("pipeline_model_parallel_size {}", pipeline_size)
                           : fmt::format("pipeline_model_parallel_size {} x virtual_pipeline_model_parallel_size {} = {} virtual stages",
                                         pipeline_size, virtual_size, pipeline_size * virtual_size);
}

// Writes repetitions out: "t*3" -> "ttt", "(t|)*2" -> "t|t|". at: where to read on; depth: how many parentheses are open.
std::string written_out(const std::string& text, std::size_t& at, int depth) {
  std::string out;
  while (at < text.size()) {
    const char c = text[at++];
    if (c == ',' || std::isspace(static_cast<unsigned char>(c))) continue;
    std::string item;
    if (c == '(') {
      if (depth == 16) user_error("{} \"{}\": more than 16 parentheses deep", kKey, text);
      item = written_out(text, at, depth + 1);
    } else if (c == ')') {
      if (depth == 0) user_error("{} \"{}\": a ) at place {} that no ( opened", kKey, text, at);
      return out;
    } else if (c == 'E' || c == 't' || c == 'L' || c == '|') {
      item = c;
    } else if (c == 'm') {
      user_error("{} \"{}\": m (multi-token prediction) has no layer here; Qwen3 is E embedding, t decoder layers, L loss", kKey, text);
    } else {
      user_error("{} \"{}\": '{}' at place {}; there are E, t, L, |, *N, ( ) and commas, or numbers of layers like 3,4,4,3", kKey, text, c, at);
    }
    if (at < text.size() && text[at] == '*') {
      std::size_t count = 0, end = ++at;
      while (end < text.size() && std::isdigit(static_cast<unsigned char>(text[end])))
        count = std::min(count * 10 + std::size_t(text[end++] - '0'), kMaxLength);
      if (end == at || count == 0) user_error("{} \"{}\": * at place {} stands before no number of repetitions", kKey, text, at);
      at = end;
      if (item.size() * count > kMaxLength) user_error("{} \"{}\": {} repetitions, more than any model has", kKey, text, count);
      const std::string once = item;
      for (std::size_t i = 1; i < count; ++i) item += once;
    }
    out += item;
    if (out.size() > kMaxLength) user_error("{} \"{}\": more than any model has", kKey, text);
  }
  if (depth > 0) user_error("{} \"{}\": a ( that no ) closes", kKey, text);
  return out;
}

// What each stage has, as "E", "t..t", "L"; numbers of layers become the same.
std::vector<std::string> stages_as_letters(const std::string& text) {
  std::vector<std::string> stages;
  if (!text.empty() && text.find_first_not_of("0123456789, \t") == std::string::npos) {
    for (std::size_t at = 0; at <= text.size();) {
      const std::size_t comma = std::min(text.find(',', at), text.size());
      std::string number = text.substr(at, comma - at);
      number.erase(std::remove_if(number.begin(), number.end(), [](unsigned char c) { return std::isspace(c); }), number.end());
      if (number.empty() || number.size() > 6) user_error("{} \"{}\": \"{}\" is no number of layers", kKey, text, number);
      stages.emplace_back(std::stoul(number), 't');
      at = comma + 1;
    }
    stages.front() = "E" + stages.front();
    stages.back() += "L";
    return stages;
  }
  std::size_t at = 0;
  const std::string all = written_out(text, at, 0);
  for (std::size_t begin = 0; begin <= all.size();) {
    const std::size_t bar = std::min(all.find('|', begin), all.size());
    stages.push_back(all.substr(begin, bar - begin));
    begin = bar + 1;
  }
  return stages;
}

}  // namespace

PipelineLayout even_layout(std::int64_t layers, int pipeline_size, int virtual_size) {
  const std::int64_t stages = std::int64_t(pipeline_size) * virtual_size, least = std::max<std::int64_t>(0, stages - 2);
  if (layers < least) {
    user_error("{} layers on {}: every stage between the first (embedding) and the last (head) needs a layer, that is at least {} - 2 = {}", layers,
               stages_in_words(pipeline_size, virtual_size), stages, least);
  }
  const std::int64_t each = layers / stages, rest = layers % stages;
  PipelineLayout layout(stages);
  for (std::int64_t g = 0, begin = 0; g < stages; begin = layout[g++].end) {
    layout[g] = {begin, begin + each + (g >= stages - 1 - rest && g < stages - 1 ? 1 : 0), g == 0, g == stages - 1};
  }
  AF_CHECK(layout.back().end == layers, "even layout: {} layers placed of {}", layout.back().end, layers);
  return layout;
}

PipelineLayout parse_layout(const std::string& text, std::int64_t layers, int pipeline_size, int virtual_size) {
  const std::vector<std::string> stages = stages_as_letters(text);
  const std::int64_t wanted = std::int64_t(pipeline_size) * virtual_size, found = std::int64_t(stages.size());
  if (found != wanted) {
    user_error("{} \"{}\" has {} stages; {} needs {}", kKey, text, found, stages_in_words(pipeline_size, virtual_size), wanted);
  }
  PipelineLayout layout;
  std::int64_t placed = 0;
  for (std::int64_t g = 0; g < found; ++g) {
    const std::string& stage = stages[g];
    const std::int64_t here = std::count(stage.begin(), stage.end(), 't');
    // What a stage must look like, letter by letter.
    const std::string right = (g == 0 ? "E" : "") + std::string(here, 't') + (g == found - 1 ? "L" : "");
    if (stage != right) {
      user_error("{} \"{}\": stage {} of {} is \"{}\"; E stands once, at the begin of the first stage, L once, at the end of the last", kKey, text, g,
                 found, stage);
    }
    if (stage.empty()) {
      user_error("{} \"{}\": stage {} of {} is empty; only the first (embedding) and the last (head) may have no layer", kKey, text, g, found);
    }
    layout.push_back({placed, placed + here, g == 0, g == found - 1});
    placed += here;
  }
  if (placed != layers) {
    std::string sum;
    for (const StageLayers& stage : layout) sum += fmt::format("{}{}", sum.empty() ? "" : " + ", stage.layers());
    user_error("{} \"{}\" places {} = {} layers; num_hidden_layers is {}", kKey, text, sum, placed, layers);
  }
  return layout;
}

std::string str(const PipelineLayout& layout) {
  std::string text;
  for (std::size_t g = 0; g < layout.size(); ++g) {
    const StageLayers& stage = layout[g];
    if (g > 0) text += '|';
    if (stage.embedding) text += 'E';
    if (stage.layers() > 0) text += stage.layers() == 1 ? "t" : fmt::format("t*{}", stage.layers());
    if (stage.head) text += 'L';
  }
  return text;
}

}  // namespace af
