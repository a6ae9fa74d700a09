#!/usr/bin/env python3
"""af_train under mpirun, as a user meets it: layouts, stages in other layouts, resuming in others, one process's numbers everywhere, and each way
for a job to fail.

  tests/mpi/programs.py BUILD_DIR [--full]     --full: 64 ranks, and ranks on several hosts (needs root and iproute2)
Closes with "N passed, N failed, N skipped"."""
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

BUILD = pathlib.Path(sys.argv[1]).resolve()
FULL = "--full" in sys.argv
HERE = pathlib.Path(__file__).resolve().parent
WORK = pathlib.Path(tempfile.mkdtemp(prefix="af_mpi_"))
MPIRUN = ["mpirun", "--oversubscribe", "--bind-to", "none", "--mca", "pml", "ob1", "--mca", "btl", "self,vader"]
ENVIRONMENT = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMP_NUM_THREADS": "1"}
passed = failed = skipped = 0

CONFIG = """
seed: 7
model: {model_type: qwen3_moe, vocab_size: 288, hidden_size: 32, num_hidden_layers: 4, num_attention_heads: 4, num_key_value_heads: 2, head_dim: 8,
        max_position_embeddings: 256, tie_word_embeddings: false, num_experts: 8, num_experts_per_tok: 2, moe_intermediate_size: 32, rope_theta: 10000}
stages:
  - name: stage1
    seq_length: 64
    train_iters: 4
    global_batch_size: 8
    lr: {lr: 3e-3, min_lr: 3e-4, lr_decay_style: cosine}
    data: [{path: a.h5, weight: 0.7}, {path: b.h5, weight: 0.3}]
  - name: stage2
    seq_length: 128
    train_iters: 3
    global_batch_size: 8
    packing: best_fit
    rope_theta: 40000
    recompute: {recompute_granularity: full}
    lr: {lr: 1e-3, min_lr: 1e-4, lr_decay_style: linear}
    data: [{path: a.h5, weight: 0.5}, {path: b.h5, weight: 0.5}]
validation: {data: [{path: b.h5, name: heldout}], eval_interval: 2, eval_iters: 1}
checkpoint: {save_interval: 2}
runtime: {threads_per_rank: 1, peak_tflops: 0.1}
"""


def check(what, good, detail=""):
    global passed, failed
    if good:
        passed += 1
    else:
        failed += 1
        print(f"FAILED: {what}\n{detail}", flush=True)


def command(ranks, out, *overrides, flags=(), mpirun=None):
    program = [str(BUILD / "bin/af_train"), "run.yaml", f"output_dir={out}", *overrides]
    return program if ranks == 1 else [*(mpirun or MPIRUN), *flags, "-np", str(ranks), *program]


def start(words):
    return subprocess.Popen(words, cwd=WORK, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)


def finish(job, limit):
    """(exit code, output, seconds); whatever is left running is killed."""
    begin = time.time()
    try:
        output, _ = job.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(job.pid, signal.SIGKILL)
        output = job.communicate()[0] + f"\nnot ended after {limit} s"
    return job.returncode, output, time.time() - begin


def train(ranks, out, *overrides, limit=120, **options):
    return finish(start(command(ranks, out, *overrides, **options)), limit)


def sizes(tp=1, pp=1, cp=1, ep=1, etp=None, stage=None, **more):
    prefix = "" if stage is None else f"stages.{stage}."
    values = {"tensor_model_parallel_size": tp, "pipeline_model_parallel_size": pp, "context_parallel_size": cp, "expert_model_parallel_size": ep, **more}
    if etp:
        values["expert_tensor_parallel_size"] = etp
    schedule = values.pop("schedule", None)
    words = [f"{prefix}parallel.{key}={value}" for key, value in values.items()]
    return words + ([f"{prefix}pipeline.schedule={schedule}"] if schedule else [])


def lines(out):
    return [json.loads(line) for line in (WORK / out / "metrics.jsonl").read_text().splitlines()]


def steps(out):
    return {line["iteration"]: line for line in lines(out) if "event" not in line}


def tensors(out, checkpoint="latest"):
    return [shard.read_bytes() for shard in sorted((WORK / out / "checkpoints" / checkpoint).glob("shard-*.h5"))]


def differs(out, reference="one", first=1):
    """What is not one process's, within the bounds of fp32; "": nothing."""
    ours, theirs = steps(out), steps(reference)
    if [i for i in theirs if i >= first] != [i for i in ours if i >= first]:
        return f"iterations {list(ours)}"
    for i, step in ours.items():
        if i < first:
            continue
        for key, bound in (("lm_loss", 1e-5), ("grad_norm", 1e-4), ("load_balancing_loss", 1e-5), ("params_norm", 1e-5)):
            if not abs(step[key] - theirs[i][key]) <= bound * abs(theirs[i][key]):
                return f"iteration {i}: {key} {step[key]}, one process {theirs[i][key]}"
        for key in ("consumed_samples", "consumed_tokens", "tokens_per_expert", "learning_rate", "packing_utilization"):
            if step.get(key) != theirs[i].get(key):
                return f"iteration {i}: {key} {step.get(key)}, one process {theirs[i].get(key)}"
    validations = [[v for v in lines(o) if v.get("event") == "validation" and v["iteration"] >= first] for o in (out, reference)]
    for ours_v, theirs_v in zip(*validations, strict=True):
        parts = lambda v: [v["lm_loss"]] + [p["lm_loss"] for p in v["by_position"]]
        if any(abs(a - b) > 1e-5 * b for a, b in zip(parts(ours_v), parts(theirs_v), strict=True)) or ours_v["targets"] != theirs_v["targets"]:
            return f"validation {ours_v}, one process {theirs_v}"
    if (WORK / out / "data_ledger.jsonl").read_bytes() != (WORK / reference / "data_ledger.jsonl").read_bytes():
        return "the data ledger"
    return ""


def prepare():
    (WORK / "run.yaml").write_text(CONFIG.lstrip())
    root = HERE.parent.parent
    for name, files in (("a", ["README.md", "CONTRIBUTING.md"]), ("b", ["ARCHITECTURE.md"])):
        text = "\n\n".join((root / f).read_text() for f in files)
        documents = [json.dumps({"text": part}) for part in text.split("\n\n") if part]
        (WORK / f"{name}.jsonl").write_text("\n".join(documents) + "\n")
        subprocess.run([BUILD / "bin/af_data", "tokenize", "--tokenizer", "bytes", "--input", f"{name}.jsonl", "--output", f"{name}.h5"], cwd=WORK, check=True,
                       capture_output=True)
    code, output, _ = train(1, "one")
    check("one process trains", code == 0, output)


def layouts():
    cases = [
        (2, "dp2", sizes()),
        (2, "tp2", sizes(tp=2)),
        (4, "cp2_ep4", sizes(cp=2, ep=4)),
        (4, "pp4_zb", sizes(pp=4, schedule="zero_bubble")),
        (4, "pp2_vpp2", sizes(pp=2, virtual_pipeline_model_parallel_size=2, schedule="interleaved")),
        (8, "tp2_pp2_ep2", sizes(tp=2, pp=2, ep=2, etp=2)),
        (16, "all", sizes(tp=2, pp=2, cp=2, ep=4, etp=2, schedule="gpipe")),
    ]
    for ranks, out, overrides in cases:
        code, output, _ = train(ranks, out, *overrides)
        check(f"{out}: trains", code == 0, output)
        if code == 0:
            check(f"{out}: one process's numbers", not differs(out), differs(out))


def bits():
    again = train(4, "pp4_again", *sizes(pp=4, schedule="zero_bubble"), "runtime.threads_per_rank=3", flags=["--map-by", "slot"])
    check("two runs of a layout, other thread counts: the same bits", again[0] == 0 and tensors("pp4_again") == tensors("pp4_zb"), again[1])
    train(4, "pp4_halves", *sizes(pp=4, schedule="zero_bubble"), "stages.0.train_iters=4")
    checkpoint = str(WORK / "pp4_halves/checkpoints/stage1-2")
    resumed = train(4, "pp4_resumed", *sizes(pp=4, schedule="zero_bubble"), "--resume", checkpoint)
    check("resumed in the same layout: the bits of a run that never stopped", resumed[0] == 0 and tensors("pp4_resumed") == tensors("pp4_zb"), resumed[1])


def other_layouts():
    """A checkpoint goes on in any layout; so does a stage after another."""
    checkpoint = str(WORK / "all/checkpoints/stage1-2")
    code, output, _ = train(2, "resumed", *sizes(tp=2), "--resume", checkpoint)
    check("resumed in another layout", code == 0, output)
    if code == 0:
        ours, theirs = steps("resumed"), steps("one")
        worst = max(abs(ours[i]["lm_loss"] / theirs[i]["lm_loss"] - 1) for i in range(3, 8))
        check("resumed in another layout: one process's losses", worst <= 1e-5, worst)
    cases = [
        (4, "tp2_then_pp2", sizes(tp=2, stage=0) + sizes(pp=2, stage=1)),
        (8, "ep4_then_cp4", sizes(pp=2, ep=4, stage=0, schedule="zero_bubble") + sizes(tp=2, cp=2, ep=2, etp=1, stage=1)),
    ]
    for ranks, out, overrides in cases:
        code, output, _ = train(ranks, out, *overrides)
        check(f"{out}: the stages differ in layout", code == 0 and " layout TP" in output, output)
        if code == 0:
            check(f"{out}: one process's numbers", not differs(out), differs(out))


def bytes_outside():
    """What metrics.jsonl says was sent is what a counter below MPI sees."""
    axes = ["world", "tp", "cp", "ep", "etp", "dp", "edp", "pp"]
    counter = ["-x", f"LD_PRELOAD={BUILD / 'tests/libmpi_counter.so'}"]
    layout = sizes(tp=2, pp=2, cp=2, ep=2, etp=2, schedule="zero_bubble")
    code, output, _ = train(8, "counted", *layout, "validation=null", "parallel.overlap_param_gather=false", flags=counter)
    seen = dict.fromkeys(axes, 0)
    for rank in re.findall(r"^counter \d+ (.*)$", output, re.M):
        for axis, n in zip(axes, map(int, rank.split())):
            seen[axis] += n
    said = {axis: sum(step["comm_bytes"][axis] for step in steps("counted").values()) for axis in ("tp", "cp", "ep", "dp", "pp")}
    outside = {"tp": seen["tp"], "cp": seen["cp"], "ep": seen["ep"] + seen["etp"], "dp": seen["dp"] + seen["edp"], "pp": seen["pp"]}
    check("bytes per axis in the metrics are those of MPI", code == 0 and said == outside and all(n > 0 for n in said.values()), (said, outside, output[-500:]))


def examples():
    """examples/api: the serial program and the parallel one print the same."""
    serial = subprocess.run([BUILD / "bin/example_serial"], capture_output=True, text=True, env=ENVIRONMENT)
    parallel = subprocess.run([*MPIRUN, "-np", "4", str(BUILD / "bin/example_parallel")], capture_output=True, text=True, env=ENVIRONMENT)
    numbers = [[float(n) for n in re.findall(r"\d+\.\d+", run.stdout)] for run in (serial, parallel)]
    same = len(numbers[0]) == 10 and len(numbers[1]) == 10 and all(abs(a - b) <= 2e-5 * a for a, b in zip(*numbers))
    check("the examples, serial and parallel, agree", same, serial.stdout + serial.stderr + parallel.stdout + parallel.stderr)


def trace():
    wide = ["model.hidden_size=192", "model.moe_intermediate_size=192", "model.num_attention_heads=8", "model.head_dim=16"]  # several buckets
    code, output, _ = train(4, "traced", *sizes(pp=2), *wide, "--trace", "trace.json")
    check("a traced run", code == 0, output)
    events = json.loads((WORK / "trace.json").read_text())
    events = [e for e in (events["traceEvents"] if isinstance(events, dict) else events) if e.get("ph") == "X"]
    check("the trace has every rank", {e["pid"] for e in events} == {0, 1, 2, 3}, events[:3])
    begins = {(e["pid"], e["cat"], e["args"]["seq"], e["name"][5:]): e["ts"] for e in events if e["name"].startswith("wait ")}
    early = {}  # operations that were done before anybody waited for them
    for e in events:
        key = (e["pid"], e["cat"], e["args"]["seq"], e["name"])
        if key in begins and (e["args"]["bytes"] > 0 or e["name"] == "receive") and e["ts"] + e["dur"] < begins[key]:
            early[e["cat"], e["name"]] = early.get((e["cat"], e["name"]), 0) + 1
    for wanted in (("dp", "reduce_scatter"), ("dp", "all_gather"), ("pp", "receive")):
        check(f"{' '.join(wanted)}: bytes done before the wait", early.get(wanted, 0) > 0, early)


def failures():
    code, output, seconds = train(3, "wrong", *sizes(tp=2), limit=30)
    check("an impossible layout: refused with the arithmetic, once", code == 2 and output.count("does not divide the 3 processes") == 2 and "possible: 2 or 4 processes" in output, output)
    (WORK / "taken").write_text("")
    code, output, seconds = train(2, "taken/run", limit=30)
    check("no output directory: one message", code != 0 and "taken" in output and seconds < 20, output)

    def stopped(out, ranks, harm, limit, *overrides):
        job = start(command(ranks, out, "stages.0.train_iters=2000", "checkpoint.save_interval=1000", *overrides))
        end = time.time() + 30
        while time.time() < end and not ((WORK / out / "metrics.jsonl").exists() and len((WORK / out / "metrics.jsonl").read_text().splitlines()) > 4):
            time.sleep(0.1)
        found = subprocess.run(["pgrep", "-f", f"^{BUILD}/bin/af_train.*output_dir={out}"], capture_output=True, text=True).stdout.split()
        environments = {p: pathlib.Path(f"/proc/{p}/environ").read_text() for p in found}
        victim = next((int(p) for p, e in environments.items() if "OMPI_COMM_WORLD_RANK=2\0" in e), None)
        check(f"{out}: four ranks run", len(found) == ranks and victim, found)
        if not victim:
            os.killpg(job.pid, signal.SIGKILL)
            return -1, job.communicate()[0], 0
        os.kill(victim, harm)
        result = finish(job, limit)
        subprocess.run(["pkill", "-9", "-f", f"^{BUILD}/bin/af_train.*output_dir={out}"])
        return result

    code, output, seconds = stopped("killed", 4, signal.SIGKILL, 30, *sizes(pp=2))
    check("a killed rank ends the job in seconds", code != 0 and seconds < 15 and "signal 9" in output, (seconds, output[-1500:]))
    code, output, seconds = stopped("hung", 4, signal.SIGSTOP, 60, *sizes(pp=2), "runtime.distributed_timeout_minutes=0.1")
    check("a hung rank ends the job, by name", code != 0 and seconds < 30 and re.search(r"rank(s)? .*\b2\b", output), (seconds, output[-1500:]))
    recorders = list((WORK / "hung/flight").glob("rank-*.flight"))
    check("flight recorders are left", len(recorders) == 4, recorders)


def many():
    code, output, seconds = train(64, "many", *sizes(tp=2, pp=4, cp=2, ep=8, etp=2), "stages.0.global_batch_size=32", "stages.1.global_batch_size=32", limit=240)
    train(1, "many_one", "stages.0.global_batch_size=32", "stages.1.global_batch_size=32")
    check(f"64 ranks within 2 minutes ({seconds:.0f} s)", code == 0 and seconds < 120, output[-2000:])
    check("64 ranks: one process's numbers", not differs("many", "many_one"), differs("many", "many_one"))


def hosts():
    """The same bits with ranks on four hosts (network namespaces), round robin, over TCP."""
    global skipped
    state = WORK / "hosts_state"
    state.mkdir()
    env = {**os.environ, "N": "4", "P": "afh", "STATE": str(state)}
    if os.geteuid() != 0 or not shutil.which("ip") or subprocess.run(["bash", HERE / "hosts.sh", "up"], env=env, capture_output=True).returncode != 0:
        print("skipped: hosts need root and iproute2")
        skipped += 1
        return
    try:
        ENVIRONMENT.update(env)
        mpirun = [str(HERE / "host_exec.sh"), "10.77.0.1", "mpirun", "--mca", "plm", "rsh", "--mca", "plm_rsh_agent", str(HERE / "host_exec.sh"), "--host",
                  "10.77.0.1:2,10.77.0.2:2,10.77.0.3:2,10.77.0.4:2", "--bind-to", "none", "--mca", "pml", "ob1", "--mca", "btl", "self,tcp",
                  "--mca", "btl_tcp_if_include", "10.77.0.0/24", "--mca", "oob_tcp_if_include", "10.77.0.0/24"]
        code, output, _ = train(8, "hosts", *sizes(tp=2, pp=2, ep=2, etp=2), mpirun=mpirun, flags=["--map-by", "node"], limit=300)
        check("four hosts, ranks placed round robin: the bits of one host", code == 0 and tensors("hosts") == tensors("tp2_pp2_ep2"), output[-2000:])
    finally:
        subprocess.run(["bash", HERE / "hosts.sh", "down"], env=env, capture_output=True)


prepare()
for part in (layouts, bits, other_layouts, bytes_outside, examples, trace, failures) + ((many, hosts) if FULL else ()):
    begin = time.time()
    part()
    print(f"  {part.__name__}: {time.time() - begin:.0f} s", flush=True)
shutil.rmtree(WORK, ignore_errors=True)
print(f"{passed} passed, {failed} failed, {skipped} skipped")
sys.exit(failed > 0)
