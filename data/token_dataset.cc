#include "data/token_dataset.h"

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "core/error.h"

namespace af {
namespace {

constexpr std::int64_t kRunBlock = 1 << 10;  // rows read at once
constexpr double kMostCompressed = 1100;     // bytes of data in a byte of a file: deflate, at its best, makes 1032

H5Dataset checked(const H5File& file, const std::string& name, H5Type type, std::vector<std::int64_t> shape, std::int64_t cache_bytes) {
  H5Dataset dataset = file.dataset(name, cache_bytes);
  bool fits = dataset.type() == type && dataset.shape().size() == shape.size();
  for (std::size_t d = 1; fits && d < shape.size(); ++d) fits = dataset.shape()[d] == shape[d];
  if (!fits)
    user_error("{}: expected {} of {} dimension(s), found {} of {}", dataset.where(), name_of(type), shape.size(), name_of(dataset.type()),
               dataset.shape().size());
  // Rows that were never written cost a file nothing: without this a length that is wrong would be memory asked for.
  const std::uintmax_t bytes = std::filesystem::file_size(file.path());
  if (double(size_of(type)) * double(dataset.rows()) > kMostCompressed * double(bytes)) {
    user_error("{}: {} rows in a file of {} bytes: it is damaged", dataset.where(), dataset.rows(), bytes);
  }
  return dataset;
}

TokenDatasetInfo info_of(const H5File& file) {
  const std::string& path = file.path();
  TokenDatasetInfo info;
  if (!file.has_attribute("/", "format") || file.string_attribute("/", "format") != "af_tokens") {
    user_error("{}: not a token dataset: the attribute 'format' is not \"af_tokens\" (make one with 'af_data tokenize')", path);
  }
  std::int64_t version = file.integer_attribute("/", "version");
  if (version != 1) user_error("{}: token dataset of version {}; this program reads version 1", path, version);
  info.tokenizer_sha256 = file.string_attribute("/", "tokenizer_sha256");
  info.vocab_size = file.integer_attribute("/", "vocab_size");
  info.source = file.string_attribute("/", "source");
  std::int64_t eod = file.integer_attribute("/", "eod_token_id");
  if (info.vocab_size <= 0 || info.vocab_size > INT32_MAX || eod < 0 || eod >= info.vocab_size) {
    user_error("{}: eod_token_id {} and vocab_size {} do not fit", path, eod, info.vocab_size);
  }
  info.eod_token_id = std::uint32_t(eod);
  return info;
}

}  // namespace

TokenDatasetInfo read_token_dataset_info(const std::string& path) { return info_of(H5File::open(path)); }

RunReader::RunReader(H5Dataset data, std::int64_t columns, std::int64_t num_tokens)
    : data_(std::move(data)),
      columns_(columns),
      num_tokens_(num_tokens),
      block_begins_(std::size_t((data_.rows() + kRunBlock - 1) / kRunBlock), -1) {}

std::int64_t RunReader::first_block(std::int64_t position) {
  std::int64_t low = 0, high = num_blocks();  // the answer is in [low, high)
  while (high - low > 1) {
    std::int64_t middle = (low + high) / 2;
    std::int64_t& begin = block_begins_[std::size_t(middle)];
    if (begin < 0) {
      std::vector<std::int64_t> row(static_cast<std::size_t>(columns_));
      data_.read_rows(middle * kRunBlock, 1, H5Type::i64, row.data());
      begin = std::max<std::int64_t>(row[0], 0);
    }
    (begin <= position ? low : high) = middle;
  }
  return low;
}

void RunReader::load(std::int64_t block) {
  if (block == loaded_) return;
  loaded_ = -1;
  std::int64_t begin = block * kRunBlock, count = std::min(kRunBlock, size() - begin);
  rows_.resize(std::size_t(count * columns_));
  data_.read_rows(begin, count, H5Type::i64, rows_.data());
  std::int64_t last = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t* row = &rows_[std::size_t(i * columns_)];
    bool valid =
        last <= row[0] && row[0] < row[1] && row[1] <= num_tokens_ && (columns_ < 3 || (row[2] >= 0 && row[2] < std::int64_t(kRoleNames.size())));
    if (!valid)
      user_error("{}: run {}, [{}, {}), is not sorted, inside the {} tokens and of a known role", data_.where(), begin + i, row[0], row[1],
                 num_tokens_);
    last = row[1];
  }
  loaded_ = block;
}

TokenDataset::TokenDataset(const std::string& path, std::int64_t cache_bytes) : path_(path) {
  H5File file = H5File::open(path);
  info_ = info_of(file);
  tokens_ = checked(file, "/tokens", H5Type::u32, {0}, cache_bytes);
  H5Dataset offsets = checked(file, "/document_offsets", H5Type::i64, {0}, 1 << 20);
  offsets_.resize(std::size_t(offsets.rows()));
  if (!offsets_.empty()) offsets.read_rows(0, offsets.rows(), H5Type::i64, offsets_.data());
  if (offsets_.empty() || offsets_.front() != 0 || offsets_.back() != tokens_->rows()) {
    user_error("{}: document_offsets must run from 0 to the number of tokens, {}", path, tokens_->rows());
  }
  auto wrong = std::adjacent_find(offsets_.begin(), offsets_.end(), [](std::int64_t a, std::int64_t b) { return a >= b; });
  if (wrong != offsets_.end()) {
    user_error("{}: document {} begins at {} and ends at {}: no document may be empty", path, wrong - offsets_.begin(), wrong[0], wrong[1]);
  }
  if (file.has("/loss_mask_runs")) counted_.emplace(checked(file, "/loss_mask_runs", H5Type::i64, {0, 2}, 1 << 20), 2, num_tokens());
  if (file.has("/role_runs")) roles_.emplace(checked(file, "/role_runs", H5Type::i64, {0, 3}, 1 << 20), 3, num_tokens());
}

void TokenDataset::read(std::int64_t begin, std::int64_t count, std::uint32_t* out) const {
  if (count == 0) return;
  tokens_->read_rows(begin, count, H5Type::u32, out);
  std::uint32_t largest = 0;
  for (std::int64_t i = 0; i < count; ++i) largest = out[i] > largest ? out[i] : largest;
  if (largest >= info_.vocab_size) {
    std::int64_t where = begin + (std::max_element(out, out + count) - out);
    user_error("{}: token {} has the id {}, outside the vocabulary of {}", path_, where, largest, info_.vocab_size);
  }
}

void TokenDataset::read_loss_mask(std::int64_t begin, std::int64_t count, std::uint8_t* mask) {
  std::memset(mask, counted_ ? 0 : 1, std::size_t(count));
  if (counted_) {
    counted_->for_each(begin, begin + count,
                       [&](std::int64_t a, std::int64_t b, const std::int64_t*) { std::memset(mask + a - begin, 1, std::size_t(b - a)); });
  }
}

void TokenDataset::read_roles(std::int64_t begin, std::int64_t count, std::uint8_t* roles) {
  std::memset(roles, 0, std::size_t(count));
  if (roles_) {
    roles_->for_each(begin, begin + count, [&](std::int64_t a, std::int64_t b, const std::int64_t* row) {
      std::memset(roles + a - begin, int(row[2]), std::size_t(b - a));
    });
  }
}

std::vector<std::string> problems_of_dataset(const std::string& path) {
  TokenDataset dataset(path);
  std::vector<std::string> problems;
  auto attempt = [&](auto&& check) {  // notes the first complaint
    try {
      check();
    } catch (const UserError& error) {
      problems.push_back(error.what());
    }
  };
  attempt([&] {
    constexpr std::int64_t kBlock = 1 << 20;
    std::vector<std::uint32_t> block(kBlock);
    std::int64_t document = 0, cut = 0;  // documents that do not end with the end-of-document token
    std::int64_t first_cut = -1;
    for (std::int64_t begin = 0; begin < dataset.num_tokens(); begin += kBlock) {
      std::int64_t count = std::min(kBlock, dataset.num_tokens() - begin);
      dataset.read(begin, count, block.data());
      for (; document < dataset.num_documents() && dataset.offsets()[document + 1] <= begin + count; ++document) {
        bool ends = block[std::size_t(dataset.offsets()[document + 1] - 1 - begin)] == dataset.info().eod_token_id;
        if (!ends && cut++ == 0) first_cut = document;
      }
    }
    if (cut > 0)
      user_error("{}: {} documents do not end with the end-of-document token {}, the first is document {}", path, cut, dataset.info().eod_token_id,
                 first_cut);
  });
  for (std::optional<RunReader>* runs : {&dataset.counted_, &dataset.roles_}) {
    attempt([&] {
      std::int64_t last = 0;
      if (*runs) {
        (*runs)->for_each(0, dataset.num_tokens(), [&](std::int64_t begin, std::int64_t end, const std::int64_t*) {
          if (begin < last) user_error("{}: runs overlap at token {}", path, begin);
          last = end;
        });
      }
    });
  }
  return problems;
}

}  // namespace af
