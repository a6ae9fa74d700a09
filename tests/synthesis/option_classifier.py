"""A classifier that sees only the options of a decision: logistic regression over their words (conditional on the set: a softmax over the
options' scores). Beside its words an option has features of how common they are among the other options, since what all others resemble is a
give-away, too."""
import collections
import json
import math
import random
import re

WORD = re.compile(r"[^\s\"\[\]{}<>(),:;?.!/]+|https?|/")
HEADER = re.compile(r"^\n?(Option \d+:|Solution \[\d+\]:)\n$")


def decisions_of(sample: dict) -> list[tuple[list[str], int]]:
    """[(texts of the options, index of the chosen one)] from a HAS sample."""
    found = []
    segments = sample["segments"]
    for decision in sample["decisions"]:
        options, at = [], decision["segment"]
        begin = at
        while begin > 0 and segments[begin - 1]["role"] not in ("observation", "user", "decision"):
            begin -= 1
        for segment in segments[begin:at]:
            if segment["role"] == "other" and HEADER.match(segment["text"]):
                options.append("")
            elif options:
                options[-1] += segment["text"]
        assert len(options) == decision["options"], (sample["id"], len(options), decision)
        found.append((options, decision["chosen"] - 1))
    return found


def features(options: list[str]) -> list[list[str]]:
    bags = [set(WORD.findall(o.lower())) for o in options]
    held = collections.Counter(word for bag in bags for word in bag)
    out = []
    for text, bag in zip(options, bags):
        shared = sum(held[word] - 1 for word in bag) / max(1, len(bag)) / max(1, len(options) - 1)
        kind = "call" if "<tool_call>" in text else "answer"
        out.append(list(bag) + [f"{kind} shared {round(shared * 10)}", f"{kind} words {min(40, len(bag))}", f"{kind} bytes {min(40, len(text) // 10)}"])
    return out


def accuracy_above_chance(samples: list[dict], seed: int = 1, epochs: int = 4) -> tuple[float, float, int]:
    """Trained on 70 % of the samples; on the others: (accuracy, chance, decisions)."""
    sets = [[(features(options), chosen) for options, chosen in decisions_of(sample)] for sample in samples]
    rng = random.Random(seed)
    rng.shuffle(sets)
    cut = len(sets) * 7 // 10
    train = [d for sample in sets[:cut] for d in sample]
    test = [d for sample in sets[cut:] for d in sample]
    weights: dict[str, float] = collections.defaultdict(float)

    def scores(options):
        return [sum(weights.get(word, 0.0) for word in option) for option in options]

    for epoch in range(epochs):
        rate = 0.1 / (1 + epoch)
        rng.shuffle(train)
        for options, chosen in train:
            values = scores(options)
            top = max(values)
            exps = [math.exp(v - top) for v in values]
            total = sum(exps)
            for i, option in enumerate(options):
                gradient = exps[i] / total - (i == chosen)
                step = rate * gradient
                for word in option:
                    weights[word] = weights[word] * (1 - rate * 0.002) - step
    right = 0.0
    for options, chosen in test:
        values = scores(options)
        best = [i for i, v in enumerate(values) if v == max(values)]
        right += (chosen in best) / len(best)
    return right / len(test), sum(1 / len(options) for options, _ in test) / len(test), len(test)


def read_samples(path: str) -> list[dict]:
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
