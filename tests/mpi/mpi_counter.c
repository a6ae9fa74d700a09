/* With AF_STOP_IN_FINALIZE=RANK or AF_SLEEP_IN_FINALIZE=RANK that rank stops or sleeps there. Else: counts the bytes of MPI_Isend by axis from the tags (parallel/comm_tag.h), without the headers (phase 0), and prints them
   at MPI_Finalize as "counter RANK world tp cp ...": the oracle of the engine's own count. LD_PRELOAD it. */
#include <mpi.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static long long sent[8];

int MPI_Isend(const void* data, int count, MPI_Datatype type, int to, int tag, MPI_Comm comm, MPI_Request* request) {
  int size = 0;
  PMPI_Type_size(type, &size);
  if (tag & 7) sent[tag >> 28 & 7] += (long long)count * size;
  return PMPI_Isend(data, count, type, to, tag, comm, request);
}

int MPI_Finalize(void) {
  int rank = 0;
  PMPI_Comm_rank(MPI_COMM_WORLD, &rank);
  const char *stops = getenv("AF_STOP_IN_FINALIZE"), *sleeps = getenv("AF_SLEEP_IN_FINALIZE");
  if (stops && atoi(stops) == rank) raise(SIGSTOP);
  if (sleeps && atoi(sleeps) == rank) sleep(60);
  if (stops || sleeps) return PMPI_Finalize();
  printf("counter %d %lld %lld %lld %lld %lld %lld %lld %lld\n", rank, sent[0], sent[1], sent[2], sent[3], sent[4], sent[5], sent[6], sent[7]);
  fflush(stdout);
  return PMPI_Finalize();
}
