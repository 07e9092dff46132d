#!/usr/bin/env python3
"""Fails on an include that points against the arrows of the library, and on an operator that deft.hpp forgets.

    config, view, activation_kind -> simd -> kernels -> linalg -> operators;  reference sees only the first

Usage: arrows.py INCLUDE_DIRECTORY     (the one that contains deft/)
"""
import pathlib
import re
import sys

BASE = {"config.hpp", "view.hpp", "activation_kind.hpp"}
# Room of a header: the rooms it may include from (besides itself), and the other libraries it may include.
ROOMS = {
    "base": (set(), ()),
    "parallel": ({"base"}, ("omp.h",)),
    "linalg": ({"base", "parallel", "simd", "kernels"}, ("Eigen/", "cblas.h")),
    "simd": ({"base"}, ("xsimd/", "immintrin.h")),
    "kernels": ({"base", "simd"}, ()),
    "reference": ({"base"}, ()),
    "operators": ({"base", "parallel", "linalg", "simd", "kernels"}, ()),
    "deft": ({"base", "parallel", "linalg", "simd", "kernels", "operators"}, ()),
}


def room(header: str) -> str:
    """The room of a header, given relative to deft/."""
    first = header.split("/")[0]
    if "/" in header:
        return first if first in ROOMS else "operators"
    if header in BASE:
        return "base"
    return first.removesuffix(".hpp").split("_")[0]


def reachable(header: str, includes: dict[str, list[str]]) -> set[str]:
    """What a header includes, directly or not, and itself."""
    found, waiting = set(), {header}
    while waiting:
        found.add(current := waiting.pop())
        waiting |= {spelled[6:-1] for spelled in includes.get(current, ()) if spelled.startswith("<deft/")} - found
    return found


def complaints(deft: pathlib.Path):
    headers = sorted(str(path.relative_to(deft)) for path in deft.rglob("*.hpp"))
    includes = {}
    for header in headers:
        text = (deft / header).read_text(encoding="utf-8")
        includes[header] = re.findall(r'^[ \t]*#[ \t]*include[ \t]*([<"].*?[>"])', text, re.MULTILINE)
    for header in headers:
        if room(header) not in ROOMS:
            yield f"{header}: in no known room"
            continue
        rooms, libraries = ROOMS[room(header)]
        for spelled in includes[header]:
            target = spelled[1:-1]
            if spelled[0] != "<":
                yield f"{header}: write {spelled} with its full path in < >"
            elif target.startswith("deft/"):
                target_room = room(target.removeprefix("deft/"))
                if target_room != room(header) and target_room not in rooms:
                    yield f"{header} ({room(header)}) must not see {target} ({target_room})"
            elif re.search(r"[/.]", target) and not target.startswith(libraries):
                yield f"{header} ({room(header)}) must not see {target}"
    brought = reachable("deft.hpp", includes)
    for header in headers:
        if room(header) != "reference" and header not in brought:
            yield f"deft.hpp does not bring {header}"


found = list(complaints(pathlib.Path(sys.argv[1]) / "deft"))
print("\n".join(found) or "all includes follow the arrows")
sys.exit(1 if found else 0)
