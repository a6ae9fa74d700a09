#!/usr/bin/env python3
"""Our tokenizer beside Hugging Face's `tokenizers`: python tokenizer_compare.py BUILD_DIR OUT

The reference is built here from qwen.tiktoken with the published normalisation, split pattern and special tokens. Closes with
"N passed, N failed, N skipped"; skips where the real data (AF_TEST_DATA, or shared/data beside the checkout) are absent."""
import argparse
import base64
import json
import os
import pathlib
import random
import re
import statistics
import subprocess
import sys
import time
import unicodedata

os.environ["TOKENIZERS_PARALLELISM"] = "true"
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers  # noqa: E402

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from common import REAL_DATA, Checks  # noqa: E402

PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CONTROL = """endoftext im_start im_end object_ref_start object_ref_end box_start box_end quad_start quad_end vision_start
vision_end vision_pad image_pad video_pad fim_prefix fim_middle fim_suffix fim_pad repo_name file_sep""".split()
NAMES = [f"<|{name}|>" for name in CONTROL[:14]] + ["<tool_call>", "</tool_call>"] + [f"<|{name}|>" for name in CONTROL[14:]]
NAMES += ["<tool_response>", "</tool_response>", "<think>", "</think>"]  # from 151643 on
TEXTUAL = [name for name in NAMES if not name.startswith("<|")]  # tokens in any text
SPEED_TURNS = 3


def reference(merges: list, vocab: dict, specials: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(vocab, merges))
    tokenizer.normalizer = normalizers.NFC()
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(PATTERN), "isolated"), byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken(name, special=name.startswith("<|"), normalized=False) for name in specials])
    return tokenizer


def byte_characters() -> dict[int, str]:
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    return {b: chr(b) for b in printable} | {b: chr(0x100 + i) for i, b in enumerate(others)}


def read_ranks(path: pathlib.Path) -> tuple[dict, list]:
    """The vocabulary and merges of a rank file: a token's parts are what the tokens of lower rank make of it."""
    ranks = {}
    for line in path.read_bytes().split(b"\n"):
        if line:
            token, rank = line.split()
            ranks[base64.b64decode(token)] = int(rank)
    characters = byte_characters()
    text = {token: "".join(characters[b] for b in token) for token in ranks}
    merges = []
    for token, rank in ranks.items():
        parts = [token[i : i + 1] for i in range(len(token))]
        while len(parts) > 2:
            pairs = [ranks.get(a + b, rank) for a, b in zip(parts, parts[1:])]
            least = min(pairs)
            if least >= rank:
                break
            i = pairs.index(least)
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        if len(parts) == 2:
            merges.append((text[parts[0]], text[parts[1]]))
    return {text[token]: rank for token, rank in ranks.items()}, merges


def fuzzed(count: int, corpus: list[str]) -> list[str]:
    """Texts of everything that normalisation, split and special tokens look at, and of any code point at all."""
    rng = random.Random(20)
    assigned = [c for c in range(0x32000) if unicodedata.category(chr(c)) not in ("Cn", "Cs")]
    spaces = [chr(c) for c in (9, 10, 11, 12, 13, 0x1C, 0x20, 0x20, 0x20, 0x85, 0xA0, 0x1680, 0x180E, 0x2000, 0x200B, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000, 0xFEFF)]
    marks = [chr(c) for c in range(0x300, 0x370)] + [chr(c) for c in assigned if unicodedata.combining(chr(c)) and c > 0x370]
    decomposing = [chr(c) for c in assigned if unicodedata.decomposition(chr(c))]
    jamo = [chr(c) for c in (*range(0x1100, 0x1113), *range(0x1161, 0x1176), *range(0x11A8, 0x11C3), 0xAC00, 0xAC01, 0xD7A3)]
    contractions = ["'" + x for x in ("s", "S", "\u017f", "t", "T", "re", "RE", "rE", "ve", "m", "M", "ll", "LL", "lL", "d", "D", "x", "r", "l", "v")]
    specials = NAMES + ["<|", "|>", "<think", "<|im_end|", "<tool_call>\n", "<|endoftext|>\u0338", "<think>\u0338", "\u226e|im_end|>"]

    def piece() -> str:
        kind = rng.randrange(13)
        if kind == 0:
            return "".join(rng.choice("abcdefghijklmnopqrstuvwxyzABCXYZ") for _ in range(rng.randint(1, 12)))
        if kind == 1:
            return "".join(rng.choice(spaces) for _ in range(rng.randint(1, 4)))
        if kind == 2:
            return str(rng.randrange(10 ** rng.randint(1, 9)))
        if kind == 3:
            return rng.choice(contractions)
        if kind == 4:
            return "".join(rng.choice("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~") for _ in range(rng.randint(1, 5)))
        if kind == 5:
            return chr(rng.choice(assigned))
        if kind == 6:
            return rng.choice("aeoAEO<=>\u0915\u4e2d") + "".join(rng.choice(marks) for _ in range(rng.randint(1, 4)))
        if kind == 7:
            return rng.choice(decomposing) + (rng.choice(marks) if rng.random() < 0.5 else "")
        if kind == 8:
            return "".join(rng.choice(jamo) for _ in range(rng.randint(1, 4)))
        if kind == 9:
            return rng.choice(specials)
        if kind == 10:
            start = rng.choice([0x370, 0x400, 0x5D0, 0x621, 0x905, 0xE01, 0x3041, 0x4E00, 0x1F600])
            return "".join(chr(start + rng.randrange(30)) for _ in range(rng.randint(1, 20)))
        if kind == 11:
            c = rng.randrange(0x110000)
            return chr(c) if not 0xD800 <= c < 0xE000 else "\ufffd"
        text = rng.choice(corpus)
        at = rng.randrange(len(text))
        return text[at : at + rng.randint(1, 60)]

    return ["".join(piece() for _ in range(rng.randint(1, 12))) for _ in range(count)]


def nfc_around(names: list[str], text: str) -> str:
    """NFC of what lies between special tokens; they themselves join nothing."""
    parts = re.split("(" + "|".join(re.escape(name) for name in names) + ")", text)
    return "".join(part if part in names else unicodedata.normalize("NFC", part) for part in parts)


class Ours:
    def __init__(self, build: pathlib.Path, out: pathlib.Path):
        self.probe, self.out = build / "tests" / "tokenizer_probe", out

    def write(self, texts: list[str]) -> pathlib.Path:
        path = self.out / "texts.jsonl"
        path.write_text("".join(json.dumps(text, ensure_ascii=False) + "\n" for text in texts), encoding="utf-8")
        return path

    def encode(self, tokenizer: pathlib.Path, texts: list[str], specials: str) -> list[dict]:
        result = self.out / "ids.jsonl"
        subprocess.run([self.probe, "encode", tokenizer, specials, self.write(texts), result], check=True)
        with open(result, encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    def sha256(self, tokenizer: pathlib.Path) -> str:
        return subprocess.run([self.probe, "sha256", tokenizer], check=True, capture_output=True, text=True).stdout.strip()

    def seconds(self, tokenizer: pathlib.Path, texts: pathlib.Path, threads: int) -> tuple[float, int]:
        seconds, tokens = subprocess.run([self.probe, "time", tokenizer, str(threads), texts], check=True, capture_output=True, text=True).stdout.split()
        return float(seconds), int(tokens)


def is_young(c: str) -> bool:
    """Unassigned in this Python's Unicode: the tables of the two sides may be younger, each in its own way."""
    return unicodedata.category(c) == "Cn"


def marks_unknown_to(normalizer) -> set[str]:
    """Combining marks that the reference's NFC does not bring into order: its tables are of Unicode 9."""
    marks = [chr(c) for c in range(0x300, 0x1F000) if unicodedata.combining(chr(c))]
    pairs = {c: "\u0301" + c if unicodedata.combining(c) < 230 else c + "\u0316" for c in marks}
    return {c for c, pair in pairs.items() if normalizer.normalize_str(pair) != unicodedata.normalize("NFC", pair)}


def ranges(characters: set[str]) -> str:
    points = sorted(map(ord, characters))
    starts = [p for p in points if p - 1 not in points]
    ends = [p for p in points if p + 1 not in points]
    return " ".join(f"{a:04X}" if a == b else f"{a:04X}-{b:04X}" for a, b in zip(starts, ends))


def check_ids(check: Checks, what: str, ours: Ours, path: pathlib.Path, hf: Tokenizer, texts: list[str], split: bool) -> None:
    """Ids and decoded text. Two exceptions, listed: marks that the reference cannot order (equal once the text is in NFC
    before it comes there), and characters too young (equal once others stand in their place)."""
    mode, names = ("split", TEXTUAL) if split else ("recognise", NAMES)
    known = {hf.token_to_id(name): 151643 + NAMES.index(name) for name in TEXTUAL} if split else {}  # that reference knows no others

    def expected(sample: list[str]) -> list[list[int]]:
        return [[known.get(i, i) for i in encoding.ids] for encoding in hf.encode_batch(sample, add_special_tokens=False)]

    found, wanted, unknown = ours.encode(path, texts, mode), expected(texts), marks_unknown_to(hf.normalizer)
    spelled_wrong = [text for text, line in zip(texts, found, strict=True) if line["text"] != nfc_around(names, text) and not any(map(is_young, text))]
    differ = [text for text, line, ids in zip(texts, found, wanted) if line["ids"] != ids]
    unordered = [text for text in differ if any(c in unknown for c in text)]
    young = [text for text in differ if text not in unordered and any(map(is_young, text))]
    replaced = ["".join("\ue000" if is_young(c) else c for c in text) for text in unordered + young]
    again = zip(replaced, ours.encode(path, replaced, mode), expected([nfc_around(names, text) for text in replaced]), strict=True)
    wrong = [text for text in differ if text not in unordered and text not in young] + [text for text, line, ids in again if line["ids"] != ids]
    for reason, sample, is_reason in (("marks that tokenizers' NFC (Unicode 9) does not order", unordered, unknown.__contains__),
                                      (f"characters younger than Unicode {unicodedata.unidata_version}", young, is_young)):  # fmt: skip
        if sample:
            print(f"{what}: {len(sample)} of {len(texts)} texts differ by {reason}: {ranges({c for text in sample for c in text if is_reason(c)})}")
    check(f"{what}: the ids of {len(texts)} texts ({sum(map(len, wanted))} tokens)", not wrong, wrong and f"{len(wrong)} differ, as {wrong[0]!r}")
    check(f"{what}: decode(encode(x)) == NFC(x)", not spelled_wrong, spelled_wrong and f"{len(spelled_wrong)} differ, as {spelled_wrong[0]!r}")


def check_formats(check: Checks, ours: Ours, ranks: pathlib.Path, hf: Tokenizer, out: pathlib.Path) -> None:
    """What Hugging Face's library writes of the same vocabulary is the same tokenizer to us."""
    whole, parts = out / "json", out / "parts"
    for folder in (whole, parts):
        folder.mkdir(exist_ok=True)
    hf.save(str(whole / "tokenizer.json"))
    hf.model.save(str(parts))
    added = {i: {"content": token.content, "special": token.special} for i, token in hf.get_added_tokens_decoder().items()}
    (parts / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": added}))
    expected = ours.sha256(ranks)
    for folder in (whole, parts):
        found = ours.sha256(folder)
        check(f"{folder.name}: the same identity as qwen.tiktoken", found == expected, f"{found} is not {expected}")


def check_training(check: Checks, ours: Ours, build: pathlib.Path, data: pathlib.Path, out: pathlib.Path, corpus: list[str], texts: list[str]) -> None:
    from transformers import AutoTokenizer

    folder = out / "trained"
    subprocess.run([build / "bin" / "af_data", "train-tokenizer", "--input", data / "trajectories.jsonl", "--vocab-size", "8000", "--output", folder],
                   check=True, stdout=subprocess.DEVNULL)  # fmt: skip
    hf = Tokenizer.from_file(str(folder / "tokenizer.json"))
    check_ids(check, "trained", ours, folder, hf, texts + corpus, split=False)
    auto = AutoTokenizer.from_pretrained(folder)
    same = all(auto(text)["input_ids"] == hf.encode(text).ids for text in texts[:200])
    check("trained: transformers loads the folder and gives the same ids", same)
    check("trained: <|endoftext|> ends a document", auto.eos_token_id == 8000 - 26 == hf.token_to_id("<|endoftext|>"), f"{auto.eos_token_id}")
    learner = reference([], {}, [])
    pieces = [piece for text in corpus for piece in re.split("|".join(map(re.escape, TEXTUAL)), text)]
    learner.train_from_iterator(pieces, trainers.BpeTrainer(vocab_size=8000 - 26, min_frequency=2, show_progress=False,
                                                            initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))  # fmt: skip
    theirs = json.loads(learner.to_str())["model"]
    found = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    merges = [" ".join(merge) for merge in theirs["merges"]]
    first = next((i for i, (a, b) in enumerate(zip(merges, found["merges"])) if a != b), None)
    check("trained: the merges that Hugging Face's trainer learns", merges == found["merges"] and theirs["vocab"] == found["vocab"],
          f"the first other one is number {first}")  # fmt: skip


def check_speed(check: Checks, ours: Ours, ranks: pathlib.Path, hf: Tokenizer, corpus: list[str]) -> None:
    """One thread against one thread, and both with all cores, in turns; medians."""
    megabytes = sum(len(text.encode()) for text in corpus) / 1e6
    cores = len(os.sched_getaffinity(0))
    file = ours.write(corpus)
    rates: dict[str, list[float]] = {"ours, 1 thread": [], "tokenizers, 1 thread": [], f"ours, {cores} threads": [], f"tokenizers, {cores} threads": []}
    for turn in range(SPEED_TURNS):
        begin = time.perf_counter()
        tokens = sum(len(hf.encode(text, add_special_tokens=False).ids) for text in corpus)
        rates["tokenizers, 1 thread"].append(megabytes / (time.perf_counter() - begin))
        begin = time.perf_counter()
        hf.encode_batch_fast(corpus, add_special_tokens=False)
        rates[f"tokenizers, {cores} threads"].append(megabytes / (time.perf_counter() - begin))
        for threads, name in ((1, "ours, 1 thread"), (cores, f"ours, {cores} threads")):
            seconds, count = ours.seconds(ranks, file, threads)
            rates[name].append(megabytes / seconds)
            if turn == 0:
                check(f"speed: {name}: as many tokens", count == tokens, f"{count} against {tokens}")
    medians = {name: statistics.median(values) for name, values in rates.items()}
    print(f"speed on {megabytes:.1f} MB, MB/s (medians of {SPEED_TURNS} turns): " + "; ".join(f"{name} {rate:.2f}" for name, rate in medians.items()))
    for threads in ("1 thread", f"{cores} threads"):
        ratio = medians[f"ours, {threads}"] / medians[f"tokenizers, {threads}"]
        check(f"speed: {threads}", ratio >= 5, f"only {ratio:.1f} times tokenizers'")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    arguments = parser.parse_args()
    ranks, trajectories = REAL_DATA / "qwen.tiktoken", REAL_DATA / "trajectories.jsonl"
    check = Checks()
    if not ranks.exists() or not trajectories.exists():
        check.skip("tokenizer: no qwen.tiktoken and trajectories.jsonl in AF_TEST_DATA or ../shared/data")
        raise SystemExit(check.close())
    arguments.out.mkdir(parents=True, exist_ok=True)
    with open(trajectories, encoding="utf-8") as file:
        lines = file.read().splitlines()
    corpus = [message["content"] for line in lines for message in json.loads(line)["messages"] if message["content"]]
    texts = fuzzed(10000, corpus)
    vocab, merges = read_ranks(ranks)
    hf, hf_split = reference(merges, vocab, NAMES), reference(merges, vocab, TEXTUAL)
    ours = Ours(arguments.build, arguments.out)
    check("the reference's ids", len(merges) == 151387 and hf.token_to_id("</think>") == 151668, "not Qwen's")
    for what, sample in (("trajectories", corpus + lines), ("fuzzed", texts)):
        check_ids(check, what, ours, ranks, hf, sample, split=False)
        check_ids(check, f"{what}, <|...|> as text", ours, ranks, hf_split, sample, split=True)
    check_formats(check, ours, ranks, hf, arguments.out)
    check_training(check, ours, arguments.build, REAL_DATA, arguments.out, corpus, texts)
    check_speed(check, ours, ranks, hf, corpus)
    raise SystemExit(check.close())


if __name__ == "__main__":
    main()
