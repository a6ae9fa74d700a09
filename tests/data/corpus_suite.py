#!/usr/bin/env python3
"""af_data with a real corpus: killed anywhere and started again, out of room, hostile lines, flat memory, Megatron's files.

usage: corpus_suite.py FOLDER_OF_PROGRAMS [--full]

The corpus is made from packages (make_corpus.py), 20 MB, or 1 GB with --full. Expected tokens, hashes and counts are
computed here, from the JSON lines alone. Closes with "N passed, N failed, N skipped"."""
import gzip
import hashlib
import json
import pathlib
import random
import resource
import shutil
import struct
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from common import Checks, Watched  # noqa: E402

BIN = pathlib.Path(sys.argv[1]).resolve() / "af_data"
FULL = "--full" in sys.argv[2:]
WORK = pathlib.Path(tempfile.mkdtemp(prefix="af_corpus_"))
check = Checks()


def data(*arguments, **options):
    return Watched([BIN, *arguments], WORK, **options)


def tokenize(inputs, output, *options, kill_after=None, **more):
    """`kill_after`: seconds."""
    late = None if kill_after is None else lambda seconds: seconds > kill_after
    return data("tokenize", "--tokenizer", "bytes", "--input", *inputs, "--output", output, *options, kill_after=late, **more)


def same(a, b):
    return subprocess.run(["cmp", "-s", WORK / a, WORK / b]).returncode == 0


def remove(*names):
    for name in names:
        for path in WORK.glob(name + "*"):
            path.unlink()


ALWAYS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>")  # a token also where content has it


def number_of_tokens(text):
    size = len(text.encode())
    return size - sum(text.count(special) * (len(special) - 1) for special in ALWAYS)


def expected_tokens(line):
    if "messages" in line:
        # <|im_start|> role \n content <|im_end|> \n
        return 1 + sum(1 + len(m["role"]) + 1 + number_of_tokens(m["content"]) + 1 + 1 for m in line["messages"])
    return 1 + number_of_tokens(line["text"])


def test_corpus(megabytes):
    # By another process: a child's largest memory counts what its parent had when it was forked.
    maker = subprocess.run([sys.executable, pathlib.Path(__file__).with_name("make_corpus.py"), WORK / "corpus", str(megabytes)], capture_output=True, text=True)
    if maker.returncode == 3:
        check.skip(f"a corpus ({maker.stderr.strip()})")
    check("a corpus is made, or this machine has no such text", maker.returncode in (0, 3), maker.stderr)
    if maker.returncode != 0:
        return
    made = json.loads((WORK / "corpus" / "manifest.json").read_text())
    inputs = ["corpus/part-*"]
    whole = tokenize(inputs, "whole.h5", "--threads", "2")
    check("the corpus is tokenized", whole.code == 0, whole)
    print(f"{megabytes} MB of text, byte tokenizer: 2 threads {megabytes / whole.seconds:.0f} MB/s, {whole.cpu_seconds:.1f} s of CPU, {whole.megabytes:.0f} MB")

    manifest = json.loads((WORK / "whole.h5.manifest.json").read_text())
    documents = sum(made["documents"].values())
    check("every document is there", manifest["documents"] == documents and f"{documents} documents" in whole.out, whole)
    check("exact repetitions are counted", manifest["duplicates"]["exact"] == made["documents"]["exact"], str(manifest["duplicates"]))
    check("sources by name, size and hash", [(s["name"], s["bytes"], s["sha256"]) for s in manifest["sources"]] ==
          [("corpus/" + f["name"], f["bytes"], f["sha256"]) for f in made["files"]], str(manifest["sources"]))
    if not FULL:
        tokens = 0
        for file in made["files"]:
            path = WORK / "corpus" / file["name"]
            for line in gzip.open(path, "rt") if path.suffix == ".gz" else open(path):
                tokens += expected_tokens(json.loads(line))
        check("as many tokens as the text has bytes and special tokens", manifest["tokens"] == tokens, f"{manifest['tokens']} {tokens}")
    verified = data("verify", "whole.h5")
    check("verify", verified.code == 0, verified)
    last = data("inspect", "whole.h5", "--document", documents - 1, "--sample", "100000")
    path = WORK / "corpus" / made["files"][-1]["name"]
    line = json.loads((gzip.open(path, "rt") if path.suffix == ".gz" else open(path)).readlines()[-1]) if not FULL else None
    if line and "text" in line and line["text"].isprintable():
        check("the last document is the last line", line["text"] + "<|endoftext|>" in last.out, last.out[-500:])

    one = tokenize(inputs, "one.h5", "--threads", "1")
    check("one thread writes the same bytes", one.code == 0 and same("whole.h5", "one.h5"), one)
    print(f"{megabytes} MB of text, byte tokenizer: 1 thread {megabytes / one.seconds:.0f} MB/s, {one.cpu_seconds:.1f} s of CPU, {one.megabytes:.0f} MB")
    manifests = [(WORK / f"{name}.h5.manifest.json").read_text().replace(f'"{name}.h5"', '""') for name in ("whole", "one")]
    check("and the same manifest", manifests[0] == manifests[1])
    remove("one.h5")

    # Memory: a sixth of the corpus needs nearly as much. Documents are remembered by their hashes: 32 bytes each and two
    # thirds more for the moment in which the table grows.
    part = tokenize(["corpus/part-0.jsonl"], "part.h5", "--threads", "2")
    allowed = 25 + documents * 54 / 1e6
    check("memory does not grow with the corpus", whole.megabytes < part.megabytes + allowed,
          f"{part.megabytes:.0f} MB for a sixth, {whole.megabytes:.0f} MB for all, {documents} documents")
    print(f"memory: {part.megabytes:.0f} MB for a sixth of the corpus, {whole.megabytes:.0f} MB for all of its {documents} documents")
    remove("part.h5")

    # Killed again and again, at places nobody chose, until a run comes to its end.
    draw = random.Random(7)
    for round_ in range(1 if FULL else 3):
        kills, output = 0, "killed.h5"
        while True:
            ended = tokenize(inputs, output, "--threads", draw.choice((1, 2, 3)), kill_after=draw.uniform(0.02, 0.9 * whole.seconds) if kills < 12 else None)
            if ended.code == 0 and kills == 0:  # too fast: begin again
                remove(output)
                continue
            if ended.code == 0:
                break
            kills += 1
            check("a killed run leaves nothing half-written under the final name", ended.code == -9 and (not (WORK / output).exists() or same("whole.h5", output)), ended)
        check(f"killed {kills} times, the result is the same, byte for byte", kills > 0 and same("whole.h5", output), ended)
        manifest_text = (WORK / f"{output}.manifest.json").read_text().replace(f'"{output}"', '""')
        check("and so is the manifest", manifest_text == manifests[0])
        check("nothing is left of the work", sorted(p.name for p in WORK.glob(output + "*")) == [output, output + ".manifest.json"])
        remove(output)
    bytes_of = lambda name: (WORK / name).stat().st_size if (WORK / name).exists() else 0  # 0: killed before it was begun, or when it had its name
    ended = tokenize(inputs, "late.h5", kill_after=0.9 * whole.seconds)
    if ended.code == -9 and bytes_of("late.h5.part") > 1 << 20:
        again = tokenize(inputs, "late.h5")
        check("a run that goes on says so", again.code == 0 and "going on where an earlier run stopped" in again.err and same("whole.h5", "late.h5"), again)
        remove("late.h5")

    # Changes between two runs are noticed.
    ended = tokenize(inputs, "changed.h5", kill_after=0.4 * whole.seconds)
    while ended.code == 0:  # too fast a machine: not killed in time
        remove("changed.h5")
        ended = tokenize(inputs, "changed.h5", kill_after=draw.uniform(0.02, 0.1))
    if bytes_of("changed.h5.part") > 1000:
        other = tokenize(inputs, "changed.h5", "--loss-on", "assistant")
        check("other options are refused", other.code == 2 and "--loss-on" in other.err and "changed.h5.part" in other.err, other)
        fewer = tokenize(["corpus/part-0.jsonl"], "changed.h5")
        check("other inputs are refused", fewer.code == 2 and "number of input files: was 6, is 1" in fewer.err, fewer)
        with open(WORK / "corpus" / "part-1.jsonl", "a") as f:
            f.write('{"text": "one more"}\n')
        changed = tokenize(inputs, "changed.h5")
        check("a changed file is refused", changed.code == 2 and "part-1.jsonl: the file has changed" in changed.err, changed)
    remove("changed.h5", "whole.h5")

    near = tokenize(inputs, "near.h5", "--remove-duplicates", "near")
    found = json.loads((WORK / "near.h5.manifest.json").read_text())["duplicates"] if near.code == 0 else {}
    # One word in 150 is changed: a similarity of 0.9 or more. Few others are alike by chance, where one paragraph is most of two.
    wanted = made["documents"]["near"]
    check("near repetitions are found", near.code == 0 and 0.98 * wanted <= found["near"] <= 1.02 * wanted + 0.004 * documents, f"{found} {made['documents']}\n{near}")
    print(f"near duplicates of {documents} documents: {found.get('near')} found of {made['documents']['near']} made; {near.megabytes:.0f} MB")
    remove("near.h5")


def test_hostile():
    lines = [b'{"text": "good"}', b'{"text": ', b'{"text": "\xff\xfe"}', b'{"text": "' + b"x" * (100_000_000 if FULL else 20_000_000) + b'"}',
             b'{"text": "<|im_end|> and <|endoftext|>"}', b"[" * 100_000, b'{"text": "a", "text": "b"}', b'{"text": "\\ud800"}', b"\x00\x01\x02",
             b'{"messages": [{"role": "root", "content": "x"}]}', b'{"messages": [{"role": "user", "content": "<|im_end|>\\n<|im_start|>system"}]}', b'{"text": "also good"}']
    (WORK / "hostile.jsonl").write_bytes(b"\n".join(lines))
    (WORK / "bad.txt").write_bytes(b"one\ntwo \xc3(\n")
    result = tokenize(["hostile.jsonl", "bad.txt"], "hostile.h5")
    check("hostile lines are skipped with a count", result.code == 0 and "4 documents" in result.out and "9 lines skipped" in result.out, result)
    check("each by its number", all(f"hostile.jsonl:{n}:" in result.err for n in (2, 3, 4, 6, 7, 8, 9, 10)) and "bad.txt:2:" in result.err, result)
    check("a line beyond --max-line-bytes says its length", f"the line has {len(lines[3])} bytes, more than the 16777216 of --max-line-bytes" in result.err, result)
    check("and is not held in memory", result.megabytes < 250, f"{result.megabytes:.0f} MB")
    shown = data("inspect", "hostile.h5", "--document", "1").out
    check("special tokens in text are text", "<|im_end|> and <|endoftext|><|endoftext|>" in shown and f"of {len('<|im_end|> and <|endoftext|>') + 1} tokens" in shown, shown)
    strict = tokenize(["hostile.jsonl"], "strict.h5", "--strict")
    check("--strict", strict.code == 2 and "8 lines cannot be used" in strict.err and not list(WORK.glob("strict.h5*")), strict)
    (WORK / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"text": "kept"}\n' * 1000)[:-20])
    cut = tokenize(["cut.jsonl.gz"], "cut.h5")
    check("a cut .gz is read as far as it goes", cut.code == 0 and "cut.jsonl.gz:" in cut.err and "end too early" in cut.err and "1 lines skipped" in cut.out, cut)
    remove("hostile", "bad", "cut", "strict")


def test_no_room():
    with open(WORK / "room.jsonl", "w") as f:
        for i in range(6000):
            f.write(json.dumps({"text": f"{i} " + "word " * 200}) + "\n")

    def limit(megabytes):  # the largest file that the process may write, as a disk that is full
        return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (int(megabytes * 1e6),) * 2)

    # SIGXFSZ stays ignored, as Python has it: writing fails instead
    for megabytes in (4, 14, 20):  # in the spool; in the dataset, which has four bytes a token
        result = tokenize(["room.jsonl"], "room.h5", restore_signals=False, preexec_fn=limit(megabytes))
        check(f"no room after {megabytes} MB: one message, nothing under the final name", result.code == 2 and "room.h5" in result.err and
              "File too large" in result.err and "terminate" not in result.err and not (WORK / "room.h5").exists() and not (WORK / "room.h5.tmp").exists(), result)
    again = tokenize(["room.jsonl"], "room.h5")
    check("with room again it goes on", again.code == 0 and "going on where" in again.err, again)
    tokenize(["room.jsonl"], "room2.h5")
    check("to the same bytes", same("room.h5", "room2.h5"))
    remove("room")


def test_import():
    """Files by struct alone, as Megatron's documentation of the layout says."""
    texts = [["Hello", ", world"], ["second document"], ["", "third"], ["x" * 3000]]
    for code, letter in ((1, "B"), (2, "b"), (3, "h"), (4, "i"), (5, "q"), (8, "H")):
        with_end = letter in "hiqH"
        sequences, index, ids = [], [0], []
        for parts in texts:
            for i, part in enumerate(parts):
                sequence = list(part.encode()) + ([256] if with_end and i == len(parts) - 1 else [])
                sequences.append(len(sequence))
                ids += sequence
            index.append(len(sequences))
        size = struct.calcsize(letter)
        starts = [sum(sequences[:i]) for i in range(len(sequences) + 1)]
        binary = struct.pack(f"<{len(ids)}{letter}", *ids)
        count, entries = len(sequences), len(index)
        mapped = (b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, code, count, entries) + struct.pack(f"<{count}i", *sequences) +
                  struct.pack(f"<{count}q", *(s * size for s in starts[:-1])) + struct.pack(f"<{entries}q", *index))
        legacy = (b"TNTIDX\x00\x00" + struct.pack("<QQQQQQ", 1, code, size, count, count, entries) + struct.pack(f"<{count + 1}q", *range(count + 1)) +
                  struct.pack(f"<{count + 1}q", *starts) + struct.pack(f"<{count}q", *sequences) + struct.pack(f"<{entries}q", *index))
        for name, layout in (("mapped", mapped), ("modes", mapped + bytes(count)), ("legacy", legacy)):
            (WORK / "m.bin").write_bytes(binary)
            (WORK / "m.idx").write_bytes(layout)
            result = data("import", "--tokenizer", "bytes", "--input", "m", "--output", "m.h5")
            good = result.code == 0 and f"{len(texts)} documents, {sum(len(t) for p in texts for t in p) + len(texts)} tokens" in result.out
            for d, parts in enumerate(texts if good else []):
                shown = data("inspect", "m.h5", "--document", d, "--sample", "10000").out
                good = good and f"tokens of document {d}\n" + "".join(parts) + "<|endoftext|>\n" in shown
            check(f"import of {name} files with type {code}", good, result)
        (WORK / "m.bin").write_bytes(binary[:-1])
        result = data("import", "--tokenizer", "bytes", "--input", "m", "--output", "cut.h5")
        check("a cut .bin is refused", result.code == 2 and "m.bin: has" in result.err and not list(WORK.glob("cut.h5*")), result)
    manifest = json.loads((WORK / "m.h5.manifest.json").read_text())
    check("the manifest of an import", [s["name"] for s in manifest["sources"]] == ["m.bin", "m.idx"] and
          manifest["sources"][1]["sha256"] == hashlib.sha256(legacy).hexdigest() and manifest["documents"] == len(texts), str(manifest))
    remove("m.")


def main():
    try:
        test_import()
        test_hostile()
        test_no_room()
        test_corpus(1000 if FULL else 20)
    finally:
        shutil.rmtree(WORK, ignore_errors=True)
    return check.close()


if __name__ == "__main__":
    sys.exit(main())
