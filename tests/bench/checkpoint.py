#!/usr/bin/env python3
"""Saving and loading against dd of the same bytes on the same disk in the same run, and how long training waits for a save.

  tests/bench/checkpoint.py PROGRAMS [FOLDER]     FOLDER: on the disk to measure (default: a new one in the working directory)
A model of 46 million parameters: 554 MB of state. What is compared is measured in turns, so that a busy machine does it to both; each figure is the
median of five, each share the median of the turns'."""
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from common import events_of, must, steps_of, tokenize  # noqa: E402

PROGRAMS = pathlib.Path(sys.argv[1]).resolve()
WORK = pathlib.Path(tempfile.mkdtemp(prefix="af_checkpoint_bench_", dir=sys.argv[2] if len(sys.argv) > 2 else ".")).resolve()
RUNS = 5
CONFIG = """
output_dir: OUT
model: {model_type: qwen3, vocab_size: 8192, hidden_size: 512, num_hidden_layers: 12, num_attention_heads: 8, num_key_value_heads: 4, head_dim: 64,
        intermediate_size: 1536, max_position_embeddings: 256, tie_word_embeddings: false, rope_theta: 10000}
stages:
  - {name: s, seq_length: 128, train_iters: ITERS, global_batch_size: BATCH, micro_batch_size: 1, lr: {lr: 1e-4, min_lr: 1e-5}, data: [{path: d.h5}]}
checkpoint: {save_interval: EVERY, keep: 1, async_save: ASYNC}
runtime: {peak_tflops: 1}
"""


def train(out, iters, every, asynchronous, batch):
    text = CONFIG.replace("OUT", out).replace("ITERS", str(iters)).replace("EVERY", str(every)).replace("BATCH", str(batch)).replace("ASYNC", str(asynchronous).lower())
    (WORK / f"{out}.yaml").write_text(text)
    must(PROGRAMS / "af_train", f"{out}.yaml", cwd=WORK)


def forget(path):
    """What the system keeps of a file in memory."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def dd(**operands):
    begin = time.monotonic()
    subprocess.run(["dd", "bs=4M", "status=none", *(f"{k}={v}" for k, v in operands.items())], cwd=WORK, check=True)
    return time.monotonic() - begin


def main():
    tokenize(PROGRAMS, WORK, "d", [f"{i} " * 200 for i in range(50)])
    writes, saves, reads, loads = [], [], [], []
    for i in range(RUNS):
        out = f"sync{i % 2}"
        shutil.rmtree(WORK / out, ignore_errors=True)
        train(out, 1, 0, False, 1)
        saves += [event["seconds"] for event in events_of(WORK / out, "checkpoint")]
        shard = next((WORK / out / "checkpoints/latest/").glob("shard-*.h5"))
        size = shard.stat().st_size
        (WORK / "dd.bin").unlink(missing_ok=True)
        writes.append(dd(**{"if": "/dev/zero", "of": "dd.bin", "count": size // (4 << 20), "conv": "fsync"}))
        forget(shard)
        reads.append(dd(**{"if": shard, "of": "/dev/null"}))
        forget(shard)
        begin = time.monotonic()
        must(PROGRAMS / "af_checkpoint", "verify", WORK / out / "checkpoints")
        loads.append(time.monotonic() - begin)
    # Steps long enough for a save to keep up with them, as those of such a model are: what is left is what saving itself costs.
    train("async", 2 * RUNS + 1, 2, True, 8)
    waits = [event["blocked_seconds"] for event in events_of(WORK / "async", "checkpoint")][:RUNS]
    median = statistics.median
    step = median(line["iteration_time_ms"] for line in steps_of(WORK / "async").values()) / 1000
    print(f"state                 {size / 1e6:.0f} MB")
    for name, ours, theirs in (("save", saves, writes), ("load", loads, reads)):
        shares = [100 * b / a for a, b in zip(ours, theirs)]
        print(f"{name}                  {size / median(ours) / 1e6:.0f} MB/s; dd {size / median(theirs) / 1e6:.0f} MB/s: {median(shares):.0f} % ({min(shares):.0f} to {max(shares):.0f})")
    wait, save = median(waits), median(saves)
    print(f"training waits        {wait:.2f} s of a save's {save:.2f} s: {100 * wait / save:.0f} % (steps of {step:.1f} s)")


try:
    main()
finally:
    shutil.rmtree(WORK, ignore_errors=True)
