// Readers of data/: JSON, safetensors, tokenizers, Megatron's datasets, token datasets.
#include <fmt/format.h>

#include <filesystem>

#include "core/error.h"
#include "data/bpe_json.h"
#include "data/bpe_tokenizer.h"
#include "data/file.h"
#include "data/json.h"
#include "data/megatron_dataset.h"
#include "data/safetensors.h"
#include "data/sha256.h"
#include "data/synthesis/chat_journal.h"
#include "data/token_dataset.h"
#include "data/tokenizer.h"
#include "launch/dataset_check.h"
#include "tests/data/bpe_toy.h"
#include "tests/fuzz/target.h"

namespace af::fuzz {
namespace {

namespace fs = std::filesystem;

Target json_target() {
  Target t;
  t.name = "json";
  t.rule = "what is read is written and read again as the same value";
  t.corpus = {{{"x.json", R"({"a": [1, -2, 3.5e-7, true, null, "text \u00e9\n\"", {"b": {}}], "c": {"d": [[[[]]]], "e": 9223372036854775807}})"}},
              {{"x.json", R"([{"k0":0,"k1":1,"k2":2,"k3":3,"k4":4,"k5":5,"k6":6,"k7":7,"k8":8,"k9":9,"ka":10,"kb":11,"kc":12,"kd":13,"ke":14,
                              "kf":15,"kg":16,"kh":17}, 1.0, "\ud83d\ude00"])"}}};
  t.read = [](const std::string& folder) {
    const Json json = Json::parse_file(folder + "/x.json");
    const std::string text = json.dump();
    if (Json::parse(text, "again") != json || Json::parse(json.dump(1), "again") != json) throw SilentDamage("does not read back: " + text);
    return text;
  };
  return t;
}

void write_safetensors(const std::string& path, const std::vector<SafetensorsInfo>& tensors) {
  SafetensorsWriter writer(path, tensors, {{"format", "pt"}});
  for (const SafetensorsInfo& info : writer.tensors()) {
    std::string bytes(std::size_t(info.bytes()), '\0');
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = char(i % 7);
    writer.write(info, 0, info.bytes(), bytes.data());
  }
  writer.finish();
}

// Every byte of the data belongs to one tensor, and every tensor's bytes are those that its shape needs.
Target safetensors_target() {
  Target t;
  t.name = "safetensors";
  t.rule = "the tensors' bytes are shape x type, and together the file's data";
  const std::string folder = scratch_folder() + "/corpus";
  fs::create_directories(folder);
  const auto sample = [&](const std::vector<SafetensorsInfo>& tensors) {
    write_safetensors(folder + "/model.safetensors", tensors);
    t.corpus.push_back({{"model.safetensors", read_file(folder + "/model.safetensors")}});
  };
  sample({{"a.weight", "F32", {3, 4}}, {"b", "BF16", {5}}, {"scalar", "I64", {}}, {"none", "F16", {0, 7}}});
  sample({{"model.embed_tokens.weight", "BF16", {8, 16}}, {"model.norm.weight", "F64", {16}}, {"x", "U8", {2, 3, 5}}});
  const std::vector<std::vector<SafetensorsInfo>> shards = {{{"a", "F32", {2, 2}}, {"b", "F32", {3}}}, {{"c", "BF16", {4}}}};
  Files sharded{{"model.safetensors.index.json", shard_index(shards, 11)}};
  for (std::size_t i = 0; i < shards.size(); ++i) {
    write_safetensors(folder + "/" + shard_name(i, 2), shards[i]);
    sharded[shard_name(i, 2)] = read_file(folder + "/" + shard_name(i, 2));
  }
  t.corpus.push_back(sharded);
  t.read = [](const std::string& path) {
    const SafetensorsFolder tensors(path);
    std::string out;
    std::map<const SafetensorsFile*, std::int64_t> bytes;
    for (const auto& [name, entry] : tensors.tensors()) {
      const SafetensorsInfo& info = *entry.info;
      std::int64_t size = std::int64_t(safetensors_size_of(info.dtype));
      for (const std::int64_t dim : info.shape) size *= dim;
      if (size != info.bytes() || info.name != name) throw SilentDamage(fmt::format("{}: {} bytes, shape {}", name, info.bytes(), info.shape_text()));
      std::string data(std::size_t(info.bytes()), '\0');
      entry.file->read(info, 0, info.bytes(), data.data());
      bytes[entry.file] += size;
      out += fmt::format("{} {} {} {}\n", name, info.dtype, info.shape_text(), sha256_hex(data));
    }
    for (const auto& [file, size] : bytes)
      if (std::uintmax_t(size) + 8 >= fs::file_size(file->path())) throw SilentDamage(fmt::format("{} bytes of tensors in a smaller file", size));
    return out;
  };
  return t;
}

std::string base64(std::string_view bytes) {
  static constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t bits = 0;
    for (std::size_t j = 0; j < 3; ++j) bits = bits << 8 | (i + j < bytes.size() ? static_cast<unsigned char>(bytes[i + j]) : 0u);
    for (std::size_t j = 0; j < 4; ++j) out += i + j > bytes.size() ? '=' : kDigits[bits >> (18 - 6 * j) & 63];
  }
  return out;
}

std::string encoded(const Tokenizer& tokenizer) {
  static const std::string kTexts[] = {"hello aab bbb \xe4\xb8\xad 123", "<|im_start|>user\nhell<|im_end|>",
                                       std::string(300, 'a') + "\xff\x80 he\xcc\x81", ""};
  const std::unique_ptr<Encoder> encoder = tokenizer.encoder();
  std::string out;
  for (const std::string& text : kTexts) {
    std::vector<std::uint32_t> ids;
    encoder->encode(text, SpecialTokens::recognise, ids);
    for (const std::uint32_t id : ids)
      if (id >= tokenizer.vocab_size()) throw SilentDamage(fmt::format("id {} of {}", id, tokenizer.vocab_size()));
    if (tokenizer.decode(ids) != encoder->normalised(text, SpecialTokens::recognise)) throw SilentDamage("decode(encode(text)) is another text");
    out += fmt::format("{}\n", fmt::join(ids, " "));
  }
  return out;
}

Target tokenizer_target() {
  Target t;
  t.name = "tokenizer";
  t.rule = "ids are below vocab_size, and decode(encode(text)) is the text";
  const std::string folder = scratch_folder() + "/tokenizer";
  fs::create_directories(folder);
  const BpeVocabulary vocabulary = toy_vocabulary();
  write_tokenizer_json(vocabulary, folder);
  const Files whole = read_files(folder);
  t.corpus.push_back(whole);
  const Json json = Json::parse(whole.at("tokenizer.json"), "tokenizer.json");
  std::string merges = "#version: 0.2\n", ranks;
  for (const Json& merge : JsonView(json, "tokenizer.json")["model"]["merges"].array()) merges += merge.string() + "\n";
  Json config = Json::parse(whole.at("tokenizer_config.json"), "tokenizer_config.json");
  config.set("tokenizer_class", "Qwen2Tokenizer");
  t.corpus.push_back({{"vocab.json", JsonView(json, "tokenizer.json")["model"]["vocab"].value().dump(1)},
                      {"merges.txt", merges},
                      {"tokenizer_config.json", config.dump(2)}});
  for (std::size_t id = 0; id < vocabulary.tokens.size(); ++id) ranks += fmt::format("{} {}\n", base64(vocabulary.tokens[id]), id);
  t.corpus.push_back({{"qwen.tiktoken", ranks}});
  t.read = [](const std::string& path) {
    const std::unique_ptr<Tokenizer> tokenizer = make_tokenizer(path);
    return tokenizer->sha256() + "\n" + encoded(*tokenizer);
  };
  return t;
}

template <class T>
void put(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

Files megatron_sample(bool legacy) {
  const std::vector<std::int32_t> sizes = {3, 5, 0, 2, 7};
  std::string bin, idx;
  std::int64_t tokens = 0;
  for (const std::int32_t size : sizes)
    for (std::int32_t i = 0; i < size; ++i) put(bin, std::int32_t(tokens++ * 11 % 300));
  if (legacy) {
    idx.assign("TNTIDX\0\0", 8);
    for (const std::int64_t number : {1, 4, 4, 5, 5, 4}) put(idx, number);
    for (std::int64_t i = 0; i <= 5; ++i) put(idx, i);
    std::int64_t at = 0;
    put(idx, at);
    for (const std::int32_t size : sizes) put(idx, at += size);
    for (const std::int32_t size : sizes) put(idx, std::int64_t(size));
  } else {
    idx.assign("MMIDIDX\0\0", 9);
    put(idx, std::int64_t{1});
    put(idx, std::uint8_t{4});
    for (const std::int64_t number : {5, 4}) put(idx, number);
    for (const std::int32_t size : sizes) put(idx, size);
    std::int64_t at = 0;
    for (const std::int32_t size : sizes) put(idx, at), at += 4 * size;
  }
  for (const std::int64_t d : {0, 2, 4, 5}) put(idx, d);
  return {{"x.bin", bin}, {"x.idx", idx}};
}

Target megatron_target() {
  Target t;
  t.name = "megatron";
  t.rule = "ids are below the vocabulary's size, and the documents are the tokens of the file";
  t.corpus = {megatron_sample(false), megatron_sample(true)};
  t.read = [](const std::string& folder) {
    MegatronDataset dataset(folder + "/x");
    std::vector<std::uint32_t> document;
    std::string out;
    std::int64_t tokens = 0;
    for (std::int64_t d = 0; d < dataset.num_documents(); ++d) {
      dataset.next(300, document);
      for (const std::uint32_t id : document)
        if (id >= 300) throw SilentDamage(fmt::format("the id {}", id));
      tokens += std::int64_t(document.size());
      out += fmt::format("{}\n", fmt::join(document, " "));
    }
    if (tokens != dataset.num_tokens()) throw SilentDamage(fmt::format("{} tokens of {}", tokens, dataset.num_tokens()));
    return out;
  };
  return t;
}

Files token_sample(int documents, int longest, bool roles) {
  const std::string path = scratch_folder() + "/sample.h5";
  TokenDatasetWriter writer(path, {"sha256 of a tokenizer", 300, 256, "fuzz"});
  std::uint32_t next = 1;
  for (int d = 0; d < documents; ++d) {
    std::vector<std::uint32_t> tokens(std::size_t(1 + d * 7 % longest));
    for (std::uint32_t& token : tokens) token = next = next * 7 % 251;
    std::vector<RoleRun> runs;
    if (roles) runs = {{0, 1, Role::user}};
    const std::vector<TokenRange> counted = {{0, std::int64_t(tokens.size())}};
    writer.add_document(tokens, runs, roles && d % 2 ? &counted : nullptr);
  }
  writer.close();
  return {{"x.h5", read_file(path)}};
}

std::string everything_of(const std::string& path) {
  if (!H5File::has_checksums(path)) user_error("{}: a child process would read it first", path);  // as data_problems() has it
  TokenDataset dataset(path);
  const std::int64_t n = dataset.num_tokens();
  if (n > 10'000'000) user_error("{}: {} tokens are more than the test reads", path, n);
  std::vector<std::uint32_t> tokens(static_cast<std::size_t>(n));
  std::vector<std::uint8_t> mask(tokens.size()), roles(tokens.size());
  dataset.read(0, n, tokens.data());
  dataset.read_loss_mask(0, n, mask.data());
  dataset.read_roles(0, n, roles.data());
  const TokenDatasetInfo& info = dataset.info();
  std::string out = fmt::format("{} {} {} {}\n", info.tokenizer_sha256, info.vocab_size, info.eod_token_id, info.source);
  for (const std::int64_t offset : dataset.offsets()) out += fmt::format("{} ", offset);
  for (std::size_t i = 0; i < tokens.size(); ++i) out += fmt::format("{}{}{} ", tokens[i], mask[i] ? "" : "-", roles[i] ? "r" : "");
  return out;
}

Target tokens_target() {
  Target t;
  t.name = "tokens";
  t.rule = "the metadata and all data have checksums: what is read is what was written";
  t.corpus = {token_sample(40, 30, true), token_sample(3, 12, false)};
  t.exact = true;
  t.library = true;
  t.read = [](const std::string& folder) { return everything_of(folder + "/x.h5"); };
  return t;
}

// Files whose metadata were damaged before their checksums were made: HDF5 reads these, and its own code can crash.
Target hostile_tokens_target() {
  Target t;
  t.name = "hostile-tokens";
  t.rule = "af_data verify outlives it (HDF5 runs in a child)";
  t.corpus = {token_sample(40, 30, true), token_sample(3, 12, false)};
  t.fix_checksums = true;
  t.library = true;
  t.read = [](const std::string& folder) -> std::string {
    const std::vector<std::string> problems = problems_in_child(folder + "/x.h5", 5);
    if (!problems.empty()) throw UserError(fmt::format("{}", fmt::join(problems, "\n")));
    return "whole";
  };
  return t;
}

// A teacher's answers: a damaged line is none of them, the others stay, and more can be appended.
Target journal_target() {
  Target t;
  t.name = "journal";
  t.rule = "each answer has a checksum: it is the one that was written, or it is not there";
  const auto answer = [](int i) {
    return ChatReply{fmt::format("<think>{}</think>\n\"\u00e9\"", i) + std::string(std::size_t(i) * 40, 'x'), i, 7, i % 2 == 1};
  };
  const auto key = [](int i) { return sha256_hex(std::to_string(i)); };
  const std::string folder = scratch_folder() + "/corpus";
  fs::create_directories(folder);
  for (const int count : {0, 1, 12}) {
    {
      ChatJournal journal(folder + "/x.journal");
      for (int i = 0; i < count; ++i) journal.append(key(i), "fas.question", answer(i));
    }
    t.corpus.push_back({{"x.journal", read_file(folder + "/x.journal")}});
    fs::remove(folder + "/x.journal");
  }
  t.read = [answer, key](const std::string& where) {
    std::string out;
    for (const bool second : {false, true}) {
      ChatJournal journal(where + "/x.journal");
      for (int i = 0; i < 13; ++i) {
        const std::optional<ChatReply> found = journal.find(key(i));
        if (found && *found != answer(i)) throw SilentDamage(fmt::format("answer {} is another: {}", i, found->text));
        if (!found && second) throw SilentDamage(fmt::format("answer {} was appended and is not there", i));
        if (!found) journal.append(key(i), "fas.question", answer(i));
        out += found ? "1" : "0";
      }
    }
    return out;
  };
  return t;
}

}  // namespace

std::vector<Target> data_targets() {
  return {json_target(), safetensors_target(), tokenizer_target(), megatron_target(), tokens_target(), hostile_tokens_target(), journal_target()};
}

}  // namespace af::fuzz
