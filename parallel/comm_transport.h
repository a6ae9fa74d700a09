// What a backend gives: tagged messages between ranks, started here and ended by progress(). Everything else stands once,
// above it (comm_operation.h). Backends: comm_threads.cc (ranks are threads), comm_mpi.cc. NCCL would be a third one:
// its sends and receives enqueued on the rank's stream, done when an event of that stream is; bootstrapped over MPI.
// All calls but wake() and fail() come from the engine's thread.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace af::comm {

struct Operation;

// One message. It stays where it is, and its memory untouched, until `done`.
struct Request {
  bool send = false;
  int peer = 0;  // world rank
  std::int32_t tag = 0;
  char* data = nullptr;
  std::size_t bytes = 0;
  std::size_t received = 0;  // bytes that the sender sent, which may be more than `bytes` (never written beyond)
  bool done = false;
  Operation* operation = nullptr;  // none: a heartbeat, for which nobody need look more often
};

class Transport {
 public:
  virtual ~Transport() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual std::string host_of(int rank) const = 0;  // "": not known, or no matter
  virtual void start(Request& request) = 0;  // matched in order of start for each (peer, tag)
  virtual bool progress() = 0;               // marks what has ended; whether something has
  // Returns when something may have changed, after wake(), or after 100 ms. waiting: messages are under way.
  virtual void idle(bool waiting) = 0;
  virtual void wake() = 0;                           // from any thread
  virtual void withdraw() = 0;                       // every request is forgotten, and its memory not touched any more
  virtual bool failed() const = 0;                   // another rank has called fail()
  virtual std::string failure() const = 0;           // and its reason
  virtual void fail(const std::string& reason) = 0;  // tells every rank that can be told
};

}  // namespace af::comm
