#!/usr/bin/env python3
"""Debian's package index, as `apt-cache dumpavail` prints it on standard input, turned into documents (JSON lines).

  pages.jsonl         a page per package: its facts and its description
  trajectories.jsonl  a question about a package, a search that finds its page, an answer: messages as in agentic data
  surveys.jsonl       long documents: the packages of one section, a line each
  heldout.jsonl       pages of packages that appear in none of the above

Which packages are taken depends on a hash of their names, so that the same index gives the same files."""
import hashlib
import json
import pathlib
import sys

KEPT = ("Section", "Priority", "Installed-Size", "Maintainer", "Depends", "Homepage", "Tag")


def packages(lines):
    """Yields (name, {field: text}) for each stanza of the index; the first of several versions."""
    seen, fields, last = set(), {}, None
    for line in lines:
        line = line.rstrip("\n")
        if not line:
            name = fields.get("Package")
            if name and name not in seen:
                seen.add(name)
                yield name, fields
            fields, last = {}, None
        elif line[0] == " ":
            if last:
                fields[last] += "\n" + ("" if line.strip() == "." else line[1:])
        else:
            last, _, value = line.partition(":")
            if last.startswith("Description") and last != "Description-md5":
                last = "Description"
            fields[last] = value.strip()


def page(name, fields):
    facts = [f"{key}: {fields[key]}" for key in KEPT if fields.get(key)]
    return "\n".join([f"Package: {name}", *facts, "", fields.get("Description", "")])


def trajectory(name, fields, bucket):
    """One question whose answer stands on the page that a search finds."""
    asked = [key for key in ("Section", "Maintainer", "Installed-Size", "Homepage") if fields.get(key)]
    if not asked:
        return None
    key = asked[bucket % len(asked)]
    call = json.dumps({"name": "search", "arguments": {"query": [f"debian package {name}"]}})
    return [
        {"role": "user", "content": f"What is the {key.lower()} of the Debian package {name}?"},
        {"role": "assistant", "content": f"<think>The page of {name} says it. I search for it.</think>\n<tool_call>\n{call}\n</tool_call>"},
        {"role": "user", "content": f"<tool_response>\n{page(name, fields)}\n</tool_response>"},
        {"role": "assistant", "content": f"<think>The page gives {key}.</think>\n<answer>{fields[key]}</answer>"},
    ]


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: open(folder / f"{name}.jsonl", "w", encoding="utf-8") for name in ("pages", "trajectories", "surveys", "heldout")}
    sections = {}
    for name, fields in packages(sys.stdin):
        bucket = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
        if bucket % 8 == 1:
            files["pages"].write(json.dumps({"text": page(name, fields)}) + "\n")
        elif bucket % 8 == 2 and (messages := trajectory(name, fields, bucket // 8)):
            files["trajectories"].write(json.dumps({"messages": messages}) + "\n")
        elif bucket % 8 == 3:
            sections.setdefault(fields.get("Section", "unknown"), []).append(f"{name}: {fields.get('Description', '').splitlines()[0]}")
        elif bucket % 200 == 4:
            files["heldout"].write(json.dumps({"text": page(name, fields)}) + "\n")
    for section, lines in sorted(sections.items()):
        for begin in range(0, len(lines), 40):
            text = f"Packages of section {section}\n" + "\n".join(lines[begin:begin + 40])
            files["surveys"].write(json.dumps({"text": text}) + "\n")
    for file in files.values():
        file.close()


if __name__ == "__main__":
    main()
