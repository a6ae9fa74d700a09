"""af_eval from data to answers: eval_suite.py BUILD_DIR

A memory of a made-up package index, samples of af_synth has on it, and a small model that learns them by heart. Then
* by likelihood every decision and judgement is right, and of the untrained model about as many as by chance;
* by generation the model lists its options, chooses, calls its tools and answers: what the tools answer from the memory is, to the byte,
  what stood in the samples, and the answers are those of the trajectories, the right ones as well as the wrong ones;
* two processes give the files that one gives;
* every mistake of the user is told in a line, and leaves no file behind."""
import itertools
import json
import math
import pathlib
import random
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from common import MPI_ENVIRONMENT, MPIRUN, Checks, json_lines, must  # noqa: E402

SAMPLES = 3
RUN = """
output_dir: run
seed: 3
model: {model_type: qwen3, vocab_size: %d, hidden_size: 64, num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 2, head_dim: 16,
        intermediate_size: 192, max_position_embeddings: 768, tie_word_embeddings: true, rope_theta: 10000}
stages:
  - {name: s, seq_length: 768, train_iters: %d, global_batch_size: 3, packing: best_fit, lr: {lr: 6e-3, lr_warmup_iters: 10}, data: [{path: train.h5}]}
"""
ITERATIONS = 150
WORLD = ["--tools", "mem.db", "--results", "3", "--statements", "3", "--context", "768"]


class Suite:
    def __init__(self, build, work):
        self.bin, self.work, self.check = build / "bin", work, Checks()
        self.options = {"cwd": work, "env": {**MPI_ENVIRONMENT, "OMP_WAIT_POLICY": "passive"}}

    def words(self, program, arguments, ranks):
        return [*([*MPIRUN, "-np", str(ranks)] if ranks else []), self.bin / program, *map(str, arguments)]

    def call(self, program, *arguments, ranks=0):
        return subprocess.run(self.words(program, arguments, ranks), capture_output=True, text=True, **self.options)

    def must(self, program, *arguments, ranks=0):
        return must(*self.words(program, arguments, ranks), **self.options)

    def lines(self, name):
        return json_lines(self.work / name)


def package_index():
    chance = random.Random(4)
    names = [f"{plant}-{part}" for plant in ("aster", "birch", "cedar", "dogwood", "elder", "fir", "gorse", "hazel")
             for part in ("core", "tools", "doc", "data", "gui", "server", "client", "dev")]  # fmt: skip
    entries = []
    for i, name in enumerate(names):
        entries.append(f"Package: {name}\nVersion: {i % 9}.{i % 7}\nInstalled-Size: {100 + 7 * i}\n"
                       f"Maintainer: {chance.choice(['Ada Byron', 'Bob Noyce', 'Cy Young', 'Di Prince'])} <x{i % 4}@example.org>\nArchitecture: all\n"
                       f"Depends: {', '.join(chance.sample(names, 3))}\nDescription: {name.replace('-', ' ')} for the garden\n"
                       f"Homepage: https://{name.split('-')[0]}.example.org/\nSection: {chance.choice(['admin', 'doc', 'devel', 'net'])}\n"
                       f"Priority: optional\nTag: role::program, use::{chance.choice(['editing', 'viewing', 'storing'])}\n")  # fmt: skip
    return "\n".join(entries) + "\n"


def prepare(suite):
    (suite.work / "index.txt").write_text(package_index())
    suite.must("af_synth", "memory", "--debian-index", "index.txt", "--output", "mem.db")
    suite.must("af_synth", "has", "--memory", "mem.db", "--count", SAMPLES, "--options", "2..3", "--wording", "decision", "--most-bytes", 1900, "--output", "has.jsonl")
    samples = suite.lines("has.jsonl")
    texts = ["".join(segment["text"] for segment in sample["segments"]) for sample in samples]
    (suite.work / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    suite.must("af_data", "train-tokenizer", "--input", "texts.jsonl", "--vocab-size", 640, "--output", "tokenizer")
    suite.must("af_data", "tokenize", "--tokenizer", "tokenizer", "--input", "has.jsonl", "--output", "train.h5")
    (suite.work / "run.yaml").write_text(RUN % (640, ITERATIONS))
    suite.must("af_train", "run.yaml")
    return samples


def check_likelihood(suite, samples):
    trained = ["--checkpoint", "run/checkpoints", "--tokenizer", "tokenizer", "--input", "has.jsonl"]
    suite.must("af_eval", "likelihood", *trained, "--output", "trained.jsonl", "--json", "trained.json")
    suite.must("af_eval", "likelihood", "--random", "run.yaml", *trained[2:], "--json", "untrained.json")
    groups, before = (json.loads((suite.work / f"{name}.json").read_text())["groups"] for name in ("trained", "untrained"))
    decisions = sum(len(sample["decisions"]) for sample in samples)
    suite.check("likelihood: as many decisions as there are", groups["decision"]["count"] == before["decision"]["count"] == decisions)
    suite.check("likelihood: learnt by heart", groups["decision"]["accuracy"] == groups["judgement"]["accuracy"] == 1, str(groups))
    suite.check("likelihood: untrained", abs(before["decision"]["above_chance"]) < 3, str(before["decision"]))
    suite.must("af_eval", "likelihood", *trained, "--output", "trained2.jsonl", ranks=2)
    suite.check("likelihood: two processes", (suite.work / "trained.jsonl").read_bytes() == (suite.work / "trained2.jsonl").read_bytes())


def check_generation(suite, samples):
    trained = ["generate", "--checkpoint", "run/checkpoints", "--tokenizer", "tokenizer", "--input", "has.jsonl", *WORLD]
    for name in ("has", "text"):
        suite.must("af_eval", *trained, "--format", name, "--output", f"{name}_attempts.jsonl", "--json", "generated.json")
        attempts = suite.lines(f"{name}_attempts.jsonl")
        for sample, attempt in zip(samples, attempts):
            heard = [message["content"] for message in attempt["messages"][1:] if message["role"] == "user"]
            wanted = [segment["text"].strip("\n") for segment in sample["segments"] if segment["role"] == "observation"]
            suite.check(f"generate {name}: {sample['id']}: what the tools answer", heard == wanted, f"{heard} {wanted}")
            suite.check(f"generate {name}: {sample['id']}: ends with an answer", attempt["end"] == "answer" and attempt["calls"] == len(wanted), str(attempt))
            suite.check(f"generate {name}: {sample['id']}: is as right as the trajectory", attempt["outcome"] == sample["outcome"], attempt["said"])
        figures = json.loads((suite.work / "generated.json").read_text())
        right = sum(sample["outcome"] for sample in samples) / len(samples)
        suite.check(f"generate {name}: pass@1", abs(figures["passes"]["pass@1"]["mean"] - right) < 1e-9, str(figures))
    drawn = [*trained, "--format", "has", "--samples", 3, "--temperature", 1, "--top-p", 0.95, "--max-tokens", 60]
    suite.must("af_eval", *drawn, "--output", "drawn.jsonl", "--batch", 5)
    suite.must("af_eval", *drawn, "--output", "drawn2.jsonl", "--batch", 2, ranks=2)
    suite.check("generate: two processes, other batches", (suite.work / "drawn.jsonl").read_bytes() == (suite.work / "drawn2.jsonl").read_bytes())
    # pass@k by its definition: over all ways to take k of an item's attempts, how often one of them is right.
    suite.must("af_eval", *trained, "--format", "has", "--samples", 6, "--temperature", 0.9, "--output", "many.jsonl", "--json", "many.json")
    attempts = suite.lines("many.jsonl")
    right = [[a["outcome"] for a in attempts if a["id"].split("#")[0] == sample["id"]] for sample in samples]
    passes = {k: sum(any(some) for of in right for some in itertools.combinations(of, k)) / math.comb(6, k) / len(samples) for k in (1, 2, 4, 6)}
    said = json.loads((suite.work / "many.json").read_text())["passes"]
    suite.check("generate: pass@k of 6 attempts", set(said) == {f"pass@{k}" for k in passes} and all(abs(said[f"pass@{k}"]["mean"] - v) < 1e-12 for k, v in passes.items()),
                f"{said} {passes}")
    suite.check("generate: neither all right nor all wrong", 0 < passes[1] < passes[6], str(passes))
    out = suite.must("af_synth", "has", "--trajectories", "has_attempts.jsonl", "--output", "again.jsonl")
    suite.check("generate: attempts are trajectories", f"from {SAMPLES} trajectories, 0 lines skipped" in out, out)


def check_mistakes(suite, samples):
    (suite.work / "broken.jsonl").write_text(json.dumps(samples[0]) + "\n{\n")
    wrong = {**samples[0], "decisions": [{**samples[0]["decisions"][0], "chosen": 3 - samples[0]["decisions"][0]["chosen"] % 2, "options": 3}]}
    (suite.work / "wrong.jsonl").write_text(json.dumps(wrong) + "\n")
    long = {**samples[0], "segments": [{"role": "user", "text": "word " * 2000}, *samples[0]["segments"][1:]]}
    (suite.work / "long.jsonl").write_text(json.dumps(long) + "\n" + json.dumps(samples[1]) + "\n")
    (suite.work / "none.jsonl").write_text('{"question": "Who?", "answer": "..."}\n')
    model, words = ["--checkpoint", "run/checkpoints"], ["--tokenizer", "tokenizer"]
    likelihood, generate = ["likelihood", "--output", "no.jsonl"], ["generate", "--output", "no.jsonl", *WORLD]
    for arguments, said in (
        ([*likelihood, *words, "--input", "has.jsonl"], "exactly one of --checkpoint"),
        ([*likelihood, *words, *model, "--random", "run.yaml", "--input", "has.jsonl"], "exactly one of --checkpoint"),
        ([*likelihood, *words, "--checkpoint", "tokenizer", "--input", "has.jsonl"], "is no checkpoint"),
        ([*likelihood, *model, "--input", "has.jsonl"], "--tokenizer NAME is missing"),
        ([*likelihood, *model, "--tokenizer", "bytes", "--input", "has.jsonl"], "is not the one of the data"),
        ([*likelihood, *model, *words, "--input", "absent.jsonl"], "absent.jsonl: cannot be read"),
        ([*likelihood, *model, *words, "--input", "broken.jsonl"], "broken.jsonl:2"),
        ([*likelihood, *model, *words, "--input", "texts.jsonl"], "texts.jsonl:1: has no \"id\""),
        ([*likelihood, *model, *words, "--input", "wrong.jsonl"], "does not name option"),
        ([*likelihood, *model, *words, "--input", "long.jsonl"], "--skip-long"),
        ([*likelihood, *model, *words, "--input", "has.jsonl", "--output", "absent/no.jsonl"], "there is no folder absent"),
        ([*likelihood, *model, *words, "--input", "has.jsonl", "--limit", "0"], "expected 1 or more"),
        ([*generate, *model, *words, "--input", "has.jsonl", "--context", "769"], "has positions for 768"),
        ([*generate, *model, *words, "--input", "long.jsonl"], "its prompt has"),
        ([*generate, *model, *words, "--input", "none.jsonl"], "expected an answer"),
        ([*generate, *model, *words, "--input", "has.jsonl", "--samples", "2"], "all attempts are the same"),
        ([*generate, *model, *words, "--input", "has.jsonl", "--top-p", "2"], "expected a number from"),
        ([*generate, *model, *words, "--input", "has.jsonl", "has.jsonl"], "a second question with the id"),
    ):
        for ranks in (0, 2) if said == "--skip-long" else (0,):
            result = suite.call("af_eval", *arguments, ranks=ranks)
            told = said.lower() in result.stderr.lower() and "terminate" not in result.stderr and (ranks or len(result.stderr.splitlines()) <= 2)
            suite.check(f"af_eval {' '.join(arguments)}", result.returncode == 2 and told, f"exit {result.returncode}: {result.stderr}")
    suite.check("mistakes leave nothing", not list(suite.work.glob("no.jsonl*")))
    out = suite.must("af_eval", "likelihood", *model, *words, "--input", "long.jsonl", "--skip-long")
    suite.check("--skip-long", "1 samples left out" in out, out)


def main():
    build = pathlib.Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as folder:
        suite = Suite(build, pathlib.Path(folder))
        samples = prepare(suite)
        for check in (check_likelihood, check_generation, check_mistakes):
            check(suite, samples)
    return suite.check.close()


if __name__ == "__main__":
    sys.exit(main())
