#!/usr/bin/env python3
"""af_train under mpirun, as a user meets it: layouts, stages in other layouts, resuming in others, one process's numbers everywhere, and each way
for a job to fail.

  tests/mpi/programs.py BUILD_DIR [--full]     --full: 64 ranks, and ranks on several hosts (needs root and iproute2)
Closes with "N passed, N failed, N skipped"."""
import fcntl
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "launch")]
import hand_over  # noqa: E402
import loss_spikes  # noqa: E402
from common import MPI_ENVIRONMENT, MPIRUN, Checks, events_of, finish, steps_of, tensors_of, tokenize_pages  # noqa: E402

BUILD = pathlib.Path(sys.argv[1]).resolve()
FULL = "--full" in sys.argv
HERE = pathlib.Path(__file__).resolve().parent
WORK = pathlib.Path(tempfile.mkdtemp(prefix="af_mpi_"))
ENVIRONMENT = dict(MPI_ENVIRONMENT)
check = Checks()

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


def command(ranks, out, *overrides, flags=(), mpirun=None, config="run.yaml"):
    program = [str(BUILD / "bin/af_train"), config, f"output_dir={out}", *overrides]
    return program if ranks == 1 else [*(mpirun or MPIRUN), *flags, "-np", str(ranks), *program]


def start(words):
    return subprocess.Popen(words, cwd=WORK, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)


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


def steps(out):
    return steps_of(WORK / out)


def events(out, name):
    return events_of(WORK / out, name)


def tensors(out, checkpoint="latest"):
    return tensors_of(WORK / out, checkpoint)


def differs(out, reference="one", first=1, flips=False):
    """What is not one process's, within the bounds of fp32; "": nothing. flips: rounding may send a few tokens to other experts."""
    ours, theirs = steps(out), steps(reference)
    if [i for i in theirs if i >= first] != [i for i in ours if i >= first]:
        return f"iterations {list(ours)}"
    for i, step in ours.items():
        if i < first:
            continue
        for key, bound in (("lm_loss", 1e-5), ("grad_norm", 1e-4), ("load_balancing_loss", 1e-4 if flips else 1e-5), ("params_norm", 1e-5)):
            if not abs(step[key] - theirs[i][key]) <= bound * abs(theirs[i][key]):
                return f"iteration {i}: {key} {step[key]}, one process {theirs[i][key]}"
        routed = [o[i].get("tokens_per_expert") or {} for o in (ours, theirs)]
        room = lambda key, b: max(0.005 * b, 2 if key != "cv" else 0) if flips else 0
        if any(abs(a - b) > room(key, b) for (key, a), b in zip(routed[0].items(), routed[1].values(), strict=True)):
            return f"iteration {i}: tokens_per_expert {routed[0]}, one process {routed[1]}"
        for key in ("consumed_samples", "consumed_tokens", "learning_rate", "packing_utilization"):
            if step.get(key) != theirs[i].get(key):
                return f"iteration {i}: {key} {step.get(key)}, one process {theirs[i].get(key)}"
    validations = [[v for v in events(o, "validation") if v["iteration"] >= first] for o in (out, reference)]
    for ours_v, theirs_v in zip(*validations, strict=True):
        parts = lambda v: [v["lm_loss"]] + [p["lm_loss"] for p in v["by_position"]]
        if any(abs(a - b) > 1e-5 * b for a, b in zip(parts(ours_v), parts(theirs_v), strict=True)) or ours_v["targets"] != theirs_v["targets"]:
            return f"validation {ours_v}, one process {theirs_v}"
    if (WORK / out / "data_ledger.jsonl").read_bytes() != (WORK / reference / "data_ledger.jsonl").read_bytes():
        return "the data ledger"
    return ""


def prepare():
    (WORK / "run.yaml").write_text(CONFIG.lstrip())
    tokenize_pages(BUILD / "bin", WORK)
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


def loss_on_roles():
    """A stage whose loss is on some roles alone is one process's in any layout; the comparison notices roles that are ignored, and roles one token off."""
    draw = random.Random(3)
    words = lambda: " ".join(draw.choice(["alpha", "beta", "gamma", "delta"]) for _ in range(draw.randint(1, 12)))
    for name in ("roles", "shifted"):
        draw.seed(3)
        with open(WORK / f"{name}.jsonl", "w") as file:
            for i in range(120):
                parts = [["user", f"question {i} {words()}?\n"], ["thought", f"{words()}\n"], ["action", f"{words()}\n"], ["observation", f"found {words()}\n"],
                         ["answer", f"{words()}\n"]]
                for before, after in zip(parts, parts[1:]) if name == "shifted" else ():  # a byte, which is a token here
                    before[1], after[1] = before[1] + after[1][0], after[1][1:]
                file.write(json.dumps({"segments": [{"role": role, "text": text} for role, text in parts]}) + "\n")
        subprocess.run([BUILD / "bin/af_data", "tokenize", "--tokenizer", "bytes", "--input", f"{name}.jsonl", "--output", f"{name}.h5"], cwd=WORK, check=True,
                       capture_output=True)
    text = CONFIG.lstrip().replace("{path: a.h5, weight: 0.5}, {path: b.h5, weight: 0.5}", "{path: roles.h5, name: sft}").replace("train_iters: 4", "train_iters: 1")
    (WORK / "sft.yaml").write_text(text.replace("    packing: best_fit\n", "    packing: best_fit\n    loss_roles: [thought, action, answer]\n"))
    (WORK / "ignored.yaml").write_text(text)
    (WORK / "shifted.yaml").write_text((WORK / "sft.yaml").read_text().replace("roles.h5", "shifted.h5"))
    for name in ("sft", "ignored", "shifted"):
        code, output, _ = train(1, f"{name}_one", config=f"{name}.yaml")
        check(f"loss on roles, {name}: one process trains", code == 0, output)
    for ranks, layout in ((4, sizes(cp=2)), (8, sizes(tp=2, pp=2, cp=2, ep=2, etp=2))):
        out = f"sft_{ranks}"
        code, output, _ = train(ranks, out, *layout, config="sft.yaml")
        check(f"loss on roles, {ranks} ranks", code == 0 and not differs(out, "sft_one"), output[-1000:] if code else differs(out, "sft_one"))
        for mutant in ("ignored", "shifted"):
            check(f"loss on roles, {ranks} ranks: {mutant} is noticed", "lm_loss" in differs(out, f"{mutant}_one"), differs(out, f"{mutant}_one"))


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
        while time.time() < end and len(steps(out)) < 3:
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
    check("a killed rank ends the job in seconds", code != 0 and seconds < 30 and "signal 9" in output, (seconds, output[-1500:]))
    code, output, seconds = stopped("hung", 4, signal.SIGSTOP, 60, *sizes(pp=2), "runtime.distributed_timeout_minutes=0.1")
    check("a hung rank ends the job, by name", code != 0 and seconds < 30 and re.search(r"rank(s)? .*\b2\b", output), (seconds, output[-1500:]))
    recorders = list((WORK / "hung/flight").glob("rank-*.flight"))
    check("flight recorders are left", len(recorders) == 4, recorders)


def weights(out):
    folder = f"{out}_hf"
    shutil.rmtree(WORK / folder, ignore_errors=True)
    exported = subprocess.run([BUILD / "bin/af_checkpoint", "export-hf", f"{out}/checkpoints/latest", folder], cwd=WORK, capture_output=True, text=True)
    check(f"{out}: export-hf", exported.returncode == 0, exported.stderr)
    return (WORK / folder / "model.safetensors").read_bytes() if exported.returncode == 0 else out


def ranks_of(out):
    """{rank: process} of a run's ranks."""
    found = {}
    for process in subprocess.run(["pgrep", "-f", f"^{BUILD}/bin/af_train.*output_dir={out}"], capture_output=True, text=True).stdout.split():
        try:
            rank = re.search(r"(?:OMPI_COMM_WORLD|PMIX)_RANK=(\d+)\0", pathlib.Path(f"/proc/{process}/environ").read_text())
        except OSError:
            continue
        if rank:
            found[int(rank[1])] = int(process)
    return found


def listens(process):
    """Whether it has begun main() as far as its handlers: before, a signal simply kills it."""
    try:
        return int(re.search(r"SigCgt:\s*(\w+)", pathlib.Path(f"/proc/{process}/status").read_text())[1], 16) >> (signal.SIGUSR1 - 1) & 1
    except OSError:
        return False


def wait_for(job, condition, limit=60):
    end = time.time() + limit
    while time.time() < end and job.poll() is None and not condition():
        time.sleep(0.005)
    return job.poll() is None


STOPPED_RUN = sizes(tp=2, ep=2) + ["stages.0.train_iters=12", "validation.eval_interval=5", "validation.eval_iters=4"]


# A moment in each phase, by what a run shows of itself. (The first checkpoint is of iteration 2: its save is under way where its folder is there.)
PHASES = {
    "start": lambda out: len(ranks_of(out)) == 4 and all(listens(process) for process in ranks_of(out).values()),
    "data": lambda out: events(out, "stage_begin"),
    "step": lambda out: 3 in steps(out),
    "evaluation": lambda out: 5 in steps(out),
    "save": lambda out: (WORK / out / "checkpoints").exists() and any((WORK / out / "checkpoints").iterdir()),
}


def stops():
    """All ranks stop at one step, save, and end with 75; the run that goes on has the bits of one that never stopped."""
    code, output, _ = train(4, "unstopped", *STOPPED_RUN)
    check("a run that nobody stops", code == 0, output)
    whole = weights("unstopped")
    # And two that a seed names, after the last rank has begun.
    random.seed(11)
    moments = {f"moment{i}": (lambda seconds: lambda out: PHASES["start"](out) and time.sleep(seconds) is None)(random.uniform(0, 1)) for i in range(2)}
    for what, ready in (PHASES | moments).items():
        out = f"stop_{what}"
        for _ in range(4):  # on a busy machine the run may have ended before mpirun passes the signal on
            shutil.rmtree(WORK / out, ignore_errors=True)
            job = start(command(4, out, *STOPPED_RUN))
            wait_for(job, lambda: ready(out))
            job.send_signal(signal.SIGUSR1)
            code, output, _ = finish(job, 60)
            if code != 0:
                break
        stopped = [e["iteration"] for e in events(out, "stop")]
        check(f"USR1 to mpirun in {what}: 75, and one line that says so", code == 75 and output.count("stopped by SIGUSR1") == 1 and len(stopped) == 1,
              f"{code} {output[-1500:]}")
        code, output, _ = train(4, out, *STOPPED_RUN)
        check(f"{what}: goes on from there, to the same bits", code == 0 and weights(out) == whole, f"{stopped} {output[-1500:]}")
    # One rank alone is asked, by a TERM: all stop.
    job = start(command(4, "stop_one", *STOPPED_RUN, "stages.0.train_iters=3000"))
    wait_for(job, lambda: PHASES["step"]("stop_one"))
    os.kill(ranks_of("stop_one")[2], signal.SIGTERM)
    code, output, _ = finish(job, 60)
    check("TERM to one rank: all stop and save", code == 75 and "stopped by SIGTERM" in output and (WORK / "stop_one/checkpoints/latest").exists(), f"{code} {output[-1500:]}")
    # The second request does not wait for the step.
    job = start(command(4, "stop_twice", *STOPPED_RUN, "stages.0.global_batch_size=16384", "stages.0.train_iters=2"))
    wait_for(job, lambda: events("stop_twice", "stage_begin"))
    for _ in range(2):
        job.send_signal(signal.SIGUSR1)
        time.sleep(1.3)
    code, output, seconds = finish(job, 60)
    check("a second USR1: 75 at once, nothing saved", code == 75 and seconds < 30 and not (WORK / "stop_twice/checkpoints").exists(), f"{code} {seconds} {output[-1500:]}")
    end = int(time.time()) + 12
    code, output, seconds = train(4, "limited", *STOPPED_RUN, "stages.0.train_iters=100000", "validation.eval_interval=0", flags=["-x", f"SLURM_JOB_END_TIME={end}"])
    latest = WORK / "limited/checkpoints/latest"
    check("the job's end: saved before it", code == 75 and "the time limit" in output and latest.exists() and latest.lstat().st_mtime < end, f"{code} {seconds} {output[-800:]}")


def bad_steps():
    """A run that diverges: skipped on all ranks, the same samples named in any layout, and 1 in the end."""
    diverges = ["stages.0.lr.lr=1e30", "stages.0.lr.min_lr=1e30", "stages.0.train_iters=30", "runtime.max_bad_steps=2", "validation.eval_interval=0"]
    named = {}
    for out, ranks, layout in (("bad_one", 1, []), ("bad_dp_pp", 4, sizes(pp=2)), ("bad_tp_ep", 4, sizes(tp=2, ep=2))):
        code, output, _ = train(ranks, out, *layout, *diverges)
        check(f"{out}: ends with 1 and says why, once", code == 1 and output.count("2 steps in a row") == 1, f"{code} {output[-1500:]}")
        named[out] = [(e["iteration"], [s["sequence"] for s in e["sequences"]]) for e in events(out, "bad_step")]
        check(f"{out}: names the samples that one process names", len(named[out]) >= 2 and named[out] == named["bad_one"], str(named))


def stragglers():
    """A rank that is held up again and again is named."""
    out = "straggler"
    job = start(command(3, out, "stages.0.train_iters=100000", "stages.0.global_batch_size=12", "stages.1.global_batch_size=12", "validation.eval_interval=0"))
    wait_for(job, lambda: 3 in steps(out))
    slow = ranks_of(out)[1]
    named = lambda: [e for e in events(out, "straggler") if e["rank"] == 1]
    end = time.time() + 20
    while time.time() < end and not named():
        for _ in range(10):
            os.kill(slow, signal.SIGSTOP)
            time.sleep(0.05)
            os.kill(slow, signal.SIGCONT)
            time.sleep(0.003)
    found = named()
    job.send_signal(signal.SIGUSR1)
    code, output, _ = finish(job, 60)
    check("a slow rank is named, with its host", code == 75 and found and found[0]["host"] == os.uname().nodename and found[0]["seconds"] > 1.5 * found[0]["median"]
          and " rank 1 (" in output, f"{found} {output[-1000:]}")
    check("every step tells the ranks' times", all(0 < s["rank_times"]["median"] <= s["rank_times"]["max"] for s in steps(out).values()))


def slurm():
    """examples/slurm in a real Slurm, where one is up: a signal to the batch script, and the job goes on by itself."""
    if not shutil.which("sbatch") or subprocess.run(["sinfo"], capture_output=True).returncode != 0:
        return check.skip("no Slurm here (sbatch, and a controller that answers)")
    whole = weights("unstopped")
    words = ["sbatch", "--parsable", "--ntasks=4", "--time=5", f"--chdir={WORK}", f"--output={WORK}/slurm.log", str(HERE.parent.parent / "examples/slurm/train.sbatch")]
    environment = {**ENVIRONMENT, "AF_TRAIN": str(BUILD / "bin/af_train"), "AF_MPIRUN_OPTIONS": " ".join(MPIRUN[1:])}
    number = subprocess.run([*words, "run.yaml", "output_dir=in_slurm", *STOPPED_RUN], env=environment, capture_output=True, text=True).stdout.strip()

    def wait_until(condition, limit):
        end = time.time() + limit
        while time.time() < end and not condition():
            time.sleep(0.05)
        return condition()

    def state():
        return subprocess.run(["squeue", "-h", "-j", number, "-o", "%T", "-t", "all"], capture_output=True, text=True).stdout.strip()

    running = wait_until(lambda: 3 in steps("in_slurm"), 90)
    subprocess.run(["scancel", "--batch", "--signal=USR1", number])
    ended = wait_until(lambda: state() in ("COMPLETED", "FAILED", "CANCELLED"), 240)
    log = (WORK / "slurm.log").read_text() if running else ""
    check("sbatch: USR1 saves, the job starts again and ends as if nothing had been", ended and "stopped by SIGUSR1" in log and "resumed from" in log
          and weights("in_slurm") == whole, f"{number} {state()} {log[-2500:]}")
    for i, (what, ready) in enumerate(PHASES.items()):
        name, out = ("TERM", "USR1")[i % 2], f"in_srun_{what}"
        words = ["srun", "--mpi=pmix", "-n", "4", str(BUILD / "bin/af_train"), "run.yaml", f"output_dir={out}", *STOPPED_RUN]
        job = start(words)
        wait_for(job, lambda: ready(out), 90)
        subprocess.run(["scancel", f"--signal={name}", "--name=af_train"])
        code, output, _ = finish(job, 60)
        check(f"srun: {name} to all ranks in {what} saves, 75", code == 75 and f"stopped by SIG{name}" in output, f"{code} {output[-2000:]}")
        code, output, _ = finish(start(words), 120)
        check(f"srun, {what}: goes on to the same bits", code == 0 and weights(out) == whole, f"{code} {output[-2000:]}")

    held = WORK / "held"
    held.mkdir()
    with open(held / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}, since now\n")
        lock.flush()
        begin = time.time()
        code, output, _ = finish(start(["srun", "--mpi=pmix", "-n", "2", str(BUILD / "bin/af_train"), "run.yaml", "output_dir=held"]), 60)
    check("srun: where another run writes, all ranks end, not the first alone", code != 0 and "another run writes there" in output and time.time() - begin < 50,
          f"{code} after {time.time() - begin:.0f} s: {output[-2000:]}")


def spikes():
    """A loss spike is gone back behind by many ranks as by one."""
    loss_spikes.run(BUILD / "bin", WORK, check, MPIRUN)


def two_clusters():
    """A stage that another cluster has trained goes on here in another layout."""
    hand_over.run(BUILD / "bin", WORK, check, MPIRUN)


def many():
    code, output, seconds = train(64, "many", *sizes(tp=2, pp=4, cp=2, ep=8, etp=2), "stages.0.global_batch_size=32", "stages.1.global_batch_size=32", limit=240)
    train(1, "many_one", "stages.0.global_batch_size=32", "stages.1.global_batch_size=32")
    check(f"64 ranks within 2 minutes ({seconds:.0f} s)", code == 0 and seconds < 120, output[-2000:])
    check("64 ranks: one process's numbers", not differs("many", "many_one", flips=True), differs("many", "many_one", flips=True))


def hosts():
    """The same bits with ranks on four hosts (network namespaces), round robin, over TCP."""
    state = WORK / "hosts_state"
    state.mkdir()
    env = {**os.environ, "N": "4", "P": "afh", "STATE": str(state)}
    if os.geteuid() != 0 or not shutil.which("ip") or subprocess.run(["bash", HERE / "hosts.sh", "up"], env=env, capture_output=True).returncode != 0:
        return check.skip("hosts need root and iproute2")
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
for part in (layouts, bits, other_layouts, loss_on_roles, bytes_outside, examples, trace, failures, stops, bad_steps, spikes, two_clusters, stragglers) + ((slurm, many, hosts) if FULL else ()):
    begin = time.time()
    part()
    print(f"  {part.__name__}: {time.time() - begin:.0f} s", flush=True)
shutil.rmtree(WORK, ignore_errors=True)
sys.exit(check.close())
