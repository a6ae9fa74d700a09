#!/usr/bin/env python3
"""A Debian-like package index of any size, from a seed alone: for tests of the memory and of what is made from it.

usage: index.py PACKAGES [SEED] > index.txt

Packages depend on earlier ones (a few on very many), have a section, a maintainer, tags and a description, as a real index
does in about these shares. The same arguments give the same bytes."""
import random
import sys

SECTIONS = "admin comm database devel doc editors electronics games gnome graphics hamradio interpreters kde libs mail math misc net news perl python science sound tex text utils video web x11".split()
FIRST = "Ada Bela Cleo Dora Egon Fritz Greta Hana Igor Jana Karl Lena Milan Nora Otto Petra Quirin Rosa Sven Tilda Udo Vera Wim Xenia Yann Zoe".split()
LAST = "Abel Brandt Conti Duval Ek Fiala Gruber Horvat Ito Jensen Kovac Lind Moreau Novak Olsen Peters Quist Rossi Silva Toth Urban Vogel Weber Young Zeman".split()
THINGS = "archive backup calendar compiler database debugger editor filter font game index keyboard library mailer monitor network parser player printer scanner server shell sound spreadsheet terminal theme toolkit translator viewer window".split()
KINDS = "small fast portable graphical simple modern flexible distributed interactive secure lightweight extensible".split()
TAGS = {"role": "program shared-lib devel-lib plugin documentation app-data".split(), "implemented-in": "c c++ python perl java ruby rust".split(),
        "interface": "commandline daemon graphical text-mode web x11".split(), "use": "analysing browsing checking configuring converting editing monitoring playing storing viewing".split()}


def name_of(number):
    """Different for every number, and looks like a package's."""
    thing = THINGS[number % len(THINGS)]
    syllables, rest = "", number // len(THINGS) + 7
    while rest:
        syllables += "bcdfghklmnprstvz"[rest % 16] + "aeiou"[rest // 16 % 5]
        rest //= 80
    return ("lib" if number % 3 == 0 else "") + syllables + ("-" + thing if number % 3 else str(number % len(THINGS)))


def package(number, seed):
    """The fields of one package, in their order."""
    draw = random.Random(seed * 1_000_003 + number)
    name = name_of(number)
    fields = {"Package": name, "Version": f"{draw.randint(0, 9)}.{draw.randint(0, 30)}-{draw.randint(1, 5)}", "Installed-Size": str(draw.randint(10, 30000))}
    person = f"{draw.choice(FIRST)} {draw.choice(LAST)}"
    fields["Maintainer"] = f"{person} <{person.split()[0].lower()}@example.org>"
    fields["Architecture"] = "amd64"
    depends = []
    for _ in range(draw.randint(0, 6)):
        # small numbers are asked for far more often, as a C library is
        other = int(number * draw.random() ** 4)
        if other != number:
            depends.append(name_of(other) + draw.choice(["", "", " (>= 1.2)", " [amd64]"]))
    if draw.random() < 0.1 and number > 10:
        depends.append(f"{name_of(number // 2)} | {name_of(number // 3)}")
    if depends:
        fields["Depends"] = ", ".join(depends)
    if draw.random() < 0.2 and number > 5:
        fields["Suggests"] = name_of(draw.randrange(number))
    thing, kind = draw.choice(THINGS), draw.choice(KINDS)
    fields["Description"] = f"{kind} {thing}"
    if draw.random() < 0.5:
        fields["Description"] += f"\n This is a {kind} {thing} for the {draw.choice(THINGS)}.\n .\n It also works as a {draw.choice(THINGS)}."
    fields["Homepage"] = f"https://example.org/{name}"
    tags = [f"{facet}::{draw.choice(values)}" for facet, values in TAGS.items() if draw.random() < 0.45]
    if tags:
        fields["Tag"] = ", ".join(tags)
    fields["Section"] = draw.choice(SECTIONS)
    return fields


def text_of(fields):
    return "".join(f"{field}: {value}\n" for field, value in fields.items()) + "\n"


def main():
    count, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1
    for number in range(count):
        sys.stdout.write(text_of(package(number, seed)))


if __name__ == "__main__":
    main()
