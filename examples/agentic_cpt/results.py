#!/usr/bin/env python3
"""Tables of af_eval's results side by side: results.py UNTRAINED.json STAGE1.json ...   Fails where the decisions of any but the first, by the
options' words, are not three standard errors above chance and above the first."""
import json
import math
import pathlib
import sys

DECISION = "option by its words, good trajectories, per byte"  # of failed ones a step that was taken may be a wrong one


def main():
    tables = {pathlib.Path(name).stem: json.load(open(name)) for name in sys.argv[1:]}
    first, *trained = tables
    groups = [group for group, row in tables[first]["groups"].items() if row["count"] >= 50 and "is right" not in group and ("trajectories" not in group or group == DECISION) and "wording" not in group]
    print(f"{'right, %':<46}{'choices':>8}{'chance':>8}" + "".join(f"{name:>18}" for name in tables))
    for group in groups:
        cells = [table["groups"].get(group) for table in tables.values()]
        line = "".join(f"{100 * c['accuracy']:>11.1f} +- {100 * c['standard_error']:>3.1f}" if c else f"{'-':>18}" for c in cells)
        print(f"{group:<46}{cells[0]['count']:>8}{100 * cells[0]['chance']:>8.1f}{line}")
    failed = False
    for name in trained:
        before, after = tables[first]["groups"][DECISION], tables[name]["groups"][DECISION]
        above = (after["accuracy"] - before["accuracy"]) / math.hypot(after["standard_error"], before["standard_error"])
        print(f"{name}: decisions by the options' words are {after['above_chance']:.1f} standard errors above chance, {above:.1f} above {first}")
        failed = failed or after["above_chance"] < 3 or above < 3
    if failed:
        sys.exit("the decisions are not three standard errors above chance and above the untrained model")


if __name__ == "__main__":
    main()
