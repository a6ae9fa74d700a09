// The endless stream of one source: its documents in the order of epoch 0, then of epoch 1, ... Each epoch holds every
// document once, shuffled by (seed, source name, epoch) alone, so that a position in tokens says everything.
#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace af {

enum class Order { shuffled, sequential };  // sequential: the file's own order in every epoch, for validation

class SourceOrder {
 public:
  // offsets: document_offsets [D + 1] with at least one document; must outlive this.
  SourceOrder(const std::vector<std::int64_t>& offsets, std::uint64_t seed, const std::string& name, Order order);

  // Where a position of the stream lies: the documents_done-th document of that epoch's order, `offset` tokens into it.
  struct Place {
    std::int64_t epoch, documents_done, document, offset;
  };
  Place locate(std::int64_t position) const;
  void to_next_document(Place& place) const;

 private:
  struct Epoch {
    std::int64_t number = -1;
    std::vector<std::uint32_t> documents;  // [D] in their order; empty where sequential
    std::vector<std::int64_t> begins;      // position in the epoch of every kStride-th of them
  };
  std::shared_ptr<const Epoch> epoch(std::int64_t number) const;
  std::int64_t document(const Epoch& epoch, std::int64_t index) const {
    return epoch.documents.empty() ? index : epoch.documents[std::size_t(index)];
  }
  std::int64_t length(std::int64_t document) const { return offsets_[std::size_t(document) + 1] - offsets_[std::size_t(document)]; }

  const std::vector<std::int64_t>& offsets_;
  std::uint64_t seed_;
  std::string name_;
  Order order_;
  mutable std::mutex mutex_;                                      // a prefetching thread may be an epoch ahead of the one that asks
  mutable std::array<std::shared_ptr<const Epoch>, 2> recent_{};  // the epochs asked for last, by number % 2
};

}  // namespace af
