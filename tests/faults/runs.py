"""The run that is harmed, and the undisturbed ones that it is compared with."""
import json
import os
import shutil
import subprocess

from common import tokenize_pages
from job import FOLDER, OPERATIONS, Job

CONFIG = """
seed: 7
model: {model_type: qwen3_moe, vocab_size: 288, hidden_size: 16, num_hidden_layers: 2, num_attention_heads: 2, num_key_value_heads: 2, head_dim: 8,
        max_position_embeddings: 256, tie_word_embeddings: false, num_experts: 4, num_experts_per_tok: 2, moe_intermediate_size: 16, rope_theta: 10000}
stages:
  - name: stage1
    seq_length: 32
    train_iters: 8
    global_batch_size: 4
    lr: {lr: 3e-3, min_lr: 3e-4, lr_decay_style: cosine}
    data: [{path: a.h5, weight: 0.7}, {path: b.h5, weight: 0.3}]
  - name: stage2
    seq_length: 64
    train_iters: 6
    global_batch_size: 4
    packing: best_fit
    rope_theta: 40000
    lr: {lr: 1e-3, min_lr: 1e-4, lr_decay_style: linear}
    data: [{path: a.h5, weight: 0.5}, {path: b.h5, weight: 0.5}]
validation: {data: [{path: b.h5, name: heldout}], eval_interval: 3, eval_iters: 1}
checkpoint: {save_interval: 2, keep: 3}
runtime: {threads_per_rank: 1, peak_tflops: 0.1}
"""
P = "parallel."
TP, PP, EP = (P + f"{axis}_model_parallel_size=2" for axis in ("tensor", "pipeline", "expert"))
CP = P + "context_parallel_size=2"
LAYOUTS = {  # name: ranks, overrides
    "dp2": (2, []),
    "tp2": (2, [TP]),
    "pp2": (2, [PP]),
    "ep2": (2, [EP]),
    "cp2": (2, [CP]),
    "tp2 then pp2": (2, ["stages.0." + TP, "stages.1." + PP]),
    "dp4": (4, []),
    "tp2 dp2": (4, [TP]),
    "pp2 ep2": (4, [PP, EP]),
    "ep2 dp2 then tp2 pp2": (4, ["stages.0." + EP, "stages.1." + TP, "stages.1." + PP]),
}
# What a step is, whatever the machine does. The other numbers are times, memory, and bytes that a resumed run's first step does not send.
STEP = ("stage", "consumed_samples", "consumed_tokens", "lm_loss", "load_balancing_loss", "grad_norm", "params_norm", "learning_rate", "tokens_per_expert",
        "packing_utilization", "skipped", "nan")


class Runs:
    def __init__(self, build, work):
        self.build, self.work, self.folder, self.references = build, work, work / "f", {}

    def prepare(self):
        self.work.chmod(0o755)
        subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", self.work / "libharm.so", FOLDER / "harm.c", "-ldl"], check=True)
        data = self.work / "data"
        data.mkdir()
        tokenize_pages(self.build / "bin", data)
        (data / "run.yaml").write_text(CONFIG.lstrip())

    def fresh(self):
        """An empty folder with the data and the configuration."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.work / "data", self.folder)
        return self.folder

    def start(self, layout, *words, **options):
        ranks, overrides = LAYOUTS[layout]
        return Job(self.build / "bin/af_train", ["run.yaml", "output_dir=run", *overrides, *words], ranks, self.folder, **options)

    def reference(self, layout):
        if layout not in self.references:
            self.fresh()
            counts = self.work / "counts"
            shutil.rmtree(counts, ignore_errors=True)
            counts.mkdir()
            job = self.start(layout, counts=str(counts))
            ended = job.wait(120)
            job.clean_up()
            if not ended or job.process.returncode != 0:
                raise SystemExit(f"an undisturbed run ({layout}) failed:\n{job.output()}")
            self.references[layout] = Reference(self.folder, job.seconds(), counts, LAYOUTS[layout][0])
        return self.references[layout]

    @staticmethod
    def steps_of(folder):
        """Lines of steps in its metrics."""
        path = folder / "run/metrics.jsonl"
        return path.read_text(errors="replace").count('"lm_loss"') if path.exists() else 0


class Reference:
    def __init__(self, folder, seconds, counts, ranks):
        self.seconds = seconds
        self.steps, self.validations = trajectory(folder / "run/metrics.jsonl")
        self.final = final_checkpoint(folder)
        self.counts = [{operation: 0 for operation in OPERATIONS} for _ in range(ranks)]
        for rank in range(ranks):
            for line in (counts / f"counts.{rank}").read_text().splitlines():
                operation, n = line.split()
                self.counts[rank][operation] = int(n)

    def differences(self, folder):
        """What of the run in `folder` is not as here; []: nothing."""
        steps, validations = trajectory(folder / "run/metrics.jsonl")
        found = []
        for i in sorted(self.steps.keys() | steps.keys()):
            if self.steps.get(i) != steps.get(i):
                found.append(f"iteration {i}: {steps.get(i)}, undisturbed {self.steps.get(i)}")
                break
        for key in sorted(self.validations.keys() | validations.keys()):
            if self.validations.get(key) != validations.get(key):
                found.append(f"validation {key}: {validations.get(key)}, undisturbed {self.validations.get(key)}")
                break
        final = final_checkpoint(folder)
        found += [f"final checkpoint: {name} differs" for name in sorted(self.final.keys() | final.keys()) if self.final.get(name) != final.get(name)]
        return found


def trajectory(path):
    """The last line of each iteration, and of each validation."""
    steps, validations = {}, {}
    for text in path.read_text(errors="replace").splitlines() if path.exists() else []:
        try:
            line = json.loads(text)
        except ValueError:  # cut off by the end of the process
            continue
        if line.get("event") == "validation":
            validations[line["iteration"]] = [line["lm_loss"], line["targets"]]
        elif "event" not in line:
            steps[line["iteration"]] = {key: line.get(key) for key in STEP}
    return steps, validations


def final_checkpoint(folder):
    """Names and bytes of what holds the model and the optimizer, and where the run stands."""
    checkpoints = folder / "run/checkpoints"
    last = checkpoints / os.readlink(checkpoints / "latest") if (checkpoints / "latest").is_symlink() else checkpoints / "none"
    return {p.name: p.read_bytes() for p in (last.iterdir() if last.is_dir() else []) if p.suffix == ".h5" or p.name in ("state.json", "config.json")}
