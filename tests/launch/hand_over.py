"""One cluster trains a stage, another the next: it gets the last checkpoint's folder and its own datasets, and nothing else."""
import json
import shutil
import subprocess

from common import MPI_ENVIRONMENT, state_of, steps_of, tokenize_words

CONFIG = """
output_dir: OUT
seed: 7
model: {model_type: qwen3_moe, vocab_size: 288, hidden_size: 32, num_hidden_layers: 4, num_attention_heads: 4, num_key_value_heads: 2, head_dim: 8,
        max_position_embeddings: 256, tie_word_embeddings: false, num_experts: 8, num_experts_per_tok: 2, moe_intermediate_size: 32, rope_theta: 10000}
init: {hf_checkpoint: weights}
stages:
  - {name: stage1, seq_length: 64, train_iters: 6, global_batch_size: 4, lr: {lr: 3e-3, min_lr: 3e-4}, data: [{path: a.h5, weight: 0.6}, {path: b.h5, weight: 0.4}]}
  - {name: stage2, seq_length: 128, train_iters: 5, global_batch_size: 4, packing: best_fit, lr: {lr: 1e-3, min_lr: 1e-4}, data: [{path: b.h5}]}
  - {name: stage3, seq_length: 64, train_iters: 2, global_batch_size: 4, lr: {lr: 1e-4, min_lr: 1e-4}, data: [{path: b.h5}]}
checkpoint: {save_interval: 4}
runtime: {threads_per_rank: 1, peak_tflops: 0.1}
logging: {tensorboard: false}
"""
WEIGHTS = """
output_dir: seed
model: {model_type: qwen3_moe, vocab_size: 288, hidden_size: 32, num_hidden_layers: 4, num_attention_heads: 4, num_key_value_heads: 2, head_dim: 8,
        max_position_embeddings: 256, tie_word_embeddings: false, num_experts: 8, num_experts_per_tok: 2, moe_intermediate_size: 32, rope_theta: 10000}
stages: [{name: s, seq_length: 64, train_iters: 1, global_batch_size: 1, lr: {lr: 1e-6, min_lr: 0}, data: [{path: a.h5}]}]
"""


def run(binaries, work, check, launcher=()):
    """`launcher`: the mpirun under which the second cluster runs four ranks in another layout; else it has the first one's."""
    first, second = work / "cluster1", work / "cluster2"
    for folder in (first, second):
        folder.mkdir()

    def program(where, *command, ranks=1):
        words = [str(binaries / command[0]), *map(str, command[1:])]
        result = subprocess.run([*launcher, "-np", str(ranks), *words] if ranks > 1 else words, cwd=where, env=MPI_ENVIRONMENT, text=True, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, timeout=300)
        return result.returncode, result.stdout

    def config(where, out):
        (where / f"{out}.yaml").write_text(CONFIG.replace("OUT", out))
        return f"{out}.yaml"

    def latest(where, out):
        return where / out / "checkpoints/latest"

    tokenize_words(binaries, first)
    (first / "weights.yaml").write_text(WEIGHTS)
    begun = program(first, "af_train", "weights.yaml")
    exported = program(first, "af_checkpoint", "export-hf", "seed", "weights", "--dtype", "float32")  # a run's directory is a checkpoint too: its latest
    check("weights to begin from", begun[0] == exported[0] == 0, begun[1][-500:] + exported[1])
    code, output = program(first, "af_train", config(first, "whole"))
    check("the stages in one run", code == 0, output[-1500:])
    shutil.copy(first / "b.h5", second)
    path = config(second, "run")

    def refused(what, words, *expected, ranks=1):
        code, output = program(second, "af_train", *words, ranks=ranks)
        check(what, code == 2 and all(word in output for word in expected), f"{code} {output[-1500:]}")

    refused("nothing was handed over", (path, "--stage", "stage2"), "there is no checkpoint in run/checkpoints", "stage1", "stage_finished")
    refused("no such stage", (path, "--stage", "stage9"), "stage9", "stage1, stage2, stage3")
    refused("no such checkpoint", (path, "--stage", "stage2", "--resume", "nowhere"), "nowhere/manifest.json")
    refused("without --stage all datasets must be there", (path,), "a.h5")

    code, output = program(first, "af_train", config(first, "part"), "--stage", "stage1")
    finished = first / "part/checkpoints/stage1-6"
    marker = finished / "stage_finished"
    check("the first cluster's stage", code == 0 and json.loads(marker.read_text()) == {"stage": "stage1", "iteration": 6, "consumed_tokens": 6 * 4 * 64}, output[-1500:])
    check("one that is not at its end has no marker", not (first / "part/checkpoints/stage1-4/stage_finished").exists())
    code, output = program(first, "af_train", "part.yaml", "--stage", "stage1")
    check("again: nothing to do", code == 0 and "stage stage1 is finished in part: nothing to do" in output, output[-500:])

    shutil.copytree(first / "part", first / "longer", symlinks=True)
    code, output = program(first, "af_train", "part.yaml", "--stage", "stage1", "output_dir=longer", "stages.0.train_iters=8")
    check("a finished stage that was made longer goes on", code == 0 and "was finished with 6 iterations; it is longer now" in output
          and json.loads((first / "longer/checkpoints/stage1-8/stage_finished").read_text())["iteration"] == 8, output[-1500:])

    shutil.copytree(first / "part/checkpoints/stage1-4", second / "early/stage1-4")
    refused("a stage under way", (path, "--stage", "stage2", "--resume", "early/stage1-4"), "stage1 is not finished", "early/stage1-4/stage_finished", "iteration 4 of 6")
    refused("two stages on", (path, "--stage", "stage3", "--resume", "early/stage1-4"), "stage2 is not finished", "iteration 4 of 6 in stage stage1")
    shutil.copytree(finished, second / "cut/stage1-6")
    (second / "cut/stage1-6/shard-00000.h5").unlink()
    refused("a copy without a shard", (path, "--stage", "stage2", "--resume", "cut/stage1-6"), "cut/stage1-6/shard-00000.h5")
    shutil.copy(finished / "shard-00000.h5", second / "cut/stage1-6")
    (second / "cut/stage1-6/stage_finished").unlink()
    refused("a copy without the marker", (path, "--stage", "stage2", "--resume", "cut/stage1-6"), "cut/stage1-6/stage_finished: is missing")
    check("nothing half-begun stays", not list((second / "run/checkpoints").glob("*")) if (second / "run/checkpoints").exists() else True)

    # By --resume, and by a copy in the run's own directory, which goes on by itself after a stop.
    layout = ("parallel.tensor_model_parallel_size=2", "parallel.expert_model_parallel_size=2") if launcher else ()
    shutil.copytree(finished, second / "given/stage1-6")
    shutil.copytree(finished, second / "run/checkpoints/stage1-6")
    config(second, "by_path")
    for out, words in (("run", ()), ("by_path", ("--resume", "given/stage1-6"))):
        code, output = program(second, "af_train", f"{out}.yaml", "--stage", "stage2", *layout, *words, ranks=4 if launcher else 1)
        check(f"{out}: the second cluster's stage", code == 0 and (latest(second, out) / "stage_finished").exists(), output[-2000:])
        ours, theirs = steps_of(second / out), steps_of(first / "whole")
        check(f"{out}: it goes on with the numbers", sorted(ours) == list(range(7, 12)), str(sorted(ours)))
        state = state_of(second / out)
        same = state_of(first / "whole", "stage2-11")
        check(f"{out}: the same samples in the same order", state["data"] == same["data"] and state["consumed_tokens"] == same["consumed_tokens"])
        check(f"{out}: what the first stage read stays on record", sorted(d["name"] for d in state["datasets"]) == ["a", "b"], str(state["datasets"]))
        if launcher:
            off = max(abs(ours[i]["lm_loss"] - theirs[i]["lm_loss"]) / theirs[i]["lm_loss"] for i in ours)
            check(f"{out}: equal to rounding", off < 2e-5, str(off))
        else:
            check(f"{out}: the same steps", all(ours[i][k] == theirs[i][k] for i in ours for k in ("lm_loss", "grad_norm", "params_norm", "learning_rate")))
            shards = ["shard-00000.h5"]
            check(f"{out}: the same bytes", all((latest(second, out) / s).read_bytes() == (first / "whole/checkpoints/stage2-11" / s).read_bytes() for s in shards))
            check("a stage less is another state", (finished / shards[0]).read_bytes() != (latest(second, out) / shards[0]).read_bytes())
