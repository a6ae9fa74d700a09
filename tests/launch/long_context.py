#!/usr/bin/env python3
"""Long sequences in one process: 32K, then 128K tokens with RoPE's base raised, with full recomputation, in less than 4 GB and in what
--dry-run says.

usage: long_context.py FOLDER_OF_PROGRAMS [TOKENS]   (python3 alone). Last line: N passed, N failed, N skipped."""
import pathlib
import random
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from common import Checks, steps_of, tokenize  # noqa: E402

LIMIT = 4 * 2**30  # bytes at 131,072 tokens; less in proportion
TOLERANCE = 0.15  # of --dry-run's figure

CONFIG = """
output_dir: {out}
seed: 1
model: {{model_type: qwen3_moe, vocab_size: 288, hidden_size: 256, num_hidden_layers: {layers}, num_attention_heads: 1, num_key_value_heads: 1,
        head_dim: 16, max_position_embeddings: {short}, tie_word_embeddings: false, num_experts: 8, num_experts_per_tok: 2, moe_intermediate_size: 128,
        rope_theta: 1000000}}
recompute: {{recompute_granularity: full}}
stages:
  - {{name: stage1, seq_length: {short}, train_iters: 1, global_batch_size: 4, lr: {{lr: 1e-3}}, data: [{{path: {data}}}]}}
  - {{name: stage2, seq_length: {long}, train_iters: 1, global_batch_size: 1, rope_theta: 5e6, lr: {{lr: 1e-3}}, data: [{{path: {data}}}]}}
runtime: {{peak_tflops: 0.1}}
"""


def make_data(programs, work, name, lengths):
    generator = random.Random(5)
    words = ["".join(generator.choice("abcdefghijklmnop") for _ in range(generator.randint(2, 8))) for _ in range(300)]
    text = lambda length: " ".join(generator.choice(words) for _ in range(length // 3 + 1))[: length - 1]  # and the end of the document
    tokenize(programs, work, name, map(text, lengths))


def planned_bytes(text):
    number, unit = re.search(r"^memory in \w+: ([\d.]+) (MiB|GiB)", text, re.M).groups()
    return float(number) * {"MiB": 2**20, "GiB": 2**30}[unit]


def train(programs, work, check, name, tokens, layers):
    (work / f"{name}.yaml").write_text(CONFIG.format(out=name, data=f"{name}.h5", short=tokens // 4, long=tokens, layers=layers))
    plan = subprocess.run([programs / "af_train", f"{name}.yaml", "--dry-run"], cwd=work, capture_output=True, text=True)
    result = subprocess.run([programs / "af_train", f"{name}.yaml"], cwd=work, capture_output=True, text=True)
    check(f"{name}: trains through both stages", plan.returncode == result.returncode == 0, plan.stderr + result.stderr)
    if plan.returncode or result.returncode:
        return ""
    last = list(steps_of(work / name).values())[-1]
    planned, peak, limit = planned_bytes(plan.stdout), last["memory_bytes"], LIMIT * tokens / 131072
    check(f"{name}: below {limit / 2**20:.0f} MiB", peak < limit, f"{peak / 2**20:.0f} MiB")
    check(f"{name}: within {TOLERANCE:.0%} of --dry-run", abs(peak / planned - 1) < TOLERANCE, f"{peak / 2**20:.0f} MiB, planned {planned / 2**20:.0f}")
    check(f"{name}: the loss is one", 4 < last["lm_loss"] < 8 and last["consumed_tokens"] == 2 * tokens and not last["nan"], str(last))
    return f"{name}: {tokens} tokens in {last['iteration_time_ms'] / 1e3:.1f} s, peak {peak / 2**20:.0f} MiB, planned {planned / 2**20:.0f}"


def run(programs, work, check, tokens):
    """`check(what, good, detail)`. Returns a line of figures per run."""
    generator = random.Random(6)
    make_data(programs, work, "long_packed", [generator.randint(300, 6000) for _ in range(tokens // 2000)])
    make_data(programs, work, "long_single", [tokens, tokens])  # each the whole sequence: attention is quadratic, its memory is not
    return [train(programs, work, check, "long_packed", tokens, layers=2), train(programs, work, check, "long_single", tokens, layers=1)]


def main():
    check = Checks()
    with tempfile.TemporaryDirectory(prefix="af_long_context_") as work:
        for line in run(pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(work), check, int(sys.argv[2]) if len(sys.argv) > 2 else 131072):
            print(line, flush=True)
    return check.close()


if __name__ == "__main__":
    sys.exit(main())
