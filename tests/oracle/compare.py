"""Runs oracle_probe on what make_models.py made and compares with PyTorch + transformers (bounds of the design, section 7).

    compare.py MODELS_DIR BUILD_DIR OUT_DIR

Every configuration: loss, gradients and parameters after ten AdamW steps in fp32; loss and gradients in fp64; a folder imported and exported is
the same byte for byte; an exported model loads in transformers and gives our logits. Then the mutants: with a perturbed input
(target, norm's epsilon, top-k renormalisation, document mask, optimizer) the same comparison must fail.
"""

import argparse
import hashlib
import json
import pathlib
import shutil
import sys

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from common import Checks, must  # noqa: E402
from make_models import logits_of  # noqa: E402

LOSS_BOUND = 1e-5  # relative
GRADIENT_BOUND = 1e-4  # |g - g_HF| <= bound |g_HF|, each parameter
PARAMETER_BOUND = 1e-4  # of the parameter's norm, after ten steps
LOGITS_BOUND = 1e-5
FP64_LOSS_BOUND, FP64_GRADIENT_BOUND = 1e-7, 5e-6  # cos and sin are fp32 in transformers even then


def relative(ours, theirs):
    assert ours.shape == theirs.shape
    ours, theirs = ours.double(), theirs.double()
    return ((ours - theirs).norm() / theirs.norm()).item() if theirs.norm() > 0 else (0.0 if ours.norm() == 0 else float("inf"))


def compare_tensors(ours, theirs, prefix, bound, their_prefix=None):
    """The worst of the tensors that begin with prefix, if it is beyond the bound; their names must be the same."""
    their_prefix = their_prefix or prefix
    names = {k.removeprefix(their_prefix) for k in theirs if k.startswith(their_prefix)}
    if names != {k.removeprefix(prefix) for k in ours if k.startswith(prefix)}:
        return f"other tensors {prefix}*"
    worst, name = max((relative(ours[prefix + n], theirs[their_prefix + n]), n) for n in names)
    return "" if worst <= bound else f"{prefix}{name} is off by {worst:.2e}, allowed {bound:.0e}"


def compare_loss(ours, theirs, bound):
    worst = ((ours - theirs).abs() / theirs.abs()).max().item()
    return "" if worst <= bound else f"loss is off by {worst:.2e}, allowed {bound:.0e}"


def run(probe, hf, batch, out, *export):
    shutil.rmtree(out, ignore_errors=True)
    must(probe, hf, batch, out, *export)
    return load_file(out / "fp32.safetensors"), load_file(out / "fp64.safetensors")


def complaints(fp32, fp64, reference):
    """What the design's bounds say, by kind of check."""
    return {
        "loss": compare_loss(fp32["loss"], reference["loss"], LOSS_BOUND),
        "gradients": compare_tensors(fp32, reference, "grad.", GRADIENT_BOUND),
        "parameters after ten steps": compare_tensors(fp32, reference, "param.", PARAMETER_BOUND),
        "loss in fp64": compare_loss(fp64["loss"], reference["loss64"], FP64_LOSS_BOUND),
        "gradients in fp64": compare_tensors(fp64, reference, "grad.", FP64_GRADIENT_BOUND, "grad64."),
    }


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def differences(a, b):
    """Of two folders: tensors, index and generation settings byte for byte; config.json by value."""
    names = {p.name for p in a.iterdir()}
    if names != {p.name for p in b.iterdir()}:
        return sorted(names ^ {p.name for p in b.iterdir()})
    different = [n for n in sorted(names - {"config.json"}) if digest(a / n) != digest(b / n)]
    if different:
        return different
    one, two = (json.loads((p / "config.json").read_text()) for p in (a, b))
    one["torch_dtype"] = one.pop("dtype")  # the word before and since transformers 4.56
    return [f"config.json: {k}" for k in one if k not in ("transformers_version", "layer_types", "max_window_layers") and one[k] != two.get(k)]


def load(folder):
    """Strictly: every tensor of the file is one of the model and the other way round."""
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", attn_implementation="eager", output_loading_info=True)
    wrong = {k: v for k, v in info.items() if v}
    assert not wrong, f"{folder}: {wrong}"
    return model


def check_config(check, name, models, build, out):
    folder, probe = models / name, build / "tests" / "oracle_probe"
    batch = json.loads((folder / "batch.json").read_text())
    reference = load_file(folder / "reference.safetensors")
    fp32, fp64 = run(probe, folder / "hf", folder / "batch.json", out / name, "export")
    for kind, complaint in complaints(fp32, fp64, reference).items():
        check(f"{name}: {kind}", not complaint, complaint)

    check.none(f"{name}: import and export", differences(folder / "hf", out / name / "again"))
    again = load(out / name / "again")
    original = json.loads((folder / "hf" / "config.json").read_text())
    check(f"{name}: type after export", str(again.dtype) == "torch." + original["dtype"], again.dtype)
    logits = logits_of(again.float(), batch["steps"][0])
    check(f"{name}: logits of the export", relative(logits, reference["logits_before"]) <= LOGITS_BOUND)
    trained = logits_of(load(out / name / "trained"), batch["steps"][0])
    worst = max(relative(fp32["logits_after"], trained), relative(fp32["logits_before"], reference["logits_before"]))
    check(f"{name}: our logits, those of the trained export in transformers", worst <= LOGITS_BOUND, f"off by {worst:.2e}")


def check_programs(check, name, models, build, out):
    """HF -> native checkpoint -> HF by the programs."""
    program, folder = build / "bin" / "af_checkpoint", models / name / "hf"
    shutil.rmtree(out / name / "native", ignore_errors=True)
    shutil.rmtree(out / name / "back", ignore_errors=True)
    must(program, "import-hf", folder, out / name / "native")
    size = "60KB" if (folder / "model.safetensors.index.json").exists() else "5GB"
    must(program, "export-hf", out / name / "native" / "latest", out / name / "back", "--max-shard-size", size)
    check.none(f"{name}: af_checkpoint import-hf, export-hf", differences(folder, out / name / "back"))


def mutants(config, batch):
    """What is moved, which comparison must notice it, and the perturbed (config, batch). Nothing of the program under test is switched: it is
    told something else."""
    gradients, parameters = "gradients", "parameters after ten steps"

    def steps(**changes):
        return {**batch, "steps": [{**s, **{k: change(s) for k, change in changes.items()}} for s in batch["steps"]]}

    def optimizer(**changes):
        return {**batch, "optimizer": {**batch["optimizer"], **changes}}

    yield "a target shifted", gradients, config, steps(targets=lambda s: s["targets"][1:] + [-1])
    yield "a norm's epsilon moved", gradients, {**config, "rms_norm_eps": 10 * config["rms_norm_eps"]}, batch
    if "norm_topk_prob" in config:
        yield "top-k renormalisation turned", gradients, {**config, "norm_topk_prob": not config["norm_topk_prob"]}, batch
    yield "document mask ignored", gradients, config, steps(documents=lambda s: [[0, len(s["tokens"])]])
    yield "another rope_theta", gradients, {**config, "rope_theta": 1.01 * config["rope_theta"]}, batch
    yield "other moments", parameters, config, optimizer(beta2=0.98)
    yield "other weight decay", parameters, config, optimizer(weight_decay=0.2)
    yield "no clipping", parameters, config, optimizer(clip_grad=0.0)


def check_mutants(check, name, models, build, out):
    folder = models / name
    config, batch = (json.loads(p.read_text()) for p in (folder / "hf" / "config.json", folder / "batch.json"))
    reference = load_file(folder / "reference.safetensors")
    mutant = out / name / "mutant"
    for what, kind, other_config, other_batch in mutants(config, batch):
        shutil.rmtree(mutant, ignore_errors=True)
        shutil.copytree(folder / "hf", mutant / "hf")
        (mutant / "hf" / "config.json").write_text(json.dumps(other_config))
        (mutant / "batch.json").write_text(json.dumps(other_batch))
        fp32, fp64 = run(build / "tests" / "oracle_probe", mutant / "hf", mutant / "batch.json", mutant / "out")
        caught = complaints(fp32, fp64, reference)[kind]
        check(f"{name}: the mutant '{what}' must be caught by its {kind}", caught)


def main():
    parser = argparse.ArgumentParser()
    for name in ("models", "build", "out"):
        parser.add_argument(name, type=pathlib.Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    check = Checks()
    for folder in sorted(p for p in arguments.models.iterdir() if p.is_dir()):
        for part in (check_config, check_programs, check_mutants):
            try:
                part(check, folder.name, *vars(arguments).values())
            except Exception as error:  # a program or transformers refused: the other checks go on
                check(f"{folder.name}: {part.__name__}", False, repr(error))
    raise SystemExit(check.close())


if __name__ == "__main__":
    main()
