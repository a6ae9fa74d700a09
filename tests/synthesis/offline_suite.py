#!/usr/bin/env python3
"""The offline teacher from the command line: valid calls, answers found again by brute force over the index, the same file for any number of
threads, held-out entities kept apart, no near duplicates, and options that tell nothing without question and observations.

usage: offline_suite.py BUILD_DIR [--full]

--full takes this machine's package index (apt-cache dumpavail) and the sizes of the promise: 100,000 planning and 20,000 HAS samples in 5 minutes.
Closes with "N passed, N failed, N skipped"."""
import collections
import json
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from common import Checks  # noqa: E402
from option_classifier import accuracy_above_chance, decisions_of, read_samples  # noqa: E402

BIN = pathlib.Path(sys.argv[1]).resolve() / "bin"
FULL = "--full" in sys.argv[2:]
WORK = pathlib.Path(tempfile.mkdtemp(prefix="af_offline_"))
check = Checks()


def program(name: str, *arguments, refused: bool = False) -> subprocess.CompletedProcess:
    done = subprocess.run([BIN / name, *map(str, arguments)], capture_output=True, text=True, timeout=1800)
    if done.returncode != 0 and not refused:
        print(f"{name} {' '.join(map(str, arguments))}: {done.stderr}")
    return done


def synth(kind: str, name: str, count: int, *options) -> list[dict]:
    output = WORK / name
    memory = [] if "--memory" in options else ["--memory", WORK / "mem.db"]
    done = program("af_synth", kind, *memory, "--count", count, "--output", output, *options)
    return read_samples(output) if done.returncode == 0 else []


def synthetic_index(packages: int) -> str:
    rng = random.Random(5)
    syllables = ["ba", "ko", "ri", "tu", "ze", "lo", "mi", "sha", "dor", "ven", "qui", "pla", "nor", "gim"]

    def word(n):
        return "".join(rng.choice(syllables) for _ in range(n))

    def skewed(n):
        return min(rng.randrange(n), rng.randrange(n))

    names = sorted({word(3) + rng.choice(["", "-doc", "-dev", "1", "2"]) for _ in range(packages)})
    keepers = [f"{word(2).capitalize()} {word(2).capitalize()}" for _ in range(packages // 12)]
    out = []
    for name in names:
        lines = [f"Package: {name}", f"Version: {rng.randrange(9)}.{rng.randrange(30)}.{rng.randrange(9)}-{rng.randrange(1, 9)}"]
        lines += [f"Section: part{skewed(40)}", f"Maintainer: {keepers[skewed(len(keepers))]} <keeper@example.org>"]
        lines += [f"Installed-Size: {rng.randrange(20, 60000)}", f"Homepage: https://{word(3)}.example.org/{name}"]
        depends = {names[skewed(len(names))] for _ in range(rng.randrange(5))}
        lines += [f"Depends: {', '.join(f'{d} (>= 1.0)' for d in sorted(depends))}"] if depends else []
        lines += [f"Recommends: {rng.choice(names)}"] if rng.random() < 0.4 else []
        lines += [f"Suggests: {rng.choice(names)}"] if rng.random() < 0.3 else []
        tags = {f"works-with::{'abcdefghijklmnop'[skewed(16)]}-data" for _ in range(rng.randrange(4))} | {f"role::{rng.choice(['program', 'data', 'plugin'])}"}
        lines += [f"Tag: {', '.join(sorted(tags))}", f"Description: {word(4)} for {word(3)}", f" The {word(5)} of {word(4)}."]
        out.append("\n".join(lines))
    return "\n\n".join(out) + "\n"


def facts_of(index: str) -> dict[str, set[tuple[str, str]]]:
    """Read again here: {package: {(relation, value)}}."""
    facts = {}
    for paragraph in index.split("\n\n"):
        fields = dict(re.findall(r"^([A-Z][A-Za-z-]*): *(.*(?:\n[ \t].*)*)", paragraph, re.M))
        if "Package" not in fields:
            continue
        held = facts.setdefault(fields["Package"], set())
        for field in ("Section", "Maintainer", "Homepage", "Version", "Source", "Installed-Size"):
            if field in fields:
                value = re.sub({"Maintainer": r"\s*<.*", "Source": r"\s*\(.*"}.get(field, r"$^"), "", fields[field]).strip()
                held.add((field.lower().replace("-", "_"), value))
        for field in ("Depends", "Pre-Depends", "Recommends", "Suggests", "Enhances", "Provides"):
            for entry in re.split(r",\s*", fields.get(field, "")):
                parts = [re.split(r"[:(\[< \t\n]", p.strip())[0] for p in entry.split("|") if p.strip()]
                if parts:
                    held.add((field.lower().replace("-", "_") + ("_any" if len(parts) > 1 else ""), " | ".join(parts)))
        for tag in re.split(r",\s*", fields.get("Tag", "")):
            if "::" in tag:
                facet, value = tag.strip().split("::", 1)
                held.add(("tag." + facet, value))
    return facts


class Facts:
    def __init__(self, index: str):
        self.of = facts_of(index)
        self.with_fact = collections.defaultdict(set)
        for package, held in self.of.items():
            for fact in held:
                self.with_fact[fact].add(package)

    def all_with(self, facts) -> set[str]:
        return set.intersection(*(self.with_fact[fact] for fact in facts))

    def problems_of(self, sample: dict) -> list[str]:
        """A factual question as --obfuscation 0 words it: are its clues unique and minimal, is its answer right?"""
        package, question = sample["entities"][0], sample["segments"][0]["text"]
        # A value ends where the sentence goes on: not "python3" in "python3.11", nor "power" in "power:ups".
        said = [fact for fact in self.of[package] if re.search(rf"has {re.escape(plain(fact[0]))} {re.escape(fact[1])}(?=, | and |[:.?](?!\S)|\n|$)", question)]
        problems = []
        if not said or self.all_with(said) != {package}:
            problems.append(f"{sample['id']}: the clues {said} do not name {package}")
        if len(said) > 1 and any(len(self.all_with([f for f in said if f != fact])) < 2 for fact in said):
            problems.append(f"{sample['id']}: one of {said} says nothing")
        values = collections.defaultdict(set)
        for relation, value in self.of[package]:
            values[relation].add(value)
        if not any(held == {sample["answer"]} for held in values.values()):
            problems.append(f"{sample['id']}: {sample['answer']} is no value of {package}")
        return problems


def plain(relation: str) -> str:
    return re.sub(r"[_.-]", " ", relation.removeprefix("tag."))


def call_problems(sample: dict) -> list[str]:
    problems = []
    for segment in sample["segments"]:
        if segment["role"] != "action":
            continue
        match = re.fullmatch(r"\n?<tool_call>\n(.*)\n</tool_call>\n?", segment["text"])
        try:
            call = json.loads(match[1])
        except (TypeError, ValueError) as error:
            problems.append(f"{sample['id']}: {error}: {segment['text']}")
            continue
        arguments = call.get("arguments", {})
        wanted = {"search": {"query": list}, "visit": {"url": list, "goal": str}}.get(call.get("name"), {})
        good = set(call) == {"name", "arguments"} and {k: type(v) for k, v in arguments.items()} == wanted
        good = good and all(v and all(isinstance(item, str) and item for item in v) for v in arguments.values() if isinstance(v, list))
        problems += [] if good and wanted else [f"{sample['id']}: {segment['text']}"]
    return problems


def near_duplicates(samples: list[dict], name: str) -> float:
    with open(WORK / (name + ".text.jsonl"), "w", encoding="utf-8") as out:
        for sample in samples:
            out.write(json.dumps({"text": "".join(s["text"] for s in sample["segments"])}) + "\n")
    program("af_data", "tokenize", "--tokenizer", "bytes", "--near-duplicates", "0.7", "--input", WORK / (name + ".text.jsonl"), "--output", WORK / (name + ".h5"))
    manifest = json.loads((WORK / (name + ".h5.manifest.json")).read_text())
    return manifest["duplicates"]["near"] / len(samples)


def near_duplicates_by_sets(samples: list[dict]) -> float:
    """The same without MinHash: exact Jaccard similarities of sets of word 5-grams, of pairs that share a rare one."""
    grams, holders = [], collections.defaultdict(list)
    for i, sample in enumerate(samples):
        words = re.findall(r"[a-z0-9]+", "".join(s["text"] for s in sample["segments"]).lower())
        grams.append({hash(tuple(words[k : k + 5])) for k in range(max(1, len(words) - 4))})
        for gram in grams[-1]:
            holders[gram].append(i)
    near = set()
    for i, own in enumerate(grams):
        shared = collections.Counter(j for gram in own if len(holders[gram]) <= 100 for j in holders[gram] if j < i)
        near |= {i for j in shared if len(own & grams[j]) >= 0.7 * len(own | grams[j])}
    return len(near) / len(samples)


def has_problems(sample: dict) -> list[str]:
    answers = re.findall(r"<answer>(.*?)</answer>", "".join(s["text"] for s in sample["segments"]), re.S)
    options, chosen = decisions_of(sample)[-1]
    said = re.search(r"<answer>(.*)</answer>", options[chosen], re.S)
    problems = [] if said and (said[1] == sample["answer"]) == sample["outcome"] else [f"{sample['id']}: ends with {said and said[1]}"]
    problems += [] if sample["answer"] in answers or not sample["outcome"] else [f"{sample['id']}: the right answer is no option"]
    judged = "Incorrect" not in sample["segments"][-1]["text"] if "decision is" in sample["segments"][-1]["text"] else None
    return problems + ([] if judged == sample["outcome"] else [f"{sample['id']}: judged {judged}"])


def positions_chi_square(samples: list[dict]) -> float:
    """The largest over the numbers of options, as standard deviations of the statistic."""
    worst = 0.0
    counts: dict[int, collections.Counter] = collections.defaultdict(collections.Counter)
    for sample in samples:
        for decision in sample["decisions"]:
            counts[decision["options"]][decision["chosen"]] += 1
    for n, counter in counts.items():
        expected = sum(counter.values()) / n
        chi = sum((counter[i] - expected) ** 2 / expected for i in range(1, n + 1))
        worst = max(worst, (chi - (n - 1)) / (2 * (n - 1)) ** 0.5)
    return worst


def with_a_give_away(samples: list[dict]) -> list[dict]:
    """As if right options were worded otherwise: a third of the chosen ones, and a tenth of the others, begin with one word."""
    rng = random.Random(2)
    out = json.loads(json.dumps(samples))
    for sample in out:
        for decision in sample["decisions"]:
            at, option = decision["segment"], decision["options"]
            while option > 0:
                at -= 1
                segment = sample["segments"][at]
                if segment["role"] == "thought":
                    if rng.random() < (0.33 if option == decision["chosen"] else 0.1):
                        segment["text"] = segment["text"].replace("<think>", "<think>Surely ", 1)
                    option -= 1
    return out


def by_copying(samples: list[dict]) -> tuple[float, float]:
    """(accuracy of choosing the option most of whose words stood in the question or in what came back before, chance); of good trajectories."""
    right, chance, decisions = 0.0, 0.0, 0
    for sample in (s for s in samples if s["outcome"]):
        for (options, chosen), decision in zip(decisions_of(sample), sample["decisions"]):
            seen = {w for s in sample["segments"][: decision["segment"]] if s["role"] in ("user", "observation") for w in re.findall(r"[\w+-]+", s["text"])}
            shares = [len(words & seen) / len(words) for words in (set(re.findall(r"[\w+-]+", option)) for option in options)]
            best = [i for i, share in enumerate(shares) if share == max(shares)]
            right, chance, decisions = right + (chosen in best) / len(best), chance + 1 / len(options), decisions + 1
    return right / decisions, chance / decisions


def triples_alone(facts: Facts) -> None:
    """The same facts as triples of a knowledge graph, without a page or a package: questions and trajectories as good. And memories that cannot do it."""
    with open(WORK / "graph.jsonl", "w", encoding="utf-8") as out:
        for package, held in sorted(facts.of.items())[:3000]:
            facts.of[package] = {(relation, value) for relation, value in held if value != package and "_" not in value}
            out.write(json.dumps({"triples": [[package, relation, value] for relation, value in sorted(facts.of[package])]}) + "\n")
    program("af_synth", "memory", "--triples", WORK / "graph.jsonl", "--output", WORK / "graph.db")
    graph = Facts("")
    for package, held in sorted(facts.of.items())[:3000]:
        graph.of[package] = held
        for fact in held:
            graph.with_fact[fact].add(package)
    fas = synth("fas", "graph_fas.jsonl", 300, "--obfuscation", 0, "--styles", "factual", "--memory", WORK / "graph.db")
    check.none("triples alone: factual questions by brute force", [p for s in fas for p in graph.problems_of(s)] + ([] if len(fas) == 300 else [len(fas)]))
    has = synth("has", "graph_has.jsonl", 200, "--memory", WORK / "graph.db")
    check.none("triples alone: trajectories", [p for s in has for p in has_problems(s) + call_problems(s)] + ([] if len(has) == 200 else [len(has)]))
    (WORK / "text.jsonl").write_text(json.dumps({"title": "Paris", "text": "Paris is the capital of France. It lies on the Seine."}) + "\n")
    (WORK / "sparse.jsonl").write_text(json.dumps({"triples": [["Paris", "is a", "city"], ["Lyon", "is a", "city"], ["Paris", "lies on", "the Seine"]]}) + "\n")
    for option, name, says in (("--documents", "text", "text.db: has no facts (relation and value)"), ("--triples", "sparse", "sparse.db: 1 of its 2 facts are shared")):
        program("af_synth", "memory", option, WORK / f"{name}.jsonl", "--output", WORK / f"{name}.db")
        done = program("af_synth", "fas", "--memory", WORK / f"{name}.db", "--output", WORK / "none.jsonl", refused=True)
        check(f"a memory that questions cannot be made of: {name}", done.returncode == 2 and says in done.stderr and "--endpoint" in done.stderr, done.stderr)


def main() -> int:
    begin = time.time()
    index = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, text=True, check=True).stdout if FULL else synthetic_index(5000)
    (WORK / "index.txt").write_text(index, encoding="utf-8")
    check("a memory is made", program("af_synth", "memory", "--debian-index", WORK / "index.txt", "--output", WORK / "mem.db").returncode == 0)
    facts = Facts(index)
    print(f"{len(facts.of)} packages, {time.time() - begin:.0f} s")

    begin = time.time()
    plan = synth("fas", "plan.jsonl", 100000 if FULL else 3000, "--kind", "planning")
    planned = time.time() - begin
    has = synth("has", "has.jsonl", 20000 if FULL else 2500)
    took = time.time() - begin
    print(f"{len(plan)} planning samples in {planned:.1f} s, {len(has)} HAS samples in {took - planned:.1f} s")
    check("that is at most 5 minutes", not (FULL and took > 300), took)
    check.none("planning samples have a valid call each", [p for s in plan for p in call_problems(s)] + [s["id"] for s in plan if s["segments"][-1]["role"] != "action"])
    check("all styles are there", len({s["style"] for s in plan}) == 5, collections.Counter(s["style"] for s in plan))
    check.none("HAS samples' calls are valid", [p for s in has for p in call_problems(s)])
    check.none("HAS samples end as they are judged", [p for s in has for p in has_problems(s)])
    wrong = sum(not s["outcome"] for s in has) / len(has)
    check("a quarter of the trajectories fails", abs(wrong - 0.25) < 4 * (0.19 / len(has)) ** 0.5, wrong)
    check("both wordings, about as often", abs(sum(s["style"] == "decision" for s in has) / len(has) - 0.5) < 2 / len(has) ** 0.5)
    chi = positions_chi_square(has)
    check("the chosen options' places are uniform", chi <= 4, chi)
    share = near_duplicates(plan, "plan")
    print(f"near duplicates (word 5-grams, Jaccard >= 0.7) among planning samples: {100 * share:.3f} %")
    check("less than 1 % near duplicates", share < 0.01, share)
    share = near_duplicates_by_sets(plan[:20000])
    check(f"less than 1 % near duplicates by exact similarities: {100 * share:.3f} %", share < 0.01, share)
    check("exact similarities find a changed word", near_duplicates_by_sets(plan[:50] + [dict(s, segments=s["segments"] + [{"text": " more"}]) for s in plan[:50]]) == 0.5)

    accuracy, chance, decisions = accuracy_above_chance(has)
    error = (chance * (1 - chance) / decisions) ** 0.5
    print(f"words of the options alone: {100 * accuracy:.2f} % of {decisions} decisions, chance {100 * chance:.2f} % (standard error {100 * error:.2f})")
    check("options alone say nothing: within 3 points of chance", abs(accuracy - chance) <= 0.03, accuracy - chance)
    accuracy, chance = by_copying(has)
    check("question and observations decide: copied words alone tell far more than chance", accuracy > chance + 0.2, (accuracy, chance))
    accuracy, chance, decisions = accuracy_above_chance(with_a_give_away(has))
    check("the classifier finds a give-away", accuracy - chance > 0.03, accuracy - chance)

    bare = synth("fas", "bare.jsonl", 20000 if FULL else 1500, "--obfuscation", 0, "--styles", "factual", "--split", "train", "--heldout-share", 0.2)
    check("reasoning is there, too", {s["kind"] for s in bare} == {"fas_planning", "fas_reasoning"})
    check.none("factual questions by brute force: unique, minimal, right", [p for s in bare for p in facts.problems_of(s)])
    spoilt = [dict(s, segments=[{"role": "user", "text": re.sub(r",? and has [^.?:]*?(?=[.?:])", "", s["segments"][0]["text"], count=1)}]) for s in bare]
    missed = sum(not facts.problems_of(s) for s, whole in zip(spoilt, bare) if s["segments"][0] != whole["segments"][0])
    check("brute force finds a dropped clue", not missed, missed)
    held = synth("fas", "held.jsonl", 300, "--styles", "factual", "--split", "heldout", "--heldout-share", 0.2)
    held += synth("has", "held_has.jsonl", 200, "--split", "heldout", "--heldout-share", 0.2)
    train = bare + synth("has", "train_has.jsonl", 600, "--split", "train", "--heldout-share", 0.2)
    common = {e for s in train for e in s["entities"]} & {e for s in held for e in s["entities"]}
    check.none("no question of one split is about an entity of the other", sorted(common))

    done = program("af_synth", "has", "--memory", WORK / "mem.db", "--count", 300, "--options", "3..3", "--output", WORK / "three.jsonl")
    counts = [d["options"] for s in read_samples(WORK / "three.jsonl") for d in s["decisions"]]
    said = re.search(r"steps +(\d+) with (\S+) options each\n  with fewer than asked for +(\d+)", done.stdout)
    right = said and (int(said[1]), said[2], int(said[3])) == (len(counts), f"{sum(counts) / len(counts):.2f}", counts.count(2))
    check("steps with fewer options than asked for are counted", right and 0 < counts.count(2) < len(counts) / 4 and set(counts) == {2, 3}, done.stdout)

    for threads in (1, 3):
        synth("has", f"threads{threads}.jsonl", 150, "--threads", threads, "--seed", 9)
    check("the number of threads changes nothing", (WORK / "threads1.jsonl").read_bytes() == (WORK / "threads3.jsonl").read_bytes())
    triples_alone(facts)
    few = program("af_synth", "fas", "--memory", WORK / "mem.db", "--count", 10, "--styles", "factual", "--clues", "6", "--output", WORK / "few.jsonl", refused=True)
    refused = few.returncode == 2 and "can be made of it" in few.stderr and not list(WORK.glob("few.jsonl*"))
    check("too few questions are said, nothing is left", refused or few.returncode == 0, few.stderr)
    return check.close()


if __name__ == "__main__":
    try:
        sys.exit(main())
    finally:
        shutil.rmtree(WORK, ignore_errors=True)
