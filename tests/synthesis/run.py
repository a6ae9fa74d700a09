#!/usr/bin/env python3
"""Every suite of the synthesis, one after the other, within three minutes.

usage: run.py BUILD_DIR

Closes with "N passed, N failed, N skipped"; taking longer than the limit is a failure, where the machine is not busy with others."""
import os
import pathlib
import re
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
MOST_SECONDS = 180


def main():
    counts, began = [0, 0, 0], time.time()
    for suite in sorted(HERE.glob("*_suite.py")):
        begin = time.time()
        print(f"-- {suite.name}", flush=True)
        build = pathlib.Path(sys.argv[1])
        folder = build / "bin" if "FOLDER_OF_PROGRAMS" in suite.read_text() else build  # as its usage says
        process = subprocess.run([sys.executable, suite, folder], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        *said, last = process.stdout.rstrip("\n").split("\n")
        count = re.fullmatch(r"(\d+) passed, (\d+) failed, (\d+) skipped", last)
        print("\n".join(said if count else said + [last]))
        found = [int(n) for n in count.groups()] if count else [0, 1, 0]
        if not count or (process.returncode != 0 and found[1] == 0):
            print(f"FAILED: {suite.name} ended with status {process.returncode}" + ("" if count else " and without a count"))
            found[1] = max(found[1], 1)
        counts = [a + b for a, b in zip(counts, found)]
        print(f"   {suite.name}: {found[0]} passed, {found[1]} failed, {found[2]} skipped in {time.time() - begin:.0f} s", flush=True)
    seconds = time.time() - began
    busy = os.getloadavg()[1] > 2 * (os.cpu_count() or 1)
    if seconds > MOST_SECONDS:
        counts[1] += not busy
        print(f"{'a busy machine' if busy else 'FAILED'}: all suites took {seconds:.0f} s, more than {MOST_SECONDS}")
    print("{} passed, {} failed, {} skipped".format(*counts))
    return counts[1] > 0


if __name__ == "__main__":
    sys.exit(main())
