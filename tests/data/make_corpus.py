#!/usr/bin/env python3
"""Makes a corpus of JSON lines from text that Debian has anyway: package descriptions and, where installed, manual pages.

usage: make_corpus.py FOLDER MEGABYTES [--seed N]

Writes FOLDER/part-0.jsonl ... (plain, every third compressed as .gz) of documents that are drawn and put together at random,
one in 20 as a chat with a tool call; one in 100 repeats an earlier one exactly, one in 100 with a few words changed. Equal
arguments on equal packages give equal bytes. FOLDER/manifest.json says from which packages (version, sha256, licence)
and how many documents, repetitions and words there are. Exit status 3: this machine has no such text. Commit none of it."""
import argparse
import glob
import gzip
import hashlib
import json
import pathlib
import random
import re
import shutil
import subprocess
import sys

PARTS = 6
DESCRIPTION = re.compile(r"^Description(?:-en)?: (.*(?:\n .*)*)", re.M)
ROFF = re.compile(r"\\f[A-Z]|\\[&|^/,]|^\.(\\\"|[a-zA-Z]{1,2}).*$|\\-", re.M)


def descriptions():
    """(paragraphs, manifest entries) of all packages that apt knows."""
    if not shutil.which("apt-cache"):
        return [], []
    text = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, check=True).stdout
    paragraphs = []
    for stanza in text.decode("utf-8", "replace").split("\n\n"):
        found = DESCRIPTION.search(stanza)
        if found:
            lines = [line.removeprefix(" ") for line in found[1].split("\n")]
            paragraphs.append(stanza.split("\n", 1)[0].removeprefix("Package: ") + ": " + "\n".join("" if line == "." else line for line in lines))
    used = "\n\n".join(paragraphs).encode()
    return paragraphs, [{"package": "apt's package lists", "version": f"{len(paragraphs)} packages", "sha256": hashlib.sha256(used).hexdigest(),
                         "licence": "each package's own (Debian main: free software)"}]


def licence_of(package):
    try:
        text = pathlib.Path(f"/usr/share/doc/{package}/copyright").read_text(errors="replace")
    except OSError:
        return "unknown"
    found = sorted(set(re.findall(r"^License: *(\S.*)$", text, re.M)))
    return ", ".join(found[:5]) or "see its copyright file"


def manuals():
    """(paragraphs, manifest entries) of the manual pages and Perl documentation that are installed."""
    files = sorted(glob.glob("/usr/share/man/man[1-8]/*.gz") + glob.glob("/usr/share/perl/5*/**/*.pod", recursive=True))[:4000]
    if not files:
        return [], []
    owners = subprocess.run(["dpkg", "-S", *files], capture_output=True, text=True).stdout
    package_of = {path: names.split(",")[0].split(":")[0] for names, _, path in (line.partition(": ") for line in owners.splitlines())}
    paragraphs, hashes = [], {}
    for path in files:
        if path not in package_of:
            continue
        data = gzip.open(path).read() if path.endswith(".gz") else open(path, "rb").read()
        hashes.setdefault(package_of[path], hashlib.sha256()).update(data)
        text = ROFF.sub("", data.decode("utf-8", "replace"))
        paragraphs += [p.strip() for p in re.split(r"\n\s*\n", text) if len(p) > 80]
    entries = []
    for package, digest in sorted(hashes.items()):
        version = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", package], capture_output=True, text=True).stdout
        entries.append({"package": package, "version": version, "sha256": digest.hexdigest(), "licence": licence_of(package)})
    return paragraphs, entries


def documents(paragraphs, seed):
    """Endless (kind, JSON object)."""
    draw = random.Random(seed)
    recent = []
    for number in range(sys.maxsize):
        kind = draw.random()
        if kind < 0.02 and recent:
            text = draw.choice(recent)
            if kind < 0.01:
                yield "exact", {"text": text}
                continue
            words = text.split(" ")
            for _ in range(max(1, len(words) // 150)):
                words[draw.randrange(len(words))] = f"changed{draw.randrange(10**6)}"
            yield "near", {"text": " ".join(words)}
            continue
        parts = [draw.choice(paragraphs) for _ in range(draw.choice((3, 4, 6, 9)))]  # so many that two documents are alike only where that is meant
        text = f"Notes {number}\n\n" + "\n\n".join(parts)
        if kind < 0.07:
            name = parts[0].split(":", 1)[0]
            yield "chat", {"messages": [
                {"role": "system", "content": "You look packages up."}, {"role": "user", "content": f"What is {name}? (question {number})"},
                {"role": "assistant", "content": f"<think>\nI look for {name}.\n</think>\n<tool_call>\n{json.dumps({'name': 'search', 'query': name})}\n</tool_call>"},
                {"role": "user", "content": f"<tool_response>\n{text}\n</tool_response>"},
                {"role": "assistant", "content": f"<think>\nThis says it.\n</think>\n<answer>\n{parts[0]}\n</answer>"}], "licence": "various"}
            continue
        if len(text.split()) > 200:
            recent = recent[-200:] + [text]
        yield "text", {"text": text, "licence": "various"}


def make(folder, megabytes, seed=1):
    """Returns the manifest; None where this machine has no such text."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paragraphs, packages = descriptions()
    more, entries = manuals()
    paragraphs = [p[:1500] for p in paragraphs + more]
    if len(paragraphs) < 100:
        return None
    stream = documents(paragraphs, seed)
    kinds = {"text": 0, "chat": 0, "exact": 0, "near": 0}
    files = []
    for part in range(PARTS):
        path = folder / (f"part-{part}.jsonl" + (".gz" if part % 3 == 2 else ""))
        size = 0
        with open(path, "wb") as raw, gzip.GzipFile(path.name, "wb", 1, raw, mtime=0) if part % 3 == 2 else raw as out:
            while size < megabytes * 1e6 / PARTS:
                kind, document = next(stream)
                line = json.dumps(document, ensure_ascii=False).encode() + b"\n"
                kinds[kind] += 1
                size += len(line)
                out.write(line)
        files.append({"name": path.name, "bytes": path.stat().st_size, "text_bytes": size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()})
    manifest = {"seed": seed, "documents": kinds, "files": files, "packages": packages + entries}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    return manifest


def main():
    parser = argparse.ArgumentParser(usage="make_corpus.py FOLDER MEGABYTES [--seed N]")
    parser.add_argument("folder")
    parser.add_argument("megabytes", type=float)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    manifest = make(arguments.folder, arguments.megabytes, arguments.seed)
    if manifest is None:
        print("neither apt's package lists nor manual pages are on this machine", file=sys.stderr)
        sys.exit(3)
    print(json.dumps({"documents": manifest["documents"], "text_bytes": sum(f["text_bytes"] for f in manifest["files"])}))


if __name__ == "__main__":
    main()
