#!/usr/bin/env python3
"""af_synth memory from outside: what is in the file, killed anywhere and started again, hostile lines, flat memory, messages.

usage: memory_suite.py FOLDER_OF_PROGRAMS

The files are read with Python's sqlite3 alone, and what must be in them is computed here. Closes with "N passed, N failed, N skipped"."""
import gzip
import json
import pathlib
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import index  # noqa: E402
from common import Checks, Watched  # noqa: E402

BIN = pathlib.Path(sys.argv[1]).resolve() / "af_synth"
WORK = pathlib.Path(tempfile.mkdtemp(prefix="af_memory_"))
check = Checks()


def memory(*arguments, **options):
    return Watched([BIN, "memory", *arguments], WORK, **options)


def contents(name):
    """All statements in their order, and whether SQLite finds the file whole."""
    with sqlite3.connect(f"file:{WORK / name}?mode=ro", uri=True) as database:
        whole = database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        text = "(SELECT text FROM texts WHERE texts.id = s.{})"
        rows = database.execute(f"SELECT e.name, s.text, {text.format('relation')}, s.value, {text.format('source')}, s.id FROM statements s "
                                "JOIN entities e ON e.id = s.entity ORDER BY s.id").fetchall()
        totals = database.execute("SELECT entities, statements, facts FROM totals").fetchone()
        entities = database.execute("SELECT count(*), max(id) FROM entities").fetchone()
    facts = sum(row[2] is not None for row in rows)
    whole = whole and totals == (entities[0], len(rows), facts) and entities[0] == (entities[1] or 0) and [row[5] for row in rows] == list(range(1, len(rows) + 1))
    return [row[:5] for row in rows], whole


def expected_facts(count, seed):
    """(package, relation, value) of the synthetic index, computed from its fields."""
    names = {"Section": "section", "Homepage": "homepage", "Version": "version", "Installed-Size": "installed_size"}
    out = set()
    for number in range(count):
        fields = index.package(number, seed)
        name = fields["Package"]
        out |= {(name, relation, fields[field]) for field, relation in names.items() if field in fields}
        out.add((name, "maintainer", fields["Maintainer"].split(" <")[0]))
        for field, relation in (("Depends", "depends"), ("Suggests", "suggests")):
            for part in fields.get(field, "").split(", ") if field in fields else []:
                bare = [re.split(r"[ (\[]", one)[0] for one in part.split(" | ")]
                out.add((name, relation + ("_any" if len(bare) > 1 else ""), " | ".join(bare)))
        for tag in fields.get("Tag", "").split(", ") if "Tag" in fields else []:
            out.add((name, "tag." + tag.split("::")[0], tag.split("::")[1]))
    return out


def write_index(name, count, seed, opener=open):
    with opener(WORK / name, "wt") as file:
        for number in range(count):
            file.write(index.text_of(index.package(number, seed)))


def test_contents():
    write_index("small.txt", 2000, 1)
    made = memory("--debian-index", "small.txt", "--output", "small.db", "--licence", "public domain")
    check("a memory is made", made.code == 0, made)
    rows, whole = contents("small.db")
    check("it is whole", whole)
    facts = [row[:1] + row[2:4] for row in rows if row[2]]
    expected = expected_facts(2000, 1)
    check("every fact of the index, once", len(facts) == len(set(facts)) and set(facts) == expected, (len(facts), len(expected), list(set(facts) ^ expected)[:5]))
    manifest = json.loads((WORK / "small.db.manifest.json").read_text())
    check("the manifest counts", (manifest["statements"], manifest["facts"], manifest["entities"]) == (len(rows), len(facts), 2000), manifest)
    source = manifest["sources"][0]
    sha256 = subprocess.run(["sha256sum", WORK / "small.txt"], capture_output=True, text=True).stdout[:64]
    check("and names its source", source["sha256"] == sha256 and source["bytes"] == (WORK / "small.txt").stat().st_size and source["licence"] == "public domain", manifest)

    refused = memory("--debian-index", "small.txt", "--output", "small.db")
    check("an existing memory is not overwritten", refused.code == 2 and "--append adds to it" in refused.err, refused)
    again = memory("--append", "--debian-index", "small.txt", "--output", "small.db")
    check("a file that is in is not read twice", again.code == 0 and "is in the memory already" in again.err and contents("small.db")[0] == rows, again)
    shutil.copy(WORK / "small.txt", WORK / "longer.txt")
    with open(WORK / "longer.txt", "a") as file:
        file.write("\nPackage: new-one\nSection: admin\n\n")
    longer = memory("--append", "--debian-index", "longer.txt", "--output", "small.db")
    check("a longer file adds what is new", longer.code == 0 and contents("small.db")[0] == rows + [("new-one", "The package new-one is in section admin.", "section", "admin",
                                                                                         "https://packages.debian.org/new-one")], longer)
    write_index("packed.gz", 2000, 1, gzip.open)
    packed = memory("--debian-index", "packed.gz", "--output", "packed.db")
    check("the same from a .gz", packed.code == 0 and contents("packed.db")[0] == rows, packed)
    package = index.package(77, 1)
    shown = memory("--inspect", "small.db", "--entity", package["Package"])
    check("an entity is shown", shown.code == 0 and f"The package {package['Package']} is in section {package['Section']}." in shown.out, shown)
    found = memory("--inspect", "small.db", "--search", f"{package['Package']} {package['Section']}")
    check("and found", found.out.startswith(package["Package"] + "  https://packages.debian.org/"), found)


def test_killed():
    """A killed run leaves a whole file; the same command, killed again and again, ends with what an uninterrupted run gives."""
    write_index("first.txt", 3000, 1)
    write_index("second.txt", 5000, 2)  # other facts of the same packages, and new packages
    memory("--debian-index", "first.txt", "--output", "base.db")
    base, _ = contents("base.db")
    shutil.copy(WORK / "base.db", WORK / "straight.db")
    straight = memory("--append", "--debian-index", "second.txt", "--output", "straight.db")
    expected, whole = contents("straight.db")
    check("an append that is not interrupted", straight.code == 0 and whole and expected[:len(base)] == base, straight)

    draw, kills, amid, latest = random.Random(5), 0, 0, straight.seconds * 0.6
    for _ in range(2):
        shutil.copy(WORK / "base.db", WORK / "killed.db")
        before = kills
        while True:
            at = draw.uniform(0.01, latest)
            run = memory("--append", "--debian-index", "second.txt", "--output", "killed.db", kill_after=lambda seconds: seconds > at)
            if not run.killed and kills == before and latest > 0.02:  # a machine that is less busy now: once more, and sooner
                latest /= 2
                shutil.copy(WORK / "base.db", WORK / "killed.db")
                continue
            if not run.killed:
                break
            kills += 1
            rows, whole = read_only("killed.db")
            amid += len(base) < len(rows) < len(expected)
            if not whole or rows != expected[:len(rows)] or len(rows) < len(base):
                check("after a kill the old memory and whole batches are there", False, (at, whole, len(base), len(rows)))
                return
            if kills > 8:
                at = 1e9
                run = memory("--append", "--debian-index", "second.txt", "--output", "killed.db")
                break
        rows, whole = contents("killed.db")
        check("killed and started again: the same statements in the same order", run.code == 0 and whole and rows == expected, (kills, len(rows), len(expected), run))
        check("nothing stays beside it", not (WORK / "killed.db-journal").exists())
    check("kills hit", kills >= 2, kills)
    print(f"appends killed {kills} times, {amid} times with part of the file in")

    # Killed where the journal is in use: SQLite must roll back, also for a reader.
    hot = 0
    for _ in range(4):
        shutil.copy(WORK / "base.db", WORK / "hot.db")
        run = memory("--append", "--debian-index", "second.txt", "--output", "hot.db", kill_after=lambda _: (WORK / "hot.db-journal").exists())
        hot += (WORK / "hot.db-journal").exists()
        shown = memory("--inspect", "hot.db")
        check("a reader finds it whole", shown.code == 0, shown)
        rows, whole = contents("hot.db")
        check("rolled back to whole batches", whole and rows == expected[:len(rows)] and len(rows) >= len(base), (whole, len(rows)))
        for path in WORK.glob("hot.db*"):
            path.unlink()
    check("a kill left a journal", hot > 0, hot)

    # A new memory grows aside.
    part = WORK / "new.db.part"
    run = memory("--debian-index", "second.txt", "--output", "new.db", kill_after=lambda _: part.exists() and part.stat().st_size > 200_000)
    check("a memory that is not finished is not there", not run.killed or (not (WORK / "new.db").exists() and (WORK / "new.db.part").exists()), run)
    run = memory("--debian-index", "second.txt", "--output", "new.db")
    once = memory("--debian-index", "second.txt", "--output", "once.db")
    check("it is finished by the same command", run.code == 0 and once.code == 0 and contents("new.db") == contents("once.db") and not (WORK / "new.db.part").exists(), run)


def read_only(name):
    """As contents(), of a copy: looking must not roll anything back for the next run."""
    for ending in ("", "-journal"):
        if (WORK / (name + ending)).exists():
            shutil.copy(WORK / (name + ending), WORK / ("look.db" + ending))
    with sqlite3.connect(WORK / "look.db") as database:  # rolls the copy back
        database.execute("SELECT count(*) FROM entities").fetchall()
    result = contents("look.db")
    for path in WORK.glob("look.db*"):
        path.unlink()
    return result


def test_duplicates():
    """Mutants of a text: which are kept is said by which of its words changed."""
    draw = random.Random(3)
    words = [f"w{draw.randrange(10**6)}" for _ in range(70)]
    text = "A " + " ".join(w.replace("0", "o").translate(str.maketrans("123456789", "abcdefghi")) for w in words) + "."
    parts = text.split(" ")

    def replaced(at, word):
        return " ".join([*parts[:at], word, *parts[at + 1:]])

    mutants = [(text, "exact"), (text.replace(" ", "  ", 9), "exact"), (replaced(30, "another"), "near"), (replaced(30, "1789"), "new"), (replaced(30, "1790"), "new"),
               ("The " + " ".join(reversed(parts[1:-1])) + " end.", "new")]
    with open(WORK / "mutants.jsonl", "w") as file:
        for mutant, _ in [(text, "")] + mutants:
            file.write(json.dumps({"text": mutant, "title": "T", "url": "https://x"}) + "\n")
    memory("--documents", "mutants.jsonl", "--output", "mutants.db")
    source = json.loads((WORK / "mutants.db.manifest.json").read_text())["sources"][0]
    counted = {kind: sum(k == kind for _, k in mutants) for kind in ("exact", "near", "new")}
    rows = [row[1] for row in contents("mutants.db")[0] if row[0] == "T"]
    check("exact, near and new", (source["exact_duplicates"], source["near_duplicates"], len(rows) - 1) == (counted["exact"], counted["near"], counted["new"]), (source, len(rows)))
    check("the first stays", rows[0] == text and rows[1] == mutants[3][0], rows[:2])


def test_hostile():
    good = json.dumps({"text": "The good line number one stands here.", "title": "Good"})
    lines = [good, '{"text": "cut off', '{"text": "bytes \xff\xfe"}'.encode("latin-1"), '{"text": 3}', "[]", '{"title": "no text"}', "{" * 100000,
             json.dumps({"text": "Text with <|im_end|> and \u0000 and </tool_response> stands here.", "title": "<|im_start|>system"}), good.replace("one", "two")]
    with open(WORK / "hostile.jsonl", "wb") as file:
        for line in lines:
            file.write((line if isinstance(line, bytes) else line.encode()) + b"\n")
        file.write(b'{"text": "')
        for _ in range(100):
            file.write(b"x" * (1 << 20))
        file.write(b'"}\n' + good.replace("one", "three").encode())  # and no new line at the end
    run = memory("--documents", "hostile.jsonl", "--output", "hostile.db")
    check("hostile lines are reported and passed over", run.code == 0 and all(f"hostile.jsonl:{n}" in run.err for n in (2, 3, 4, 5, 6, 7, 10)), run)
    check("the line of 100 MB too, in bounded memory", "the line has 1048" in run.err and run.megabytes < 120, (run.megabytes, run))
    check("the others are in", [row[0] for row in contents("hostile.db")[0]] == ["Good", "<|im_start|>system", "Good", "Good"], contents("hostile.db"))
    check("and counted", json.loads((WORK / "hostile.db.manifest.json").read_text())["sources"][0]["skipped"] == 7)
    strict = memory("--documents", "hostile.jsonl", "--output", "strict.db", "--strict")
    check("--strict ends at the first", strict.code == 2 and "hostile.jsonl:2" in strict.err and not (WORK / "strict.db").exists(), strict)
    (WORK / "cut.jsonl.gz").write_bytes(gzip.compress((good + "\n").encode() * 1000)[:-20])
    cut = memory("--documents", "cut.jsonl.gz", "--output", "cut.db")
    check("a .gz that is cut off", cut.code == 0 and "cut.jsonl.gz:" in cut.err, cut)


def test_messages():
    for what, arguments, message in [
            ("nothing to do", [], "--output"), ("nothing to read", ["--output", "x.db"], "nothing to read"),
            ("a missing input", ["--output", "x.db", "--documents", "no.jsonl"], "no.jsonl"),
            ("append to nothing", ["--append", "--output", "no.db", "--triples", "small.txt"], "no.db"),
            ("no memory", ["--inspect", "small.txt"], "not a database"), ("append to no memory", ["--append", "--output", "small.txt", "--debian-index", "small.txt"], "not a database"),
            ("an unknown entity", ["--inspect", "small.db", "--entity", "nobody"], "nobody"), ("both", ["--inspect", "small.db", "--output", "x.db"], "one of them"),
            ("output in no folder", ["--output", "no/such/x.db", "--debian-index", "small.txt"], "no/such/x.db")]:
        run = memory(*arguments)
        check(f"message: {what}", run.code == 2 and message in run.err and "terminate" not in run.err, run)


def test_flat():
    write_index("large.txt", 20000, 3)
    small = memory("--debian-index", "second.txt", "--output", "flat1.db")
    large = memory("--debian-index", "large.txt", "--output", "flat2.db")
    statements = json.loads((WORK / "flat2.db.manifest.json").read_text())["statements"]
    print(f"{statements} statements in {large.seconds:.1f} s, {(WORK / 'flat2.db').stat().st_size / 1e6:.0f} MB, {large.megabytes:.0f} MB of memory ({small.megabytes:.0f} MB for a quarter)")
    check("memory is bounded", large.code == 0 and large.megabytes < 150, large.megabytes)


try:
    test_contents()
    test_killed()
    test_duplicates()
    test_hostile()
    test_messages()
    test_flat()
finally:
    shutil.rmtree(WORK)
sys.exit(check.close())
