#!/usr/bin/env python3
"""The programs as a user meets them: both stages on real text, resuming, and one clear message for each kind of bad input.

usage: programs_test.py FOLDER_OF_PROGRAMS   (python3 alone, no packages; real trajectories if AF_TEST_DATA names them)"""
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import folders  # noqa: E402
import hand_over  # noqa: E402
import long_context  # noqa: E402
import loss_spikes  # noqa: E402
import stops  # noqa: E402
from common import REAL_DATA, Checks, events_of, json_lines, state_of, steps_of, tensors_of, tokenize_words  # noqa: E402

BIN = pathlib.Path(sys.argv[1]).resolve()
WORK = pathlib.Path(tempfile.mkdtemp(prefix="af_programs_"))
check = Checks()

CONFIG = """
output_dir: {out}
seed: 7
model: {{model_type: qwen3_moe, vocab_size: 288, hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 2, head_dim: 16,
        max_position_embeddings: 256, tie_word_embeddings: false, num_experts: 4, num_experts_per_tok: 2, moe_intermediate_size: 32, rope_theta: 10000}}
stages:
  - name: stage1
    seq_length: 64
    train_iters: 12
    micro_batch_size: 2
    global_batch_size: 4
    lr: {{lr: 3e-3, min_lr: 3e-4, lr_decay_style: cosine, lr_warmup_iters: 2}}
    data: [{{path: {a}, weight: 0.7}}, {{path: {b}, weight: 0.3}}]
  - name: stage2
    seq_length: 128
    train_iters: 6
    micro_batch_size: 1
    global_batch_size: 2
    rope_theta: 40000
    lr: {{lr: 1e-3, min_lr: 1e-4, lr_decay_style: linear}}
    data: [{{path: {a}, weight: 0.5}}, {{path: {b}, weight: 0.5}}]
validation: {{data: [{{path: {b}, name: heldout}}], eval_interval: 6, eval_iters: 2}}
checkpoint: {{save_interval: 5, keep: 2}}
runtime: {{threads_per_rank: 2, peak_tflops: 0.1}}
"""


def run(*command, **options):
    return subprocess.run([str(BIN / command[0]), *map(str, command[1:])], capture_output=True, text=True, timeout=300, cwd=WORK, **options)


def config(name, **changes):
    text = CONFIG.format(out=changes.pop("out", name), a=changes.pop("a", "a.h5"), b=changes.pop("b", "b.h5"))
    for old, new in changes.pop("replace", []):
        assert old in text, old
        text = text.replace(old, new)
    path = WORK / f"{name}.yaml"
    path.write_text(text)
    return path


def refused(what, result, *words):
    """Exit 2, the words in the message, no trace of the inside, nothing on the way to a result."""
    text = result.stderr
    good = result.returncode == 2 and all(word in text for word in words) and "must hold" not in text and "terminate" not in text
    check(what, good, f"exit {result.returncode}, expected 2 and {words}\n{text}{result.stdout[-500:]}")


def test_training_and_resume():
    whole = run("af_train", config("whole"))
    check("both stages train", whole.returncode == 0, whole.stderr + whole.stdout)
    steps = steps_of(WORK / "whole")
    check("every iteration is reported once", sorted(steps) == list(range(1, 19)), str(sorted(steps)))
    check("the loss falls in both stages", steps[12]["lm_loss"] < steps[1]["lm_loss"] and steps[18]["lm_loss"] < steps[12]["lm_loss"] + 0.2,
          f"{steps[1]['lm_loss']} {steps[12]['lm_loss']} {steps[18]['lm_loss']}")
    check("samples and tokens go on across stages", steps[18]["consumed_samples"] == 12 * 4 + 6 * 2 and steps[18]["consumed_tokens"] == 12 * 256 + 6 * 256)
    keys = {"lm_loss", "load_balancing_loss", "grad_norm", "params_norm", "learning_rate", "tokens_per_second", "tflops_per_gpu", "mfu", "tokens_per_expert"}
    check("metrics carry the contract's names", keys <= set(steps[1]), str(keys - set(steps[1])))
    check("the log line is Megatron's", "| lm loss: " in whole.stdout and "| consumed samples: " in whole.stdout, whole.stdout)

    again = run("af_train", WORK / "whole.yaml")
    check("a finished run is left alone", again.returncode == 0 and "nothing to do" in again.stdout, again.stdout + again.stderr)

    # Saved in the middle of each stage and gone on with: the same numbers and the same bytes as without the stop.
    for stop in (5, 10, 17):
        name = f"stopped{stop}"
        part = run("af_train", config(name + "_part", out=name + "_part", replace=[("save_interval: 5", f"save_interval: {stop}"), ("keep: 2", "keep: 0")]))
        check(f"a run that saves at {stop}", part.returncode == 0, part.stderr)
        folder = [p for p in (WORK / f"{name}_part" / "checkpoints").iterdir() if p.name.endswith(f"-{stop}")]
        check(f"a checkpoint at {stop}", len(folder) == 1)
        resumed = run("af_train", config(name, out=name + "_resumed"), "--resume", folder[0])
        check(f"resume from {stop}", resumed.returncode == 0, resumed.stderr)
        later = steps_of(WORK / f"{name}_resumed")
        same = all(later[i][k] == steps[i][k] for i in range(stop + 1, 19) for k in ("lm_loss", "grad_norm", "params_norm", "learning_rate", "consumed_tokens"))
        check(f"steps after {stop} are bit-equal", sorted(later) == list(range(stop + 1, 19)) and same)
        check(f"tensors after {stop} are bit-equal", tensors_of(WORK / f"{name}_resumed") == tensors_of(WORK / "whole"))

    one = run("af_train", config("stage_by_stage"), "--stage", "stage1")
    two = run("af_train", WORK / "stage_by_stage.yaml", "--stage", "stage2")
    check("stage by stage equals both at once", one.returncode == two.returncode == 0 and tensors_of(WORK / "stage_by_stage") == tensors_of(WORK / "whole"), one.stderr + two.stderr)
    refused("stage 2 without stage 1", run("af_train", config("early"), "--stage", "stage2"), "stage1", "stage2")

    threads = run("af_train", config("threads", replace=[("threads_per_rank: 2", "threads_per_rank: 1")]))
    check("one thread gives the bits of two", threads.returncode == 0 and tensors_of(WORK / "threads") == tensors_of(WORK / "whole"), threads.stderr)
    bf16 = run("af_train", config("bf16", replace=[("threads_per_rank: 2", "threads_per_rank: 2, precision: bf16")]))
    check("bf16 trains within 3 % of fp32", bf16.returncode == 0 and abs(steps_of(WORK / "bf16")[18]["lm_loss"] / steps[18]["lm_loss"] - 1) < 0.03, bf16.stderr)
    # What is saved is fp32 in both: neither way of going on loses a bit of it. (stage1 is made to end where it was saved.)
    for name, words in (("bf16", ["runtime.precision=bf16"]), ("whole", [])):
        kept = run("af_train", WORK / f"{name}.yaml", f"output_dir={name}_kept", "checkpoint.save_interval=4", "checkpoint.keep=0", *words)
        at4 = f"{name}_kept/checkpoints/stage1-4"
        other = "fp32" if words else "bf16"
        common = [WORK / f"{name}.yaml", f"runtime.precision={other}", "--resume", at4]
        end = run("af_train", *common, f"output_dir={name}_turned", "stages.0.train_iters=4", "--stage", "stage1")
        same = run("af_checkpoint", "diff", at4, f"{name}_turned")
        check(f"{name} in {other}: every bit of parameters and moments", kept.returncode == end.returncode == same.returncode == 0
              and "runtime.precision: " in end.stdout, end.stdout[-800:] + end.stderr + same.stdout)
        on = run("af_train", *common, f"output_dir={name}_on")
        losses, those = steps_of(WORK / f"{name}_on"), steps_of(WORK / f"{name}_kept")
        check(f"{name} goes on in {other}", on.returncode == 0 and all(abs(losses[i]["lm_loss"] / those[i]["lm_loss"] - 1) < 0.03 for i in range(5, 19)), on.stderr)
        check(f"{name} in {other} is another arithmetic", any(losses[i]["lm_loss"] != those[i]["lm_loss"] for i in range(5, 19)))
    refused("fp64 is apart", run("af_train", WORK / "whole.yaml", "output_dir=fp64", "runtime.precision=fp64", "--resume", "whole_kept/checkpoints/stage1-4"), "fp64", "float32")
    # A mutant: another seed must not pass for the same run.
    other = run("af_train", config("seed", replace=[("seed: 7", "seed: 8")]))
    check("the comparison notices another seed", other.returncode == 0 and tensors_of(WORK / "seed") != tensors_of(WORK / "whole"))

    # The tokenizer of the run goes along. (Its name is all that the export looks at: the run's own copy of the configuration names it.)
    shutil.copytree(WORK / "whole" / "checkpoints" / "latest", WORK / "with_tokenizer")
    (WORK / "vocabulary").mkdir()
    (WORK / "vocabulary" / "tokenizer.json").write_text("{}")
    (WORK / "vocabulary" / "notes.txt").write_text("not the tokenizer's")
    with open(WORK / "with_tokenizer" / "run.yaml", "a") as f:
        f.write("tokenizer: {path: vocabulary}\n")
    exported = run("af_checkpoint", "export-hf", "with_tokenizer", "hf_with_tokenizer")
    names = {p.name for p in (WORK / "hf_with_tokenizer").glob("*")}
    check("export-hf copies the run's tokenizer", exported.returncode == 0 and names == {"config.json", "model.safetensors", "tokenizer.json"}, f"{names} {exported.stderr}")

    exported = run("af_checkpoint", "export-hf", "whole/checkpoints/latest", "hf")
    check("export-hf", exported.returncode == 0, exported.stderr)
    theta = json.loads((WORK / "hf" / "config.json").read_text())
    check("config.json has the trained RoPE", 40000 in (theta.get("rope_theta"), theta.get("rope_parameters", {}).get("rope_theta")), str(theta))
    started = run("af_train", config("from_hf", replace=[("stages:", "init: {hf_checkpoint: hf}\nstages:")]))
    check("init.hf_checkpoint starts from the exported weights", started.returncode == 0 and steps_of(WORK / "from_hf")[1]["lm_loss"] < steps[1]["lm_loss"] - 0.3, started.stderr)


def test_checkpoint_tools():
    """Damage is named, passed over by --resume auto, and never loaded; verify, diff, average, import, gc."""
    checkpoints = WORK / "damaged" / "checkpoints"
    whole = run("af_train", config("damaged"))
    newest = sorted(checkpoints.glob("stage2-*"), key=lambda p: int(p.name.split("-")[1]))[-1]
    verified = run("af_checkpoint", "verify", checkpoints)
    check("verify: a whole checkpoint", whole.returncode == verified.returncode == 0, verified.stderr)
    shutil.copytree(newest, WORK / "intact")
    with open(newest / "shard-00000.h5", "r+b") as shard:
        shard.seek(-5000, 2)
        byte = shard.read(1)
        shard.seek(-5000, 2)
        shard.write(bytes([byte[0] ^ 1]))
    verified = run("af_checkpoint", "verify", newest)
    check("verify: one bit names file and tensor", verified.returncode == 1 and "shard-00000.h5" in verified.stderr and "model." in verified.stderr, verified.stderr)
    check("a damaged checkpoint is not loaded", run("af_train", WORK / "damaged.yaml", "--resume", newest).returncode != 0)
    again = run("af_train", WORK / "damaged.yaml")
    check("--resume auto passes over it and says so", again.returncode == 0 and f"skipped the checkpoint damaged/checkpoints/{newest.name}" in again.stdout, again.stdout)
    check("... and comes to the same checkpoint", run("af_checkpoint", "diff", "intact", newest).returncode == 0)
    other = run("af_checkpoint", "diff", "intact", "seed/checkpoints/latest")
    check("diff: another seed", other.returncode == 1 and "lm_head.weight" in other.stdout, other.stdout)
    mean = run("af_checkpoint", "average", "intact", "intact", "mean")
    check("average: of a checkpoint with itself", mean.returncode == 0 and run("af_checkpoint", "diff", "intact", "mean").returncode == 0, mean.stderr)
    started = run("af_train", config("from_mean", replace=[("stages:", "init: {checkpoint: mean}\nstages:")]))
    check("training begins from an average", started.returncode == 0, started.stderr)
    exported = run("af_checkpoint", "export-hf", "mean", "hf_mean", "--dtype", "float32")
    imported = run("af_checkpoint", "import-hf", "hf_mean", "imported")
    check("import-hf: the weights again", exported.returncode == imported.returncode == run("af_checkpoint", "diff", "imported", "intact").returncode == 0, imported.stderr)
    (checkpoints / "stage2-99.tmp").mkdir()
    removed = run("af_checkpoint", "gc", checkpoints, "--keep", "1")
    left = sorted(p.name for p in checkpoints.iterdir() if "-" in p.name)
    (WORK / "not_ours" / "notes.tmp").mkdir(parents=True)
    refused("gc: of another folder", run("af_checkpoint", "gc", "not_ours"), "not_ours", "no folder of checkpoints")
    refused("gc: a negative number", run("af_checkpoint", "gc", checkpoints, "--keep", "-1"), "--keep -1")
    check("gc: what is not its own stays", (WORK / "not_ours" / "notes.tmp").exists())
    for words in (("average", "intact", "intact", "/proc/none"), ("export-hf", "intact", "/proc/none"), ("import-hf", "hf_mean", "/proc/none")):
        refused(f"{words[0]}: to where nothing can be", run("af_checkpoint", *words), "/proc/none", "cannot be created")
    narrow = run("af_train", config("narrow", replace=[("hidden_size: 32", "hidden_size: 16"), ("train_iters: 12", "train_iters: 3")]), "--stage", "stage1")
    check("another model", narrow.returncode == 0, narrow.stderr)
    refused("average: of other models", run("af_checkpoint", "average", "intact", "narrow", "mean2"), "of another shape", "model.embed_tokens.weight")
    deep = run("af_train", config("deep", replace=[("num_hidden_layers: 2", "num_hidden_layers: 3"), ("train_iters: 12", "train_iters: 3")]), "--stage", "stage1")
    check("another model, with a layer more", deep.returncode == 0, deep.stderr)
    for first, second in (("deep", "intact"), ("intact", "deep")):
        refused(f"average: of {first} and {second}", run("af_checkpoint", "average", first, second, "mean2"), "model.layers.2.", "intact" if first == "intact" else "deep")
    check("and nothing of it stays", not list(WORK.glob("mean2*")))
    for size, files in (("60KB", 2), ("0.06 mb", 2), ("58.6KiB", 2), ("60000", 2), ("1tb", 1)):
        exported = run("af_checkpoint", "export-hf", "intact", f"hf {size}", "--max-shard-size", size)
        check(f"export-hf: --max-shard-size {size}", exported.returncode == 0 and len(list((WORK / f"hf {size}").glob("*.safetensors"))) == files,
              f"{exported.stderr} {len(list((WORK / f'hf {size}').glob('*.safetensors')))}")
    for size in ("0", "-1GB", "GB", "5XB", "1.5.5GB", "1e3MB", "0.1", ""):
        refused(f"export-hf: --max-shard-size '{size}'", run("af_checkpoint", "export-hf", "intact", "hf_no_size", f"--max-shard-size={size}"), "5GB")
    refused("resuming from another model", run("af_train", WORK / "damaged.yaml", "--resume", "narrow"), "belongs to another model")
    refused("diff: with what is none", run("af_checkpoint", "diff", "intact", "hf_mean"), "hf_mean", "manifest.json")
    check("gc: leftovers and old ones go, stage ends stay", removed.returncode == 0 and len(left) == 3 and newest.name in left, f"{left} {removed.stdout}")


def test_packing_and_replay():
    """best_fit in stage 2: masked tokens are reported, a resumed run is bit-equal, and any step's documents can be named."""
    packed = [("rope_theta: 40000", "rope_theta: 40000\n    packing: best_fit"), ("seq_length: 128", "seq_length: 300")]
    whole = run("af_train", config("packed", replace=packed))
    check("a stage with best_fit trains", whole.returncode == 0, whole.stderr)
    steps = steps_of(WORK / "packed")
    part = run("af_train", config("packed_part", replace=packed + [("save_interval: 5", "save_interval: 8"), ("keep: 2", "keep: 0")]))
    resumed = run("af_train", config("packed_resumed", replace=packed), "--resume", "packed_part/checkpoints/stage2-16")
    check("and resumes bit-equally", part.returncode == resumed.returncode == 0 and tensors_of(WORK / "packed_resumed") == tensors_of(WORK / "packed"), resumed.stderr)
    check("sequential stages mask nothing", not any("packing_utilization" in steps[i] for i in range(1, 13)))

    texts = [json.loads(line)["text"] for name in "ab" for line in open(WORK / f"{name}.jsonl")]
    masked = 0
    for step in (1, 7, 12, *range(13, 19)):
        result = run("af_data", "replay", "--step", step, "--text", "packed")
        lines = [json.loads(line) for line in result.stdout.splitlines()]
        check(f"replay of step {step}", result.returncode == 0 and len(lines) == 1 + lines[0]["sequences"] == 1 + steps[step]["global_batch_size"], result.stderr)
        for line in lines[1:]:
            tokens = sum(d["end"] - d["begin"] for d in line["documents"])
            check(f"sequence {line['sequence']} is full", tokens + line["masked_tokens"] == lines[0]["seq_length"], str(line))
            for d in line["documents"]:
                text = (texts[d["document"] + 120 * (line["source"] == "b")].encode() + b"\0")[d["begin"] : d["end"]]
                check("its text is the document's", d["text"].replace("<|endoftext|>", "\0").encode() == text, str(d))
            if step > 12:
                check("documents that fit are whole", all(d["text"].endswith("<|endoftext|>") or d["begin"] > 0 for d in line["documents"]), str(line))
        if step > 12:
            share = 1 - sum(line["masked_tokens"] for line in lines[1:]) / 600
            masked += sum(line["masked_tokens"] for line in lines[1:])
            check("packing_utilization", abs(steps[step]["packing_utilization"] - share) < 1e-12, f"{steps[step]} {share}")
    end = json_lines(WORK / "packed" / "metrics.jsonl")[-1]
    check("the stage's utilization", end["event"] == "stage_end" and abs(end["packing_utilization"] - (1 - masked / 3600)) < 1e-12 and 0 < masked < 360, str(end))
    refused("a step that the run has not", run("af_data", "replay", "--step", "19", "packed"), "step 19", "stage2", "18")


SFT = """  - name: sft
    seq_length: 128
    train_iters: 6
    micro_batch_size: 1
    global_batch_size: 2
    {roles}
    lr: {{lr: 1e-3, min_lr: 1e-4, lr_decay_style: linear}}
    data: [{{path: {data}}}]
validation:"""


def test_sft():
    """A third stage whose loss is on the assistant's words alone: the roles at reading time are the same as a mask in the file."""
    with open(WORK / "segments.jsonl", "w") as f:
        for i in range(150):
            words = ["alpha", "beta", "gamma", "delta"][i % 4]
            parts = [("user", f"question {i}?\n"), ("thought", f"<think>{words}</think>\n"), ("action", "<tool_call>\n{}\n</tool_call>\n"),
                     ("observation", f"found {words} {i}\n"), ("decision", f"I will choose option {i % 3}\n"), ("answer", f"<answer>{words}</answer>")]
            f.write(json.dumps({"segments": [{"role": role, "text": text} for role, text in parts]}) + "\n")
    for name, more in (("roles", []), ("mask", ["--loss-on", "assistant"])):
        result = run("af_data", "tokenize", "--tokenizer", "bytes", "--input", "segments.jsonl", "--output", f"{name}.h5", *more)
        check(f"segments become {name}.h5", result.returncode == 0, result.stderr)
    key = "loss_roles: [thought, action, answer]"
    three = lambda name, roles, data: config(name, replace=[("validation:", SFT.format(roles=roles, data=data)), ("{path: b.h5, name: heldout}", "{path: roles.h5, name: heldout}")])
    runs = {"sft_roles": three("sft_roles", key, "roles.h5"), "sft_mask": three("sft_mask", "packing: sequential", "mask.h5"),
            "sft_all": three("sft_all", "packing: sequential", "roles.h5")}
    losses = {}
    for name, path in runs.items():
        # both files are one source, so that the order of their documents is the same
        result = run("af_train", path, "stages.2.data.0.name=sft")
        check(f"three stages train ({name})", result.returncode == 0, result.stderr + result.stdout[-500:])
        steps = steps_of(WORK / name)
        check("every iteration of three stages is reported", sorted(steps) == list(range(1, 25)))
        losses[name] = [(steps[i]["lm_loss"], steps[i]["grad_norm"], steps[i]["params_norm"]) for i in range(1, 25)]
    check("roles and a mask give the same losses, gradients and weights", losses["sft_roles"] == losses["sft_mask"])
    check("only from these targets", losses["sft_roles"][:18] == losses["sft_all"][:18] and losses["sft_roles"][18] != losses["sft_all"][18])
    roles = {part for event in events_of(WORK / "sft_roles", "validation") for part in event["by_role"]}
    check("validation stays on all roles", {"user", "thought", "action", "observation", "decision", "answer"} <= roles, str(roles))
    check("the plan says so", "targets        of the roles thought,action,answer alone" in run("af_train", runs["sft_roles"], "--dry-run").stdout)
    check("--print-config prints it", "loss_roles: [thought, action, answer]" in run("af_train", runs["sft_roles"], "--print-config").stdout)
    refused("a source without roles", run("af_train", three("sft_none", key, "a.h5"), "output_dir=sft_none"), "a.h5: has no roles", "stage sft", "sft_none.yaml:")
    refused("no role", run("af_train", three("sft_empty", "loss_roles: []", "roles.h5")), "loss_roles: names no role")
    refused("a role that is none", run("af_train", three("sft_wrong", "loss_roles: [assistant]", "roles.h5")), "loss_roles.0", "one of other, system")


def test_contamination():
    """Questions planted in a corpus are found and left out, by line; nothing else is."""
    question = "On 16 August 1986, the opening match of a team that won ten titles took place in Berlin. How many saw it?"
    other = "Which package of the section games depends on a library whose maintainer also maintains the oldest editor of all?"
    (WORK / "bench.jsonl").write_text("".join(json.dumps(line) + "\n" for line in ({"question": question, "answer": "12,000"}, {"question": "Too short?"}, {"question": other})))
    words = [f"w{i * i % 97}" for i in range(3000)]
    lines = [json.dumps({"text": " ".join(words[i : i + 60])}) for i in range(2500)]
    lines[7] = json.dumps({"text": "x " + question.upper().replace(",", " ;") + " y"})
    lines[1234] = json.dumps({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": " ".join(other.split()[3:17])}]})
    lines[1300] = json.dumps({"segments": [{"role": "user", "text": question[:50]}, {"role": "thought", "text": question[50:]}]})
    lines[2000] = json.dumps({"text": question.replace("team", "squad").replace("took", "was taking")})  # 10 words in a row at most
    lines[2100] = "{broken"
    (WORK / "corpus.jsonl").write_text("\n".join(lines) + "\n")
    common = ["af_data", "contamination", "--input", "corpus.jsonl", "--benchmark", "bench.jsonl"]
    result = run(*common, "--remove", "--output", "clean.jsonl", "--report", "found.jsonl")
    check("contamination is found", result.returncode == 0 and "3 of 2499 documents repeat 2 of 3 questions (1 are too short" in result.stdout, result.stdout + result.stderr)
    check("a broken line is named", "corpus.jsonl:2101:" in result.stderr, result.stderr)
    report = json_lines(WORK / "found.jsonl")
    check("by line and question", [(r["document"], r["question"], r["shared_ngrams"], r["question_ngrams"]) for r in report]
          == [("corpus.jsonl:8", "bench.jsonl:1", 10, 10), ("corpus.jsonl:1235", "bench.jsonl:3", 2, 7), ("corpus.jsonl:1301", "bench.jsonl:1", 10, 10)], str(report))
    kept = [line for i, line in enumerate(lines) if i not in (7, 1234, 1300, 2100)]
    check("the rest is kept to the byte", (WORK / "clean.jsonl").read_text().splitlines() == kept)
    one = run(*common, "--threads", "1", "--report", "one.jsonl")
    check("threads do not matter", one.returncode == 0 and (WORK / "one.jsonl").read_bytes() == (WORK / "found.jsonl").read_bytes())
    check("clean is clean", "0 of 2496 documents" in run("af_data", "contamination", "--input", "clean.jsonl", "--benchmark", "bench.jsonl").stdout)
    (WORK / "long.jsonl").write_text(json.dumps({"text": "x" * 2000 + " " + question}) + "\n")
    found = [run("af_data", "contamination", "--input", "long.jsonl", "--benchmark", "bench.jsonl", "--max-line-bytes", str(n)) for n in (1024, 4096)]
    check("a line that is too long is told, with the option that allows it", "1 of 1 documents" in found[1].stdout and "0 of 0 documents" in found[0].stdout
          and "long.jsonl:1" in found[0].stderr and "1024 of --max-line-bytes" in found[0].stderr, found[0].stdout + found[0].stderr)
    looser = run(*common, "--ngram", "9")
    check("shorter n-grams find more", "4 of 2499 documents" in looser.stdout, looser.stdout)
    refused("no question", run(*common[:4], "--benchmark", "corpus.jsonl"), "corpus.jsonl:1235", "has no 'text'", "--benchmark-key")
    refused("remove to nowhere", run(*common, "--remove"), "--remove and --output")
    refused("onto itself", run(*common, "--remove", "--output", "corpus.jsonl"), "corpus.jsonl: is the input itself")
    refused("a report onto the benchmark", run(*common, "--report", "bench.jsonl"), "bench.jsonl: is the input itself")
    refused("tokens onto the text", run("af_data", "tokenize", "--tokenizer", "bytes", "--input", "bench.jsonl", "--output", "bench.jsonl"), "is the input itself")
    os.mkfifo(WORK / "pipe")  # stands for /dev/null, which a file renamed to it would replace
    refused("onto a device", run(*common, "--report", "pipe"), "pipe: is no ordinary file")
    check("nothing was touched", (WORK / "pipe").is_fifo() and (WORK / "corpus.jsonl").read_text() == "\n".join(lines) + "\n" and not list(WORK.glob("*.tmp")))


def test_bad_input():
    good = (WORK / "a.h5").read_bytes()
    refused("no such file", run("af_train", "none.yaml"), "none.yaml")
    (WORK / "broken.yaml").write_text("model: {preset: tiny_moe\nstages: [")
    refused("broken YAML", run("af_train", "broken.yaml"), "broken.yaml:")
    refused("several errors at once", run("af_train", config("several", replace=[("seq_length: 64", "seq_lenght: 64"), ("lr: 3e-3", "lr: fast")])),
            "seq_lenght", "seq_length", "fast", "several.yaml:")
    refused("an override that is wrong", run("af_train", config("override"), "stages.0.lr.lr=no"), "command line", "stages.0.lr.lr")
    refused("unknown option", run("af_train", config("option"), "--dryrun"), "--dry-run")
    (WORK / "truncated.h5").write_bytes(good[: len(good) // 2])
    refused("truncated HDF5", run("af_train", config("truncated_run", a="truncated.h5")), "truncated.h5")
    (WORK / "garbage.h5").write_bytes(b"not HDF5" * 1000)
    refused("garbage for HDF5", run("af_train", config("garbage_run", a="garbage.h5")), "garbage.h5")
    refused("af_data verify of a truncated file", run("af_data", "verify", "truncated.h5"), "truncated.h5")
    refused("a missing dataset", run("af_train", config("missing_run", a="nowhere.h5")), "nowhere.h5")
    refused("wrong vocabulary", run("af_train", config("vocabulary", replace=[("vocab_size: 288", "vocab_size: 280")])), "a.h5", "280", "288")
    (WORK / "empty.jsonl").write_text("")
    empty = run("af_data", "tokenize", "--tokenizer", "bytes", "--input", "empty.jsonl", "--output", "empty.h5")
    if empty.returncode == 0:
        empty = run("af_train", config("empty_run", a="empty.h5"))
    refused("empty dataset", empty, "no document")
    refused("sequence longer than the data", run("af_train", config("long", replace=[("seq_length: 64", "seq_length: 1000000")])), "a.h5", "1000000")
    refused("a batch that does not divide", run("af_train", config("divide", replace=[("global_batch_size: 4", "global_batch_size: 3")])), "global_batch_size")
    refused("tensor parallelism in one process", run("af_train", config("tp"), "parallel.tensor_model_parallel_size=4"), "tensor_model_parallel_size 4")

    def corrupt(name, change):
        folder = WORK / name
        shutil.copytree(WORK / "hf", folder)
        file = next(folder.glob("*.safetensors"))
        data = bytearray(file.read_bytes())
        size = struct.unpack("<Q", data[:8])[0]
        header = json.loads(data[8 : 8 + size])
        change(data, 8 + size, header)
        file.write_bytes(data)
        return run("af_train", config(name + "_run", replace=[("stages:", f"init: {{hf_checkpoint: {name}}}\nstages:")]))

    def poison(data, start, header):
        at = start + header["model.norm.weight"]["data_offsets"][0]
        width = {"F32": 4, "BF16": 2}[header["model.norm.weight"]["dtype"]]
        data[at : at + width] = b"\xff" * width

    refused("NaN in a safetensors file", corrupt("nan", poison), "model.norm.weight")
    refused("truncated safetensors", corrupt("cut", lambda data, start, header: data.__delitem__(slice(len(data) - 100, len(data)))), ".safetensors")
    (WORK / "bad.jsonl").write_text('{"text": "good"}\n{"text": broken\n{"text": "good again"}\n')
    lenient = run("af_data", "tokenize", "--tokenizer", "bytes", "--input", "bad.jsonl", "--output", "bad.h5")
    check("a broken line is named, skipped and counted", lenient.returncode == 0 and "bad.jsonl:2" in lenient.stderr + lenient.stdout, lenient.stderr + lenient.stdout)
    refused("--strict", run("af_data", "tokenize", "--tokenizer", "bytes", "--strict", "--input", "bad.jsonl", "--output", "bad2.h5"), "bad.jsonl:2")
    for leftover in WORK.glob("*.tmp"):
        check("nothing half-written stays", False, str(leftover))


def test_plans_of_layouts():
    path = config("plan")
    layout = ["parallel.pipeline_model_parallel_size=2", "pipeline.schedule=zero_bubble"]
    planned = run("af_train", path, "--dry-run", "--draw-schedule", "schedule.svg", *layout)
    check("--dry-run plans for the fewest processes", planned.returncode == 0 and "on the fullest of 2 ranks" in planned.stdout, planned.stdout + planned.stderr)
    check("--draw-schedule draws", (WORK / "schedule.svg").read_text().startswith("<svg"))
    refused("a layout that is none", run("af_train", path, "--dry-run", "--ranks", "3", *layout), "does not divide the 3 processes", "or 2 or 4 processes")
    refused("nothing to draw", run("af_train", path, "--dry-run", "--draw-schedule", "none.svg"), "pipeline_model_parallel_size is 1")
    refused("--ranks without --dry-run", run("af_train", path, "--ranks", "2"), "--ranks belongs to --dry-run")


def test_speed_of_starting():
    path = config("start")
    times = []
    for _ in range(5):
        begin = time.monotonic()
        result = run("af_train", path, "--dry-run")
        times.append(time.monotonic() - begin)
        assert result.returncode == 0, result.stderr
    check("--dry-run below 0.2 s", min(times) < 0.2, str(times))
    shown = run("af_train", path, "--print-config")
    (WORK / "shown.yaml").write_text(shown.stdout)
    check("--print-config parses back to itself", run("af_train", "shown.yaml", "--print-config").stdout == shown.stdout and "lr_decay_style: cosine" in shown.stdout)


def test_long_context():
    long_context.run(BIN, WORK, check, 16384)


def test_what_a_run_keeps():
    """After test_training_and_resume: the tokenizer, the datasets, TensorBoard's files."""
    begin = events_of(WORK / "whole", "run_begin")[0]
    state = state_of(WORK / "whole")
    check("the datasets are kept with the run", begin["datasets"] == state["datasets"] and [d["name"] for d in begin["datasets"]] == ["a", "b"]
          and all(d["documents"] == 120 and d["tokens"] > 1000 and d["vocab_size"] <= 288 for d in begin["datasets"]), str(begin))
    check("and the tokenizer's hash", len(begin["tokenizer_sha256"]) == 64 and begin["tokenizer_sha256"] == state["tokenizer_sha256"])
    for name in ("a", "b"):
        (WORK / "others").mkdir(exist_ok=True)
        data = (WORK / f"{name}.h5").read_bytes()
        (WORK / "others" / f"{name}.h5").write_bytes(data.replace(begin["tokenizer_sha256"].encode(), b"0" * 64))
    refused("resuming with another tokenizer", run("af_train", config("other_tokenizer", a="others/a.h5", b="others/b.h5"), "--resume", "whole/checkpoints/latest"),
            "tokenizer", "others/a.h5")
    refused("two tokenizers in one run", run("af_train", config("two_tokenizers", b="others/b.h5")), "others/b.h5", "tokenizer")

    files = sorted((WORK / "whole" / "tensorboard").iterdir())  # the run, and the one that found nothing to do
    check("TensorBoard has a file of each start", len(files) == 2 and all(f.name.startswith("events.out.tfevents.") for f in files), str(files))
    text = files[0].read_bytes()
    check("with Megatron's tags", all(tag in text for tag in (b"lm loss", b"lm loss vs samples", b"learning-rate", b"grad-norm", b"lm loss validation/heldout/64-128")))
    off = run("af_train", config("no_tensorboard", replace=[("runtime:", "logging: {tensorboard: false}\nruntime:"), ("train_iters: 12", "train_iters: 3")]))
    check("which can be turned off", off.returncode == 0 and not (WORK / "no_tensorboard" / "tensorboard").exists(), off.stderr)

    for event in events_of(WORK / "whole", "validation"):
        parts = event["by_position"]
        mean = sum(p["lm_loss"] * p["targets"] for p in parts) / event["targets"]
        check("positions add up to the whole", sum(p["targets"] for p in parts) == event["targets"] and abs(mean - event["lm_loss"]) < 1e-9, str(event))
    check("positions go on to the sequence's end", [p["end"] for p in events_of(WORK / "whole", "validation")[-1]["by_position"]] == [64, 128])


def test_real_trajectories():
    source, ranks = REAL_DATA / "trajectories.jsonl", REAL_DATA / "qwen.tiktoken"
    if not source.exists():
        return check.skip("real trajectories (set AF_TEST_DATA to a folder with trajectories.jsonl)")
    train_on_trajectories("bytes", source, "bytes", 288, iterations=(60, 20), eval_iters=20, worst=5)
    if ranks.exists():
        train_on_trajectories("qwen", source, ranks, 151936, iterations=(16, 8), eval_iters=5, worst=11.5)
    else:
        check.skip("the real vocabulary on them (no qwen.tiktoken beside trajectories.jsonl)")


def train_on_trajectories(name, source, tokenizer, vocab_size, iterations, eval_iters, worst):
    """A small MoE through both stages, validated as far as the first observations; `worst`: what every role's loss must be below at each stage's end."""
    data = f"trajectories_{name}.h5"
    result = run("af_data", "tokenize", "--tokenizer", tokenizer, "--input", source, "--output", data)
    check(f"{name}: real trajectories are tokenized", result.returncode == 0 and "120 documents" in result.stdout + result.stderr, result.stdout + result.stderr)
    inspected = run("af_data", "inspect", data)
    check(f"{name}: roles are recorded", all(role in inspected.stdout for role in ("thought", "action", "observation", "answer")), inspected.stdout)
    path = config(f"real_{name}", a=data, b=data, replace=[
        (f"data: [{{path: {data}, weight: 0.7}}, {{path: {data}, weight: 0.3}}]", f"data: [{{path: {data}}}]"),
        (f"data: [{{path: {data}, weight: 0.5}}, {{path: {data}, weight: 0.5}}]", f"data: [{{path: {data}}}]"), ("vocab_size: 288", f"vocab_size: {vocab_size}"),
        ("train_iters: 6", f"train_iters: {iterations[1]}"), ("train_iters: 12", f"train_iters: {iterations[0]}"), ("seq_length: 64", "seq_length: 256"),
        ("seq_length: 128", "seq_length: 512"), ("save_interval: 5", "save_interval: 0"), ("eval_interval: 6, eval_iters: 2", f"eval_interval: 0, eval_iters: {eval_iters}")])
    result = run("af_train", path)
    check(f"{name}: a small MoE trains on them through both stages", result.returncode == 0, result.stderr)
    steps = steps_of(WORK / f"real_{name}")
    end = sum(iterations)
    first, middle, last = steps[1]["lm_loss"], steps[iterations[0]]["lm_loss"], sum(steps[i]["lm_loss"] for i in range(end - 4, end + 1)) / 5
    for stage in ("stage1", "stage2"):
        event = [e for e in events_of(WORK / f"real_{name}", "validation") if e["stage"] == stage][-1]
        roles = event["by_role"]
        shown = ("observation", "thought", "action")
        check(f"{name}, {stage}: losses of observation, thought and action",
              all(roles.get(role, {}).get("targets", 0) > 50 and 0 < roles[role]["lm_loss"] < worst for role in shown), str(event))
        check(f"{name}, {stage}: roles add up to the whole", sum(r["targets"] for r in roles.values()) == event["targets"]
              and abs(sum(r["lm_loss"] * r["targets"] for r in roles.values()) / event["targets"] - event["lm_loss"]) < 1e-9, str(event))
        check(f"{name}, {stage}: the log shows them", all(f" {role}: {roles[role]['lm_loss']:.4f} |" in result.stdout for role in shown))
    check(f"{name}: and its loss falls", first > 5 and middle < first - (2 if iterations[0] > 30 else 0.3) and last < middle, f"{first} {middle} {last}")


def main():
    try:
        tokenize_words(BIN, WORK)
        test_training_and_resume()
        test_what_a_run_keeps()
        test_checkpoint_tools()
        test_packing_and_replay()
        test_sft()
        test_contamination()
        test_bad_input()
        test_plans_of_layouts()
        test_speed_of_starting()
        test_long_context()
        stops.run(BIN, WORK, check, config)
        folders.run(BIN, WORK, check, config)
        loss_spikes.run(BIN, WORK, check)
        hand_over.run(BIN, WORK, check)
        test_real_trajectories()
    finally:
        shutil.rmtree(WORK, ignore_errors=True)
    return check.close()


if __name__ == "__main__":
    sys.exit(main())
