#!/usr/bin/env python3
"""Row kernels move memory 16 bytes at a time. Reads PTX files; each kernel made by core/kernel.h for float or bf16 rows must
load and store with vector instructions of 16 bytes, and must not store a pack that the compiler split into single numbers.
usage: ptx_lint.py FILE.ptx...   |   ptx_lint.py --self-test"""
import re
import subprocess
import sys

WIDE = re.compile(r"\.(v4\.[a-z]?(f32|[bus]32)|v2\.[a-z]?(f64|[bus]64))$")
ACCESS = re.compile(r"^\s*(?:@!?%p\d+\s+)?(ld|st)((?:\.\w+)*\.global(?:\.\w+)*)\s+(.*);")
ADDRESS = re.compile(r"\[(%rd\d+)(?:\+(-?\d+))?\]")
BRANCH = re.compile(r"^\s*(?:@!?%p\d+\s+)?(bra|ret|bar|call)\b|^\s*\$?[\w$]+:")
NO_LOADS = ("Fill", "FillNormal")           # rows are only written
NO_STORES = ("PartialSum", "Share")          # rows are only read
SPLIT = 4                                   # so many neighbours one by one in a basic block are a pack in pieces


def demangle(names):
    out = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout.split("\n")
    return {m: re.sub(r"\(anonymous namespace\)::|af::|cuda::", "", d).split("(")[0].removeprefix("void ") for m, d in zip(names, out)}


def kernels(text):
    """{mangled name: lines of the body}"""
    found, body = {}, None
    for line in text.split("\n"):
        entry = re.search(r"\.entry\s+(\w+)", line)
        if entry:
            body = found.setdefault(entry[1], [])
        elif body is not None:
            body.append(line)
    return found


def split_packs(body):
    """Runs of neighbouring stores of 2 or 4 bytes through one register within one basic block."""
    bad, block = [], {}

    def close():
        for (base, size), offsets in block.items():
            have = set(offsets)
            if any(all(start + i * size in have for i in range(SPLIT)) for start in have):
                bad.append(f"stores of {size} bytes one by one through {base}")
        block.clear()

    for line in body:
        if BRANCH.match(line):
            close()
            continue
        access = ACCESS.match(line)
        if access and access[1] == "st" and ".v2" not in access[2] and ".v4" not in access[2]:
            address = ADDRESS.search(access[3])
            bits = re.search(r"(16|32)$", access[2])
            if address and bits:
                block.setdefault((address[1], int(bits[1]) // 8), []).append(int(address[2] or 0))
    close()
    return bad


def lint(text):
    """(number of row kernels, problems)"""
    found = kernels(text)
    names, problems, checked = demangle(list(found)), [], 0
    for mangled, body in found.items():
        name = names[mangled]
        row = re.match(r"row_kernel<\d+, (\w+)<.*(float|bf16)", name)
        if not row:
            continue
        checked += 1
        wide = {kind: any((a := ACCESS.match(line)) and a[1] == kind and WIDE.search(a[2]) for line in body) for kind in ("ld", "st")}
        if not wide["ld"] and row[1] not in NO_LOADS:
            problems.append(f"{name}: no load of 16 bytes")
        if not wide["st"] and row[1] not in NO_STORES:
            problems.append(f"{name}: no store of 16 bytes")
        problems += [f"{name}: {pack}" for pack in split_packs(body)]
    return checked, problems


def self_test():
    name = "_ZN2af4cuda10row_kernelILi32ENS_12_GLOBAL__N_15ScaleIfEEEEvlT0_"
    good = f".entry {name}(\nld.global.v4.f32 {{%f1, %f2, %f3, %f4}}, [%rd1];\nst.global.v4.f32 [%rd2], {{%f1, %f2, %f3, %f4}};\n"
    split = "".join(f"st.global.f32 [%rd2+{4 * i}], %f{i};\n" for i in range(4))
    cases = {
        good: 0,
        good.replace("st.global.v4.f32", "st.global.f32"): 1,
        good.replace("ld.global.v4.f32", "ld.global.nc.v2.f32"): 1,
        good + split: 1,
        good + split.replace("st", "$L1:\nst"): 0,  # a tail: one number per turn
    }
    wrong = [text for text, expected in cases.items() if len(lint(text)[1]) != expected or lint(text)[0] != 1]
    print("\n".join(wrong) or "the PTX lint finds its mutants")
    return 1 if wrong else 0


def main(arguments):
    if arguments == ["--self-test"]:
        return self_test()
    checked, problems = 0, []
    for path in arguments:
        with open(path) as f:
            n, found = lint(f.read())
        checked += n
        problems += found
    print("\n".join(problems) if problems else f"{checked} row kernels move 16 bytes at a time")
    return 1 if problems or not checked else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
