#!/usr/bin/env python3
"""Training jobs are harmed at random moments. Each time: the job ends within 30 s with a message that names the cause, no process is left, and
the run that goes on with --resume auto takes the very steps, to the bit, of one that was never disturbed.

  tests/faults/run.py BUILD_DIR [--full] [--seed N] [--count N] [--only KIND]

A run (an output directory) meets one to three faults before it may finish. --count: faults; default 30, or 200 with --full. The first runs of a sample
are of one kind each, so that it has them all. --seed: of everything that is random; one run is repeated by the command that its failure prints.
--only: faults of that kind alone. Root is needed for some (a small tmpfs, another user, hosts of their own); else they are skipped.
Closes with "N passed, N failed, N skipped"."""
import argparse
import pathlib
import shutil
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import harms  # noqa: E402
from runs import Runs  # noqa: E402

arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
arguments.add_argument("build", type=pathlib.Path)
arguments.add_argument("--full", action="store_true")
arguments.add_argument("--seed", type=int, default=1)
arguments.add_argument("--count", type=int)
arguments.add_argument("--only", choices=sorted(harms.KINDS))
arguments.add_argument("--keep", action="store_true", help="leave the folder of a failed run")
options = arguments.parse_args()
count = options.count or (200 if options.full else 30)

work = pathlib.Path(tempfile.mkdtemp(prefix="af_flt_"))
runs = Runs(options.build.resolve(), work)
passed = failed = 0
skipped, by_kind = {}, {}
begin, seed = time.time(), options.seed
try:
    runs.prepare()
    while passed + failed < count:
        drawn = options.full or not 1 <= seed <= len(harms.KINDS)
        episode = harms.Episode(runs, seed, options.only or (None if drawn else list(harms.KINDS)[seed - 1]), options.full)
        seen = episode.play()
        for what in episode.skipped:
            skipped[what] = skipped.get(what, 0) + 1
        for kind in seen:
            by_kind[kind] = by_kind.get(kind, 0) + 1
        if episode.problems:
            failed += max(1, len(seen))
            print(f"FAILED: {episode}\n  " + "\n  ".join(episode.problems))
            print(f"  repeat with: {sys.argv[0]} {options.build} --seed {seed} --count 1" + (" --full" if options.full else "") +
                  (f" --only {options.only}" if options.only else ""), flush=True)
            if options.keep:
                shutil.copytree(runs.folder, work / f"failed-{seed}", symlinks=True)
        else:
            passed += len(seen)
        seed += 1
        if seed - options.seed > 4 * count + 20:
            break
finally:
    if not (options.keep and failed):
        shutil.rmtree(work, ignore_errors=True)
    else:
        print(f"kept: {work}")
for what, times in sorted(skipped.items()):
    print(f"skipped: {what} ({times})")
print("  " + ", ".join(f"{kind} {n}" for kind, n in sorted(by_kind.items())) + f"; {seed - options.seed} runs, seeds {options.seed} to {seed - 1}, "
      f"{time.time() - begin:.0f} s")
print(f"{passed} passed, {failed} failed, {sum(skipped.values())} skipped")
sys.exit(failed > 0)
