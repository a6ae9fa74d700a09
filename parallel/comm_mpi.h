// Ranks as processes under mpirun or srun. All of MPI runs on the engine's thread (MPI_THREAD_FUNNELED), over one communicator.
#pragma once
#include <memory>
#include <string>

#include "parallel/comm.h"

namespace af {

namespace comm {
class Guard;  // parallel/comm_guard.h
}

// Whether mpirun or srun started this process, from the values of its environment variables OMPI_COMM_WORLD_SIZE and
// PMIX_RANK (null: not set). A process on its own needs no MpiWorld: it is a default Comm.
bool started_by_mpi(const char* ompi_comm_world_size, const char* pmix_rank);

class MpiWorld {
 public:
  // MPI_Init; one per process. From now on the process ends where mpirun does.
  explicit MpiWorld(const CommOptions& options);
  ~MpiWorld();  // MPI_Finalize, which waits for the other ranks; ends the job where something failed
  Comm world() const;
  int rank() const;
  int size() const;
  // Prints "rank R (host): message" and ends every rank of the job with that exit code.
  [[noreturn]] void abort(const std::string& message, int exit_code);

 private:
  struct Shared;  // with the engine's thread
  std::shared_ptr<Shared> shared_;
  std::unique_ptr<comm::Guard> guard_;
  std::unique_ptr<comm::Engine> engine_;
};

}  // namespace af
