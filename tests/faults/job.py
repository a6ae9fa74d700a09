"""A training job of a few ranks under mpirun, which may be harmed: started, watched, found in /proc, cleaned up after."""
import glob
import os
import pathlib
import re
import signal
import subprocess
import time

from common import MPI_ENVIRONMENT, MPIRUN

FOLDER = pathlib.Path(__file__).resolve().parent
OPERATIONS = ["look", "open", "read", "write", "sync", "truncate", "rename", "remove", "folder", "link"]  # as harm.c names them


class Job:
    """`folder`: the job's own, which it runs in; its output goes to folder/../log.txt. Every process of it carries the mark in its environment."""
    def __init__(self, program, words, ranks, folder, harm="", mpirun=None, environment=None, nobody=False, counts="", slow=0):
        self.folder, self.ranks, self.log = folder, ranks, folder.parent / "log.txt"
        self.mark = f"AF_FAULTS_MARK={folder}:{time.time_ns()}"
        scratch = folder.parent / "t"
        scratch.mkdir(mode=0o777, exist_ok=True)
        env = {**MPI_ENVIRONMENT, **(environment or {}), "TMPDIR": str(scratch), "HOME": str(scratch), "AF_FAULTS_MARK": self.mark.split("=", 1)[1]}
        exports = {"AF_FAULTS_MARK": env["AF_FAULTS_MARK"]}
        if harm or counts or slow:
            exports |= {"LD_PRELOAD": str(folder.parent / "libharm.so"), "AF_HARM_UNDER": f"{folder}/", "AF_HARM": harm, "AF_HARM_COUNTS": counts,
                        "AF_HARM_SLOW": str(slow or "")}
        job = [*(mpirun or MPIRUN), "-np", str(ranks)]
        for name, value in exports.items():
            if value:
                job += ["-x", f"{name}={value}"]
        if nobody:
            scratch.chmod(0o777)
            job = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *job]
        self.started = time.monotonic()
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen([*job, str(program), *words], cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                                            start_new_session=True)

    def output(self):
        return self.log.read_text(errors="replace")

    def ended(self):
        return self.process.poll() is not None

    def seconds(self):
        return time.monotonic() - self.started

    def processes(self):
        """{pid: environment} of all that belong to it: mpirun, its daemons, the ranks."""
        found = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    environment = pathlib.Path(f"/proc/{entry}/environ").read_bytes().decode(errors="replace").split("\0")
                except OSError:
                    continue
                if self.mark in environment and alive(int(entry)):
                    found[int(entry)] = environment
        return found

    def rank_of(self, rank):
        """Its process; None where there is none (yet)."""
        return next((pid for pid, e in self.processes().items() if f"OMPI_COMM_WORLD_RANK={rank}" in e), None)

    def mpirun_of(self):
        return next((pid for pid in self.processes() if name_of(pid) == "mpirun"), None)

    def wait_for_mpirun(self, limit):
        end = time.monotonic() + limit
        while not self.ended() and time.monotonic() < end:
            time.sleep(0.01)

    def wait(self, limit):
        """Whether all of its processes have ended in so many seconds."""
        end = time.monotonic() + limit
        self.wait_for_mpirun(limit)
        while self.processes():
            if time.monotonic() > end:
                return False
            time.sleep(0.1)
        return True

    def clean_up(self):
        """Ends what is left, and removes what MPI leaves where processes are killed."""
        left = self.processes()
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
        born = time.time() - self.seconds()
        for path in glob.glob("/dev/shm/vader_segment.*") + glob.glob("/dev/shm/af_bells_*"):
            try:
                if os.stat(path).st_mtime >= born - 1 and not mapped(path):
                    os.unlink(path)
            except OSError:
                pass
        return left


def alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def name_of(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def mapped(path):
    """Whether any process uses it: another job's is left alone."""
    for maps in glob.glob("/proc/[0-9]*/maps"):
        try:
            if path in pathlib.Path(maps).read_text(errors="replace"):
                return True
        except OSError:
            pass
    return False


class Moment:
    """When harm is done: at a time after the start, when a line was printed, when a file is there, or before a rank's n-th file operation."""
    def __init__(self, kind, what, delay=0.0):
        self.kind, self.what, self.delay = kind, what, delay

    def __str__(self):
        return f"{self.delay:.3f} s after the start" if self.kind == "time" else f"{self.delay:.3f} s after {self.kind} {self.what}"

    def wait_for(self, job, limit=60):
        """Whether it has come while the job runs."""
        end = time.monotonic() + limit
        pattern = re.compile(self.what, re.M) if self.kind == "line" else None
        while not job.ended() and time.monotonic() < end:
            if self.kind == "time" or (pattern and pattern.search(job.output())) or (self.kind == "file" and glob.glob(str(job.folder / self.what))):
                begin = job.started if self.kind == "time" else time.monotonic()
                time.sleep(max(0, begin + self.delay - time.monotonic()))
                return not job.ended()
            time.sleep(0.001)
        return False


def random_moment(random, seconds):
    """In a job that lasts about so long."""
    kind = random.choice(["time", "line", "line", "file"])
    if kind == "time":
        return Moment("time", "", random.uniform(0, seconds))
    if kind == "line":
        return Moment("line", random.choice([r"^stage stage1", r"iteration +2/", r"iteration +5/", r"^ saved ", r"validation heldout at iteration 3", r"^ saved .*stage1-6",
                                             r"^stage stage2", r"iteration +11/", r"^ saved .*stage2-12", r"^resumed from", r"iteration +14/"]), random.uniform(0, 0.03))
    return Moment("file", random.choice(["run/flight/rank-1.flight", "run/metrics.jsonl", "run/checkpoints/*.tmp", "run/checkpoints/stage1-4*",
                                         "run/checkpoints/stage1-8", "run/checkpoints/stage1-8*", "run/checkpoints/stage2-10*", "run/checkpoints/stage2-14*"]),
                  random.choice([0, 0, random.uniform(0, 0.02)]))
