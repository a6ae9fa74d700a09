// Preloaded into the ranks of a job: counts their file operations beneath a folder, and does harm at one of them.
//   AF_HARM_UNDER   the folder, with a slash at its end; relative paths count as beneath it
//   AF_HARM_COUNTS  a folder for counts.RANK, a line "OPERATION COUNT" each, written as the process ends
//   AF_HARM         "RANK OPERATION NUMBER ACTION [PART]": before the NUMBER-th OPERATION (from 1) of that rank, with PART: on a path that has PART in
//                   it. ACTION: kill, stop (itself), parent (kill mpirun), or an error number that this operation, and all later such ones, fail with
//   AF_HARM_SLOW    milliseconds that each `sync` takes longer: a slow disk
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum Operation { look, open_, read_, write_, sync_, truncate_, rename_, remove_, folder, link_, operations };
static const char* const names[operations] = {"look", "open", "read", "write", "sync", "truncate", "rename", "remove", "folder", "link"};
static int counts[operations], here_so_far;
static char part[256];
static const char* under = "";
static int harmed = -1, number, action;  // action: an error number, -1 kill, -2 stop, -3 parent
static int rank = -1, slow;

__attribute__((constructor)) static void begin(void) {
  const char *me = getenv("OMPI_COMM_WORLD_RANK"), *plan = getenv("AF_HARM");
  rank = me ? atoi(me) : 0;
  if (getenv("AF_HARM_UNDER")) under = getenv("AF_HARM_UNDER");
  if (getenv("AF_HARM_SLOW")) slow = atoi(getenv("AF_HARM_SLOW"));
  char operation[16], what[16];
  int victim;
  if (!plan || sscanf(plan, "%d %15s %d %15s %255s", &victim, operation, &number, what, part) < 4 || victim != rank) return;
  for (int i = 0; i < operations; ++i)
    if (!strcmp(operation, names[i])) harmed = i;
  action = !strcmp(what, "kill") ? -1 : !strcmp(what, "stop") ? -2 : !strcmp(what, "parent") ? -3 : atoi(what);
}

__attribute__((destructor)) static void end(void) {
  const char* folder_of_counts = getenv("AF_HARM_COUNTS");
  if (!folder_of_counts) return;
  char path[4096];
  snprintf(path, sizeof(path), "%s/counts.%d", folder_of_counts, rank);
  under = "\n";  // nothing is beneath it any more
  FILE* file = fopen(path, "w");
  if (!file) return;
  for (int i = 0; i < operations; ++i) fprintf(file, "%s %d\n", names[i], counts[i]);
  fclose(file);
}

// Whether this operation is to fail; errno is set then.
static int harm(enum Operation operation, const char* path) {
  int n = __atomic_add_fetch(&counts[operation], 1, __ATOMIC_RELAXED);
  if (operation == sync_ && slow) usleep(1000 * slow);
  if ((int)operation != harmed || (*part && !strstr(path, part))) return 0;
  if (*part) n = __atomic_add_fetch(&here_so_far, 1, __ATOMIC_RELAXED);
  if (n < number) return 0;
  if (action > 0) return errno = action, 1;
  if (n > number) return 0;
  if (action == -3) kill(getppid(), SIGKILL);
  if (action == -2) raise(SIGSTOP);
  if (action == -1) kill(getpid(), SIGKILL);
  return 0;
}
static int here(const char* path) { return *under == '\n' ? 0 : path && (*path != '/' || !strncmp(path, under, strlen(under))); }
enum { longest = 4096 };
static const char* path_of(int fd, char* path) {
  char name[64];
  const int kept = errno;
  snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
  const ssize_t n = readlink(name, path, longest - 1);
  errno = kept;
  path[n > 0 ? n : 0] = 0;
  return path;
}
static int harm_fd(enum Operation operation, int fd) {
  char path[longest];
  return *path_of(fd, path) == '/' && here(path) && harm(operation, path);
}
static enum Operation opening(int flags) { return flags & (O_WRONLY | O_RDWR | O_CREAT) ? open_ : look; }

#define REAL(type, name, parameters) \
  static type(*real) parameters;     \
  if (!real) real = (type(*) parameters)dlsym(RTLD_NEXT, #name)
#define MODE                                   \
  mode_t mode = 0;                             \
  if (flags & (O_CREAT | O_TMPFILE)) {         \
    va_list more;                              \
    va_start(more, flags);                     \
    mode = va_arg(more, mode_t);               \
    va_end(more);                              \
  }
#define OPEN(name)                                          \
  int name(const char* path, int flags, ...) {              \
    MODE REAL(int, name, (const char*, int, ...));          \
    if (here(path) && harm(opening(flags), path)) return -1;      \
    return real(path, flags, mode);                         \
  }
OPEN(open)
OPEN(open64)
#define OPENAT(name)                                        \
  int name(int at, const char* path, int flags, ...) {      \
    MODE REAL(int, name, (int, const char*, int, ...));     \
    if (here(path) && harm(opening(flags), path)) return -1;      \
    return real(at, path, flags, mode);                     \
  }
OPENAT(openat)
OPENAT(openat64)
#define FOPEN(name)                                                              \
  FILE* name(const char* path, const char* mode) {                               \
    REAL(FILE*, name, (const char*, const char*));                               \
    if (here(path) && harm(strpbrk(mode, "wa+") ? open_ : look, path)) return NULL;    \
    return real(path, mode);                                                     \
  }
FOPEN(fopen)
FOPEN(fopen64)

#define CALL(type, name, condition, failed, parameters, arguments) \
  type name parameters {                                            \
    REAL(type, name, parameters);                                   \
    if (condition) return failed;                                   \
    return real arguments;                                          \
  }
#define OF_FILE(type, operation, name, failed, parameters, arguments) CALL(type, name, harm_fd(operation, fd), failed, parameters, arguments)
#define OF_PATH(operation, name, path, parameters, arguments) CALL(int, name, here(path) && harm(operation, path), -1, parameters, arguments)
OF_FILE(ssize_t, read_, read, -1, (int fd, void* data, size_t n), (fd, data, n))
OF_FILE(ssize_t, read_, pread, -1, (int fd, void* data, size_t n, off_t at), (fd, data, n, at))
OF_FILE(ssize_t, read_, pread64, -1, (int fd, void* data, size_t n, off64_t at), (fd, data, n, at))
OF_FILE(ssize_t, write_, write, -1, (int fd, const void* data, size_t n), (fd, data, n))
OF_FILE(ssize_t, write_, writev, -1, (int fd, const struct iovec* data, int n), (fd, data, n))
OF_FILE(ssize_t, write_, pwrite, -1, (int fd, const void* data, size_t n, off_t at), (fd, data, n, at))
OF_FILE(ssize_t, write_, pwrite64, -1, (int fd, const void* data, size_t n, off64_t at), (fd, data, n, at))
CALL(int, fflush, file && harm_fd(write_, fileno(file)), EOF, (FILE * file), (file))
OF_FILE(int, sync_, fsync, -1, (int fd), (fd))
OF_FILE(int, sync_, fdatasync, -1, (int fd), (fd))
OF_FILE(int, truncate_, ftruncate, -1, (int fd, off_t n), (fd, n))
OF_FILE(int, truncate_, ftruncate64, -1, (int fd, off64_t n), (fd, n))
OF_FILE(int, truncate_, posix_fallocate, errno, (int fd, off_t at, off_t n), (fd, at, n))
OF_FILE(int, truncate_, posix_fallocate64, errno, (int fd, off64_t at, off64_t n), (fd, at, n))
OF_FILE(int, truncate_, fallocate, -1, (int fd, int mode, off_t at, off_t n), (fd, mode, at, n))
OF_FILE(int, truncate_, fallocate64, -1, (int fd, int mode, off64_t at, off64_t n), (fd, mode, at, n))
OF_PATH(rename_, rename, from, (const char* from, const char* to), (from, to))
OF_PATH(rename_, renameat, from, (int a, const char* from, int b, const char* to), (a, from, b, to))
OF_PATH(remove_, unlink, path, (const char* path), (path))
OF_PATH(remove_, remove, path, (const char* path), (path))
OF_PATH(remove_, rmdir, path, (const char* path), (path))
OF_PATH(remove_, unlinkat, path, (int at, const char* path, int flags), (at, path, flags))
OF_PATH(folder, mkdir, path, (const char* path, mode_t mode), (path, mode))
OF_PATH(link_, symlink, path, (const char* to, const char* path), (to, path))
