#!/usr/bin/env python3
"""Is it the stages, and is it the data? Trains small models as the paper's tables 4 and 5 compare large ones: untrained, one stage, both
stages, FAS alone, FAS and HAS; the same number of tokens each, several seeds; and prints what they choose on entities held out. Whatever
comes out is printed.

  tables.py                 9 runs of 5 million tokens, an hour and a half on two cores (run.sh's data are used where they are there)
  tables.py --shortened     a look at every run with next to no training: does it work?

Run again, it goes on where it was. Programs are taken from PATH, or from build/cpu/bin."""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
FAS, HAS, LONG = "fas.h5", "has.h5", "has_long.h5"
# What the stages train on. One stage has the tokens of both.
VARIANTS = {
    "one stage": {"stages": 1, "data": [[(FAS, 0.2), (HAS, 0.8)]]},
    "two stages": {"stages": 2, "data": [[(FAS, 0.2), (HAS, 0.8)], [(LONG, 0.5), (HAS, 0.4), (FAS, 0.1)]]},
    "FAS alone": {"stages": 2, "data": [[(FAS, 1)], [(FAS, 1)]]},
}
# Rows of the tables; each is a variant or the model before training.
TABLES = {
    "Do two stages help? (FAS + HAS)": [("untrained", "untrained"), ("one stage", "one stage"), ("two stages", "two stages")],
    "Does HAS help? (two stages)": [("untrained", "untrained"), ("FAS", "FAS alone"), ("FAS + HAS", "two stages")],
}
COLUMNS = [
    ("option by its words, good trajectories, per byte", "decisions"),
    ("decision", "by number"),
    ("judgement, good and failed weighing the same", "judgements"),
    ("answer, fas_planning, per byte", "answers"),
    ("answer, fas_reasoning, per byte", "reasoned answers"),
]


def run(*command):
    print("+", *command, flush=True)
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)


def settings(variant, seed, tokens, folder):
    """What the command line changes in agentic_cpt.yaml."""
    first, second = tokens * 3 // 4, tokens // 4
    words = [f"output_dir={folder}", f"seed={seed}", "validation.eval_interval=0", "checkpoint.save_interval=0"]
    lengths = [tokens] if variant["stages"] == 1 else [first, second]
    for stage, (length, data) in enumerate(zip(lengths, variant["data"])):
        sources = ", ".join(f"{{path: {path}, weight: {weight}}}" for path, weight in data)
        words += [f"stages.{stage}.train_tokens={length}", f"stages.{stage}.data=[{sources}]"]
    if variant["stages"] == 1:
        words.append("stages.0.lr.min_lr=1e-4")  # the decay ends where that of two stages does
    return words


def evaluate(model, name):
    out = pathlib.Path(name + ".json")
    if not out.exists():
        run("af_eval", "likelihood", *model, "--tokenizer", "tokenizer", "--input", "heldout.jsonl", "heldout_fas.jsonl", "--json", out)
    return json.loads(out.read_text())["groups"]


def train_and_evaluate(options, results):
    yaml = HERE / "agentic_cpt.yaml"
    for seed in range(1, options.seeds + 1):
        # random weights of this seed: --random reads a file, so the file gets the seed
        untrained = pathlib.Path(f"untrained-{seed}.yaml")
        untrained.write_text(yaml.read_text().replace("seed: 1234", f"seed: {seed}"))
        results.setdefault("untrained", []).append(evaluate(["--random", untrained], f"untrained-{seed}"))
        for name, variant in VARIANTS.items():
            folder = f"{name.replace(' ', '_')}-{seed}"
            if not pathlib.Path(folder + ".json").exists():
                stage = ["--stage", "stage1"] if variant["stages"] == 1 else []
                run("af_train", yaml, *settings(variant, seed, options.tokens, folder), *stage)
            results.setdefault(name, []).append(evaluate(["--checkpoint", f"{folder}/checkpoints"], folder))


def cell(results, group):
    values = [100 * table[group]["accuracy"] for table in results if group in table]
    if not values:
        return f"{'-':>18}"
    spread = statistics.stdev(values) if len(values) > 1 else 0
    return f"{statistics.mean(values):>10.1f} +- {spread:>4.1f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shortened", action="store_true", help="next to no training, and a few samples, in out/shortened/")
    parser.add_argument("--out", type=pathlib.Path, help="a folder for all files; default: out/ beside this script")
    options = parser.parse_args()
    options.seeds, options.tokens = (2, 60_000) if options.shortened else (3, 5_000_000)
    out = options.out or HERE / ("out/shortened" if options.shortened else "out")
    out.mkdir(parents=True, exist_ok=True)
    os.chdir(out)
    os.environ["PATH"] = os.environ["PATH"] + os.pathsep + str(HERE.parent.parent / "build" / "cpu" / "bin")
    run(HERE / "data.sh", *(["0.03"] if options.shortened else []))
    results = {}
    train_and_evaluate(options, results)
    chance = {group: 100 * results["untrained"][0][group]["chance"] for group, _ in COLUMNS if group in results["untrained"][0]}
    for title, rows in TABLES.items():
        print(f"\n{title}: right, %, mean and standard deviation of {options.seeds} seeds; {options.tokens / 1e6:g}M tokens each")
        print(f"{'':<12}" + "".join(f"{heading:>18}" for _, heading in COLUMNS))
        print(f"{'chance':<12}" + "".join(f"{chance[group]:>18.1f}" if group in chance else f"{'-':>18}" for group, _ in COLUMNS))
        for label, name in rows:
            print(f"{label:<12}" + "".join(cell(results[name], group) for group, _ in COLUMNS))


if __name__ == "__main__":
    sys.exit(main())
