#include "data/block_record.h"

#include "data/packed_bytes.h"

namespace af {

int token_bytes_for(std::int64_t vocab_size) { return vocab_size <= 1 << 16 ? 2 : vocab_size <= 1 << 24 ? 3 : 4; }

std::string pack(const BlockRecord& record, int token_bytes) {
  BytePacker out;
  for (std::int64_t number : {record.source, record.number, record.lines, record.text_bytes, record.file_bytes, std::int64_t(record.last),
                              record.skipped, std::int64_t(token_bytes)}) {
    out.put(number);
  }
  out.put_text(record.sha256);
  out.put(std::uint64_t(record.problems.size()));
  for (const LineProblem& problem : record.problems) out.put(problem.line), out.put_text(problem.what);
  out.put(std::uint64_t(record.licences.size()));
  for (const std::string& licence : record.licences) out.put_text(licence);
  out.put(std::uint64_t(record.documents.size()));
  for (const DocumentEntry& document : record.documents) out.put(document);
  out.put(std::uint64_t(record.roles.size()));
  for (const RoleRun& run : record.roles) out.put(run.begin), out.put(run.end), out.put(run.role);
  out.put(std::uint64_t(record.counted.size()));
  for (const TokenRange& range : record.counted) out.put(range);
  out.put(std::uint64_t(record.signatures.size()));
  for (std::uint16_t value : record.signatures) out.put(value);

  out.put(std::uint64_t(record.tokens.size()));
  std::string& bytes = out.bytes();
  const std::size_t begin = bytes.size(), width = std::size_t(token_bytes);
  bytes.resize(begin + width * record.tokens.size());
  char* at = bytes.data() + begin;
  if (width == 2) {
    for (std::size_t i = 0; i < record.tokens.size(); ++i) {
      const std::uint16_t token = std::uint16_t(record.tokens[i]);
      std::memcpy(at + 2 * i, &token, 2);
    }
  } else {
    for (std::size_t i = 0; i < record.tokens.size(); ++i) std::memcpy(at + width * i, &record.tokens[i], width);
  }
  return std::move(bytes);
}

BlockRecord unpack(std::string_view bytes) {
  ByteUnpacker in(bytes);
  BlockRecord record;
  std::int64_t last = 0, token_bytes = 0;
  for (std::int64_t* number :
       {&record.source, &record.number, &record.lines, &record.text_bytes, &record.file_bytes, &last, &record.skipped, &token_bytes}) {
    *number = in.get<std::int64_t>();
  }
  record.last = last != 0;
  AF_CHECK(token_bytes >= 2 && token_bytes <= 4, "tokens of {} bytes", token_bytes);
  record.sha256 = in.get_text();
  record.problems.resize(in.get_count(16));
  for (LineProblem& problem : record.problems) problem.line = in.get<std::int64_t>(), problem.what = in.get_text();
  record.licences.resize(in.get_count(8));
  for (std::string& licence : record.licences) licence = in.get_text();
  record.documents.resize(in.get_count(sizeof(DocumentEntry)));
  for (DocumentEntry& document : record.documents) document = in.get<DocumentEntry>();
  record.roles.resize(in.get_count(17));
  for (RoleRun& run : record.roles) {
    run.begin = in.get<std::int64_t>(), run.end = in.get<std::int64_t>(), run.role = in.get<Role>();
  }
  record.counted.resize(in.get_count(sizeof(TokenRange)));
  for (TokenRange& range : record.counted) range = in.get<TokenRange>();
  record.signatures.resize(in.get_count(sizeof(std::uint16_t)));
  for (std::uint16_t& value : record.signatures) value = in.get<std::uint16_t>();

  record.tokens.resize(in.get_count(std::size_t(token_bytes)));
  std::string_view packed = in.take(record.tokens.size() * std::size_t(token_bytes));
  const std::size_t width = std::size_t(token_bytes);
  for (std::size_t i = 0; i < record.tokens.size(); ++i) std::memcpy(&record.tokens[i], packed.data() + width * i, width);
  AF_CHECK(in.empty(), "bytes are left after a block's record");
  return record;
}

}  // namespace af
