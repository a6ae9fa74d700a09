#include "data/source_order.h"

#include <algorithm>

#include "core/error.h"
#include "core/random.h"

namespace af {
namespace {

constexpr std::int64_t kStride = 64;  // 8 bytes per 64 documents; a search walks at most 63 lengths

}  // namespace

SourceOrder::SourceOrder(const std::vector<std::int64_t>& offsets, std::uint64_t seed, const std::string& name, Order order)
    : offsets_(offsets), seed_(seed), name_(name), order_(order) {
  AF_CHECK(offsets.size() > 1 && offsets.size() <= UINT32_MAX, "{}: {} documents", name, offsets.size() - 1);
}

std::shared_ptr<const SourceOrder::Epoch> SourceOrder::epoch(std::int64_t number) const {
  std::lock_guard lock(mutex_);
  std::shared_ptr<const Epoch>& recent = recent_[std::size_t(number % 2)];
  if (recent && (recent->number == number || order_ == Order::sequential)) return recent;
  auto made = std::make_shared<Epoch>();
  const std::int64_t count = std::int64_t(offsets_.size()) - 1;
  made->number = number;
  if (order_ == Order::shuffled) {  // Fisher-Yates: element i changes places with one of the first i + 1
    made->documents.resize(std::size_t(count));
    const std::uint64_t stream = hash_name(fmt::format("document order of {} in epoch {}", name_, number));
    for (std::int64_t i = 0; i < count; ++i) {
      std::int64_t j = std::int64_t(random_below(seed_, stream, std::uint64_t(i), std::uint64_t(i) + 1));
      made->documents[i] = made->documents[j];
      made->documents[j] = std::uint32_t(i);
    }
  }
  std::int64_t position = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    if (i % kStride == 0) made->begins.push_back(position);
    position += length(document(*made, i));
  }
  return recent = made;
}

SourceOrder::Place SourceOrder::locate(std::int64_t position) const {
  const std::int64_t per_epoch = offsets_.back();
  std::shared_ptr<const Epoch> order = epoch(position / per_epoch);
  std::int64_t within = position % per_epoch;
  std::int64_t block = std::upper_bound(order->begins.begin(), order->begins.end(), within) - order->begins.begin() - 1;
  Place place{position / per_epoch, block * kStride, 0, within - order->begins[std::size_t(block)]};
  while (place.document = document(*order, place.documents_done), place.offset >= length(place.document)) {
    place.offset -= length(place.document);
    ++place.documents_done;
  }
  return place;
}

void SourceOrder::to_next_document(Place& place) const {
  place.offset = 0;
  if (++place.documents_done == std::int64_t(offsets_.size()) - 1) ++place.epoch, place.documents_done = 0;
  place.document = document(*epoch(place.epoch), place.documents_done);
}

}  // namespace af
