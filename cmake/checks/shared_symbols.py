#!/usr/bin/env python3
"""Fails if two objects, built for different instruction sets, define the same function of deft.

Usage: shared_symbols.py NM OBJECT OBJECT
"""
import re
import subprocess
import sys


def weak_symbols(nm: str, path: str) -> set[str]:
    """Mangled names in namespace deft that the linker would merge with those of another object."""
    lines = subprocess.run([nm, "--defined-only", path], check=True, capture_output=True, text=True).stdout.splitlines()
    symbols = (line.split()[-2:] for line in lines)
    return {name for kind, name in symbols if kind in "WVu" and re.match(r"_Z(T[VTISA]|GV|GR)?N?[KVrRO]*4deft", name)}


nm, first, second = sys.argv[1:]
counts = [weak_symbols(nm, first), weak_symbols(nm, second)]
shared = sorted(counts[0] & counts[1])
print(f"weak symbols of deft: {len(counts[0])} and {len(counts[1])}, shared {len(shared)}", *shared, sep="\n  ")
sys.exit(1 if shared or not all(counts) else 0)
