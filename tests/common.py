"""What the suites share: counting what holds, processes watched from outside, jobs under mpirun.

A suite imports it after `sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))`."""
import json
import os
import pathlib
import re
import signal
import subprocess
import time

MPIRUN = ["mpirun", "--oversubscribe", "--bind-to", "none", "--mca", "pml", "ob1", "--mca", "btl", "self,vader"]
MPI_ENVIRONMENT = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMP_NUM_THREADS": "1"}
# Real trajectories and Qwen's vocabulary; what needs them is skipped where they are not.
REAL_DATA = pathlib.Path(os.environ.get("AF_TEST_DATA") or pathlib.Path(__file__).resolve().parents[2] / "shared" / "data")


class Checks:
    """check(what, good, detail), check.none(what, problems), check.skip(why); at the end sys.exit(check.close())."""
    def __init__(self):
        self.passed = self.failed = self.skipped = 0

    def __call__(self, what, good, detail=""):
        if good:
            self.passed += 1
        else:
            self.failed += 1
            print(f"FAILED: {what}\n{str(detail)[:4000]}", flush=True)

    def none(self, what, problems):
        """`problems`: all that is wrong; nothing must be."""
        self(what, not problems, f"{len(problems)} problems: " + "; ".join(map(str, problems[:5])))

    def skip(self, what):
        self.skipped += 1
        print(f"skipped: {what}")

    def close(self):
        """The line that tests/run.sh reads; the exit status."""
        print(f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped")
        return int(self.failed > 0)


class Watched:
    """A program that has ended: exit code, output, wall and CPU seconds, largest memory in MB. `kill_after(seconds)`: whether to kill it now."""
    def __init__(self, words, work, kill_after=None, **options):
        with open(work / "out", "w+") as out, open(work / "err", "w+") as err:
            begin = time.monotonic()
            process = subprocess.Popen(list(map(str, words)), stdout=out, stderr=err, cwd=work, **options)
            self.megabytes, status = 0, None
            while status is None:
                # not wait4's figure: that counts what this process had when it forked
                found = re.search(r"VmHWM:\s*(\d+) kB", pathlib.Path(f"/proc/{process.pid}/status").read_text())
                self.megabytes = max(self.megabytes, int(found[1]) / 1024 if found else 0)
                if kill_after is not None and kill_after(time.monotonic() - begin):
                    os.kill(process.pid, signal.SIGKILL)  # not yet waited for, so still this process
                    kill_after = None
                ended, status_now, usage = os.wait4(process.pid, os.WNOHANG)
                status = status_now if ended else None
                time.sleep(0 if ended else 0.002 if kill_after else 0.01)
            process.returncode = self.code = os.waitstatus_to_exitcode(status)
            self.killed = self.code == -signal.SIGKILL
            self.seconds, self.cpu_seconds = time.monotonic() - begin, usage.ru_utime
        self.out, self.err = (work / "out").read_text(), (work / "err").read_text(errors="replace")

    def __str__(self):
        return f"exit {self.code}\n{self.out[-1500:]}\n{self.err[-1500:]}"


def finish(job, limit):
    """(exit code, output, seconds) of a process that leads a session of its own; whatever it leaves running is killed."""
    begin = time.time()
    try:
        output, _ = job.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(job.pid, signal.SIGKILL)
        output = job.communicate()[0] + f"\nnot ended after {limit} s"
    return job.returncode, output, time.time() - begin


def must(*words, **options):
    """The output of a program that has to succeed."""
    result = subprocess.run(list(map(str, words)), capture_output=True, text=True, **options)
    if result.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, words))}: exit {result.returncode}: {result.stderr.strip()}")
    return result.stdout


def json_lines(path):
    """Of a file that may be written meanwhile, and may not be there yet: its whole lines."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text.split("\n")[:-1]]


def tokenize(programs, work, name, texts):
    """`name`.jsonl and `name`.h5 in `work`: a document for each text, a token for each byte."""
    (work / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    must(programs / "af_data", "tokenize", "--tokenizer", "bytes", "--input", f"{name}.jsonl", "--output", f"{name}.h5", cwd=work)


def tokenize_pages(programs, work):
    """a.h5 and b.h5 of this project's own pages: real text, of paragraphs of every length."""
    root = pathlib.Path(__file__).resolve().parents[1]
    for name, files in (("a", ["README.md", "CONTRIBUTING.md"]), ("b", ["ARCHITECTURE.md"])):
        pages = "\n\n".join((root / file).read_text() for file in files)
        tokenize(programs, work, name, [part for part in pages.split("\n\n") if part])


def tokenize_words(programs, work):
    """a.h5 and b.h5 of few words in patterns that a small model soon learns: 120 documents each."""
    for name, seed in (("a", 1), ("b", 5)):
        words = lambda i: " ".join(("alpha", "beta", "gamma", "delta")[(i * seed + j * j) % 4] for j in range(5 + i % 30))
        tokenize(programs, work, name, [f"document {i}: {words(i)}" for i in range(120)])


# What a run of af_train left in its output directory.
def steps_of(run):
    """{iteration: line of metrics}; a step that was taken again counts as it was the last time."""
    return {line["iteration"]: line for line in json_lines(run / "metrics.jsonl") if "event" not in line}


def events_of(run, name):
    return [line for line in json_lines(run / "metrics.jsonl") if line.get("event") == name]


def state_of(run, checkpoint="latest"):
    return json.loads((run / "checkpoints" / checkpoint / "state.json").read_text())


def tensors_of(run, checkpoint="latest"):
    """The bytes of each rank's shard."""
    return [shard.read_bytes() for shard in sorted((run / "checkpoints" / checkpoint).glob("shard-*.h5"))]
