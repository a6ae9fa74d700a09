#include "parallel/comm_doorbell.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "core/error.h"

namespace af::comm {

Doorbells::Doorbells(const std::string& name, int rank, int size) : rank_(rank), size_(size) {
  const std::size_t bytes = std::size_t(size) * sizeof(Bell);
  const int file = shm_open(name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  void* map = MAP_FAILED;
  // Its pages are taken now: where the system's shared memory is full, a store would end the process.
  if (file >= 0 && posix_fallocate(file, 0, off_t(bytes)) == 0) map = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (file >= 0) close(file);
  if (map == MAP_FAILED) map = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  AF_CHECK(map != MAP_FAILED, "no memory of {} bytes", bytes);
  bells_ = static_cast<Bell*>(map);
  bells_[rank].here = 1;
}

Doorbells::~Doorbells() { munmap(bells_, std::size_t(size_) * sizeof(Bell)); }

void Doorbells::remove(const std::string& name) { shm_unlink(name.c_str()); }

// Whoever knocks counts first and then looks whether anybody sleeps; who goes to sleep says so first and then looks at the
// count: one of the two sees the other.
void Doorbells::knock(int rank) {
  Bell& bell = bells_[rank];
  bell.knocks.fetch_add(1);
  if (bell.sleeping.load()) syscall(SYS_futex, &bell.knocks, FUTEX_WAKE, 1, nullptr, nullptr, 0);
}

void Doorbells::sleep(std::uint32_t heard, std::int64_t ns) {
  Bell& bell = bells_[rank_];
  const timespec limit = {.tv_sec = time_t(ns / 1'000'000'000), .tv_nsec = long(ns % 1'000'000'000)};
  bell.sleeping.store(1);
  if (bell.knocks.load() == heard) syscall(SYS_futex, &bell.knocks, FUTEX_WAIT, heard, &limit, nullptr, 0);
  bell.sleeping.store(0);
}

}  // namespace af::comm
