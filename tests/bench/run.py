#!/usr/bin/env python3
"""Training speed, memory and start-up beside PyTorch + transformers: the same models, tokens per step, machine and run, in turns.

usage: bench/run.py BUILD_DIR PYTHON_WITH_TORCH [--rounds N]
The peer has its best settings: all threads, sdpa attention, fused AdamW, huge pages, eager and compiled; the better of them counts.
Fails where ours is slower or takes more memory. Last line: N passed, N failed, N skipped."""
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from common import Checks, steps_of, tokenize  # noqa: E402

BUILD, PYTHON = pathlib.Path(sys.argv[1]).resolve(), sys.argv[2]
ROUNDS = int(sys.argv[sys.argv.index("--rounds") + 1]) if "--rounds" in sys.argv else 2
HERE = pathlib.Path(__file__).resolve().parent
COMMON = dict(hidden_act="silu", attention_bias=False, attention_dropout=0.0, rms_norm_eps=1e-6, initializer_range=0.02, rope_theta=1000000.0, rope_scaling=None,
              max_position_embeddings=4096, use_sliding_window=False, sliding_window=None, max_window_layers=8, use_cache=True)
MODELS = {
    "dense": dict(COMMON, model_type="qwen3", architectures=["Qwen3ForCausalLM"], vocab_size=8192, hidden_size=512, intermediate_size=1536, num_hidden_layers=8,
                  num_attention_heads=8, num_key_value_heads=2, head_dim=64, tie_word_embeddings=False),
    "moe": dict(COMMON, model_type="qwen3_moe", architectures=["Qwen3MoeForCausalLM"], vocab_size=32768, hidden_size=512, intermediate_size=1536, num_hidden_layers=8,
                num_attention_heads=8, num_key_value_heads=2, head_dim=64, tie_word_embeddings=False, num_experts=32, num_experts_per_tok=4, moe_intermediate_size=256,
                decoder_sparse_step=1, mlp_only_layers=[], norm_topk_prob=True, router_aux_loss_coef=0.001, output_router_logits=False),
}
STEPS, SEQUENCES, LENGTH = 4, 2, 1024


def torch(model, mode):
    environment = dict(os.environ, GLIBC_TUNABLES="glibc.malloc.hugetlb=1", MALLOC_TRIM_THRESHOLD_="-1", MALLOC_MMAP_THRESHOLD_=str(1 << 34), OMP_NUM_THREADS=str(os.cpu_count()))
    result = subprocess.run([PYTHON, HERE / "torch_step.py", model, str(STEPS), str(SEQUENCES), str(LENGTH), mode], capture_output=True, text=True, env=environment)
    if result.returncode:
        return None, result.stderr.strip().splitlines()[-1:]
    return json.loads(result.stdout.strip().splitlines()[-1]), None


def ours(model, work):
    subprocess.run(["rm", "-rf", work / "run"], check=True)
    (work / "bench.yaml").write_text(f"""
output_dir: {work}/run
model: {{hf_config: {model}}}
stages:
  - {{name: bench, seq_length: {LENGTH}, train_iters: {STEPS}, micro_batch_size: {SEQUENCES}, global_batch_size: {SEQUENCES}, lr: {{lr: 1e-4}}, data: [{{path: {work}/data.h5}}]}}
""")
    begin = time.monotonic()
    process = subprocess.Popen([BUILD / "bin" / "af_train", work / "bench.yaml"], stdout=subprocess.PIPE, text=True)
    first = None
    for line in process.stdout:
        if "iteration " in line and first is None:
            first = time.monotonic() - begin
    assert process.wait() == 0
    steps = list(steps_of(work / "run").values())
    return {"seconds": [s["iteration_time_ms"] / 1e3 for s in steps], "peak_bytes": steps[-2]["memory_bytes"], "to_first_step": first, "tflops": [s["tflops_per_gpu"] for s in steps],
            "mfu": statistics.median(s["mfu"] for s in steps[1:])}


def main():
    check = Checks()
    with tempfile.TemporaryDirectory(prefix="af_bench_") as folder:
        work = pathlib.Path(folder)
        # one document fills a sequence
        tokenize(BUILD / "bin", work, "data", [" ".join(str((i * 7919 + j * j * 31) % 1000) for j in range(700)) for i in range(3000)])
        for name, fields in MODELS.items():
            (work / name).mkdir()
            model = work / name / "config.json"
            model.write_text(json.dumps(fields))
            results = {"ours": [], "eager": [], "compile": []}
            for _ in range(ROUNDS):
                results["ours"].append(ours(model, work))
                for mode in ("eager", "compile"):
                    result, error = torch(model, mode)
                    if result:
                        results[mode].append(result)
                    else:
                        print(f"{name}: PyTorch in {mode} mode did not run: {error}")
            tokens = SEQUENCES * LENGTH
            speed = {k: tokens / statistics.median(s for r in v for s in r["seconds"][1:]) for k, v in results.items() if v}
            memory = {k: statistics.median(r["peak_bytes"] for r in v) / 2**30 for k, v in results.items() if v}
            start = {k: statistics.median(r["to_first_step"] for r in v) for k, v in results.items() if v}
            peers = [k for k in ("eager", "compile") if k in speed]
            for k in results:
                if k in speed:
                    print(f"{name:6s} {k:8s} {speed[k]:8.0f} tokens/s   {memory[k]:6.2f} GiB   {start[k]:6.2f} s to the end of the first step")
            print(f"{name:6s} ours: {statistics.median(results['ours'][0]['tflops'][1:]) * 1e3:.0f} GFLOP/s, {100 * results['ours'][0]['mfu']:.0f} % of what our matmul reaches at 768^3")
            best, least = max(speed[k] for k in peers), min(memory[k] for k in peers)
            print(f"{name:6s} speed {speed['ours'] / best:.2f} x, memory {memory['ours'] / least:.2f} x, start-up {start['ours'] / min(start[k] for k in peers):.3f} x the better PyTorch")
            check(f"{name}: faster", speed["ours"] > best)
            check(f"{name}: in less memory", memory["ours"] < least)
            check(f"{name}: sooner at the first step", start["ours"] < min(start[k] for k in peers))
    return check.close()


if __name__ == "__main__":
    sys.exit(main())
