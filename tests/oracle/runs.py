"""Whole runs of the programs against PyPI's tensorboard and against transformers.

    runs.py BUILD_DIR OUT_DIR

A tiny model is trained through two stages, the second longer and with another RoPE (base raised; YaRN). Then
* TensorBoard's reader gives what metrics.jsonl says, for both starts of a run that was resumed;
* the exported folder has the RoPE of the last stage, and transformers' loss on the validation documents, each token at its position in
  its document, is what the run reported: as a whole and by position;
* the mutant: with the first stage's RoPE in config.json it must not be.
"""

import argparse
import json
import pathlib
import shutil
import sys

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoModelForCausalLM

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from common import Checks, events_of, json_lines, must, tokenize  # noqa: E402

LOSS_BOUND = 1e-5  # relative
END = 256  # <|endoftext|> of the byte tokenizer
LENGTH = 256  # of the second stage
CONFIG = """
output_dir: {out}
seed: 3
model: {{model_type: qwen3_moe, vocab_size: 288, hidden_size: 48, num_hidden_layers: 3, num_attention_heads: 4, num_key_value_heads: 2, head_dim: 16,
        max_position_embeddings: 64, tie_word_embeddings: false, num_experts: 4, num_experts_per_tok: 2, moe_intermediate_size: 32, rope_theta: 1000}}
stages:
  - {{name: stage1, seq_length: 64, train_iters: 6, micro_batch_size: 2, global_batch_size: 4, lr: {{lr: 3e-3}}, data: [{{path: train.h5}}]}}
  - {{name: stage2, seq_length: 256, train_iters: 6, global_batch_size: 2, {rope}, lr: {{lr: 3e-3}}, data: [{{path: train.h5}}]}}
validation: {{data: [{{path: held.h5}}], eval_iters: 3}}
checkpoint: {{save_interval: 4}}
runtime: {{peak_tflops: 0.1}}
"""
ROPES = {"raised": "rope_theta: 50000", "yarn": "rope_scaling: {rope_type: yarn, factor: 4, original_max_position_embeddings: 64}"}


def documents(name, count):
    words = ["alpha", "beta", "gamma", "delta", "epsilon"]
    return [f"{name} {i}: " + " ".join(words[(i * j + j * j) % 5] for j in range(3 + (i * 37) % 90)) for i in range(count)]


def losses(folder, texts, sequences):
    """Of each counted target: (position in its piece, nats). The documents one after the other, cut every LENGTH tokens."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    tokens = [list(text.encode()) + [END] for text in texts]
    out, used = [], 0
    for document in tokens:
        while document and used < sequences * LENGTH:
            count = min(len(document), LENGTH - used % LENGTH)
            piece, target = document[:count], document[1 : count + 1]
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([piece]), use_cache=False).logits[0, : len(target)]
            out += enumerate(torch.nn.functional.cross_entropy(logits, torch.tensor(target, dtype=torch.long), reduction="none").double().tolist())
            document, used = document[count:], used + count
    return out


def off(event, parts):
    """How far the event is from transformers, relatively: the worst of the whole and each bucket of positions."""
    worst = abs(event["lm_loss"] / (sum(x for _, x in parts) / len(parts)) - 1)
    if event["targets"] != len(parts) or len(event["by_position"]) != 3:
        return float("inf")
    for bucket in event["by_position"]:
        mine = [x for p, x in parts if bucket["begin"] <= p < bucket["end"]]
        worst = max(worst, abs(bucket["lm_loss"] / (sum(mine) / len(mine)) - 1)) if len(mine) == bucket["targets"] else float("inf")
    return worst


def check_rope(check, name, work, programs, held):
    event = events_of(work / name, "validation")[-1]
    must(programs / "af_checkpoint", "export-hf", f"{name}/checkpoints/latest", f"{name}_hf", "--dtype", "float32", cwd=work)
    path = work / f"{name}_hf" / "config.json"
    config = json.loads(path.read_text())
    scaling = config.get("rope_scaling") or {}
    check(f"{name}: config.json has the trained RoPE", config["max_position_embeddings"] == LENGTH and (
        (config["rope_theta"], scaling.get("factor")) == ((50000, None) if name == "raised" else (1000, 4))), str(config))
    worst = off(event, losses(work / f"{name}_hf", held, event["sequences"]))
    check(f"{name}: loss of the export in transformers, as a whole and by position", worst <= LOSS_BOUND, f"off by {worst:.2e}")
    path.write_text(json.dumps({**config, "rope_theta": 1000, "rope_scaling": None}))
    worst = off(event, losses(work / f"{name}_hf", held, event["sequences"]))
    check(f"{name}: the mutant 'RoPE of the first stage' must be caught", worst > 10 * LOSS_BOUND, f"off by {worst:.2e} only")


def scalars_of(file):
    events = EventAccumulator(str(file), size_guidance={"scalars": 0}).Reload()
    return {tag: {e.step: e.value for e in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


def check_tensorboard(check, work, programs):
    """A run cut after its first checkpoint and gone on with: two files, each with its own steps."""
    first = work / "raised" / "checkpoints" / "stage1-4"
    must(programs / "af_train", "resumed.yaml", "--resume", first, cwd=work)
    for name, steps in (("raised", range(1, 13)), ("resumed", range(5, 13))):
        files = list((work / name / "tensorboard").iterdir())
        check(f"{name}: one file a start", len(files) == 1, str(files))
        scalars, lines = scalars_of(files[0]), json_lines(work / name / "metrics.jsonl")
        tags = {"lm loss": "lm_loss", "learning-rate": "learning_rate", "grad-norm": "grad_norm", "params-norm": "params_norm", "batch-size": "global_batch_size",
                "load_balancing_loss": "load_balancing_loss", "throughput": "tflops_per_gpu", "tokens-per-second": "tokens_per_second"}  # fmt: skip
        metrics = [line for line in lines if "event" not in line]
        for tag, key in tags.items():
            expected = {line["iteration"]: torch.tensor(line[key]).float().item() for line in metrics}
            check(f"{name}: {tag}", list(expected) == list(steps) and scalars.get(tag) == expected, f"{scalars.get(tag)} {expected}")
        expected = {line["consumed_samples"]: torch.tensor(line["lm_loss"]).float().item() for line in metrics}
        check(f"{name}: lm loss vs samples", scalars.get("lm loss vs samples") == expected, str(scalars.get("lm loss vs samples")))
        for event in events_of(work / name, "validation"):
            found = {tag: values.get(event["iteration"]) for tag, values in scalars.items()}
            expected = {"lm loss validation/held": event["lm_loss"]}
            expected |= {f"lm loss validation/held/{p['begin']}-{p['end']}": p["lm_loss"] for p in event["by_position"]}
            good = all(found.get(tag) == torch.tensor(value).float().item() for tag, value in expected.items())
            check(f"{name}: validation at {event['iteration']}", good, str(expected))


def main():
    parser = argparse.ArgumentParser()
    for name in ("build", "out"):
        parser.add_argument(name, type=pathlib.Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    programs, work = arguments.build.resolve() / "bin", arguments.out.resolve()
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    texts = {"train": documents("train", 200), "held": documents("held", 60)}
    for name, lines in texts.items():
        tokenize(programs, work, name, lines)
    check = Checks()
    for name, rope in {**ROPES, "resumed": ROPES["raised"]}.items():
        (work / f"{name}.yaml").write_text(CONFIG.format(out=name, rope=rope))
        if name in ROPES:
            must(programs / "af_train", f"{name}.yaml", cwd=work)
            check_rope(check, name, work, programs, texts["held"])
    check_tensorboard(check, work, programs)
    raise SystemExit(check.close())


if __name__ == "__main__":
    main()
