// A word of shared memory per rank, on which its engine sleeps; who has sent it something knocks. So hundreds of ranks may
// share a few cores without looking again and again (MPI gives no way to sleep until a message comes).
#pragma once
#include <atomic>
#include <cstdint>
#include <string>

namespace af::comm {

class Doorbells {
 public:
  // Ranks of one host that open the same name hear each other, once all have. Without shared memory, only oneself.
  Doorbells(const std::string& name, int rank, int size);
  ~Doorbells();
  Doorbells(const Doorbells&) = delete;
  static void remove(const std::string& name);  // of the file; who has it open keeps it

  bool here(int rank) const { return bells_[rank].here.load(std::memory_order_relaxed) != 0; }
  void knock(int rank);
  std::uint32_t knocks() const { return bells_[rank_].knocks.load(); }  // so far on one's own
  void sleep(std::uint32_t heard, std::int64_t ns);                     // until more knocks than `heard`, or so long

 private:
  struct alignas(64) Bell {
    std::atomic<std::uint32_t> knocks, sleeping, here;
  };
  Bell* bells_ = nullptr;
  int rank_, size_;
};

}  // namespace af::comm
