#!/usr/bin/env python3
"""Ranks as processes: every operation against closed forms, bytes against a counter outside, and each way to fail.

  tests/mpi/run.py BUILD_DIR      with mpi_probe and libmpi_counter.so in BUILD_DIR/tests
Closes with "N passed, N failed, N skipped"."""
import concurrent.futures
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from common import MPI_ENVIRONMENT, MPIRUN, Checks, finish  # noqa: E402

TESTS = pathlib.Path(sys.argv[1]).resolve() / "tests"
check = Checks()


def run(ranks, *arguments, extra=(), limit=60):
    """(exit code, output, seconds) of a job; whatever it leaves running is killed."""
    words = [*MPIRUN, "-np", str(ranks), *extra, str(TESTS / "mpi_probe"), *map(str, arguments)]
    return finish(subprocess.Popen(words, env=MPI_ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True), limit)


def operations():
    for ranks in (1, 2, 3, 4, 7):
        code, output, _ = run(ranks, "operations")
        check(f"every operation on {ranks} ranks", code == 0 and f"operations: right on {ranks} ranks" in output, output)
    code, output, _ = run(16, "small")
    check("small operations on 16 ranks", code == 0 and "small: right on 16 ranks" in output, output)


def byte_counts():
    code, output, _ = run(6, "bytes", extra=["-x", f"LD_PRELOAD={TESTS / 'libmpi_counter.so'}"])
    counts = {kind: {int(r): list(map(int, c.split())) for r, c in re.findall(rf"^{kind} (\d+) (.*)$", output, re.M)} for kind in ("engine", "counter")}
    check("the engine's bytes are those of MPI_Isend", code == 0 and len(counts["engine"]) == 6 and counts["engine"] == counts["counter"], output)
    # Three times, in bytes: all_reduce of 60,000 floats in the world and in pairs, 2 (n - 1) / n of it from each rank (the split's gathers come
    # to it in the world), reduce_scatter of 500 floats to each of three.
    wanted = all(c[1] == 3 * 240000 and c[5] == 3 * 2 * 2000 and 0 <= c[0] - 3 * 400000 < 1000 and not sum(c[2:5] + c[6:])
                 for c in counts["engine"].values())
    check("bytes per axis are those of the formulas", wanted, output)


def failures():
    code, output, took = run(4, "throwing")
    check("a throwing rank ends the job", code == 1 and output.count("rank 1 (") == 1 and "): no more paper" in output and took < 20, output)
    code, output, took = run(4, "differing")
    check("different operations end the job", code == 1 and took < 20 and "all_reduce #1 on axis world" in output and
          "broadcast #1 on axis world" in output and "rank 1" in output, output)
    code, output, took = run(4, "killed")
    check("a killed rank ends the job", code not in (0, None) and took < 20 and "process rank 1" in output and "signal 9" in output, output)
    host = re.escape(os.uname().nodename)
    # Most of the time these wait: some at once.
    with tempfile.TemporaryDirectory() as hanging, tempfile.TemporaryDirectory() as stopped, concurrent.futures.ThreadPoolExecutor(3) as at_once:
        counter = ["-x", f"LD_PRELOAD={TESTS / 'libmpi_counter.so'}"]
        jobs = {
            "hanging": at_once.submit(run, 4, "hanging", 2, 0, hanging),
            "stopped": at_once.submit(run, 4, "stopped", 600, 2, stopped),
            "late": at_once.submit(run, 4, "late", 600, 1, extra=counter),
            **{(how, limits): at_once.submit(run, 4, how, *limits) for how in ("starting", "ending") for limits in ((2, 0), (600, 2))},
            **{(how, limits): at_once.submit(run, 4, "small", *limits, extra=[*counter, "-x", f"AF_{how}_IN_FINALIZE=1"])
               for how, limits in (("STOP", (2, 0)), ("STOP", (600, 2)), ("SLEEP", (600, 2)))},
        }
        code, output, took = jobs["hanging"].result()
        check("a hanging rank ends the job after the timeout", code not in (0, None) and 2 < took < 25 and
              re.search(r"all_reduce #1 on axis world .* has not ended after 2\S* s: rank 1 did not arrive; "
                        r"rank 1 on \S+ was last in all_reduce #0 on axis world [^;]*; rank 1 \(process \d+\) is stopped",
                        output), output + f"\n{took:.1f} s")
        check("each rank's flight record is there", sorted(os.listdir(hanging)) == [f"rank-{r}.flight" for r in range(4)], str(os.listdir(hanging)))
        # Long before any timeout, and although nobody waits for it: a rank that shows no sign of life.
        code, output, took = jobs["stopped"].result()
        check("a stopped rank ends the job by its heartbeat", code not in (0, None) and 2 < took < 25 and
              re.search(rf"rank 2 \({host}\): rank 1 on {host} has shown no sign of life for 2\S* s \(heartbeat_seconds\); rank 1 \(process \d+\) is stopped; "
                        rf"rank 1 on {host}: no flight record", output), output + f"\n{took:.1f} s")
        code, output, took = jobs["late"].result()
        check("ranks that are late, or gone, but not stopped are waited for; heartbeats are in no count", code == 0 and took > 5 and
              re.search(r"^bytes (\d+)\n(?s:.*)^counter 0 \1 0 0 0 0 0 0 0$", output, re.M), output + f"\n{took:.1f} s")
        for limits, words in (((2, 0), r"barrier #\d+ on axis world has not ended after 2\S* s: rank 1 did not arrive"),
                              ((600, 2), rf"rank 1 on {host} has shown no sign of life for 2\S* s \(heartbeat_seconds\)")):
            code, output, took = jobs["ending", limits].result()
            check("a rank that does not come to the end ends the job", code not in (0, None) and 2 < took < 25 and
                  re.search(words + r".*; rank 1 \(process \d+\) is stopped", output), output + f"\n{took:.1f} s")
        code, output, took = jobs["SLEEP", (600, 2)].result()
        check("one that is gone in MPI_Finalize ends the job long before any timeout", code not in (0, None) and 2 < took < 25 and
              re.search(r"MPI_Finalize has not ended after 2\S* s: other ranks did not come to it, or a host or the network to it is gone", output), output + f"\n{took:.1f} s")
        for how, where in (("starting", "MPI_Init"), ("STOP", "MPI_Finalize")):
            code, output, took = jobs[how, (2, 0)].result()
            check(f"a rank that hangs in {where} ends the job after the timeout", code not in (0, None) and 2 < took < 25 and
                  re.search(rf"{where} has not ended after 2\S* s: other ranks did not come to it, .*; rank 1 \(process \d+\) is stopped", output), output + f"\n{took:.1f} s")
            code, output, took = jobs[how, (600, 2)].result()
            check(f"a rank that is stopped in {where} ends the job", code not in (0, None) and 2 < took < 25 and
                  re.search(rf"process \d+ \({host}\): {where} (waits for a rank that shows no sign of life \(heartbeat_seconds\)|has not ended after 2.*); "
                            r"rank 1 \(process \d+\) is stopped", output), output + f"\n{took:.1f} s")
    code, output, _ = run(4, "orphaned")
    end = time.time() + 3
    while (leftovers := subprocess.run(["pgrep", "-f", str(TESTS / "mpi_probe")], capture_output=True, text=True).stdout.split()) and time.time() < end:
        time.sleep(0.1)
    check("a killed mpirun ends the ranks; no process is left", code == -signal.SIGKILL and not leftovers, f"{code} {output}\nprocesses {leftovers}")


def traces():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "trace.json")
        code, output, _ = run(3, "trace", path)
        try:
            events = json.loads(pathlib.Path(path).read_text())["traceEvents"]
        except (OSError, ValueError) as error:
            return check("one trace of all ranks", False, f"{error}\n{output}")
        done = [e for e in events if e["ph"] == "X" and e["cat"] == "dp" and e["name"] == "all_reduce"]
        waits = [e for e in events if e["ph"] == "X" and e["cat"] == "dp" and e["name"] == "wait all_reduce"]
        check("one trace of all ranks", code == 0 and sorted(e["pid"] for e in done) == [0, 1, 2] and len(waits) == 3, output)
        early = all(d["ts"] + d["dur"] < w["ts"] for d in done for w in waits if w["pid"] == d["pid"])
        check("data are there before the wait", early, json.dumps(done + waits, indent=1))


def alone():
    result = subprocess.run([TESTS / "mpi_probe", "operations"], env={k: v for k, v in MPI_ENVIRONMENT.items() if not k.startswith(("OMPI_", "PMIX_"))},
                            capture_output=True, text=True)
    check("a process on its own starts no MPI", result.returncode == 2 and "start it with mpirun" in result.stderr, result.stderr)


for suite in (operations, byte_counts, failures, traces, alone):
    suite()
sys.exit(check.close())
