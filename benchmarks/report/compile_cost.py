#!/usr/bin/env python3
"""What it costs to include each public header, beside <Eigen/Core> and <xsimd/xsimd.hpp>.

    compile_cost.py --include DIRECTORY... [--compiler g++] [--out compile_cost.json] [HEADER...]

HEADER is relative to an include directory, as in deft/activation/series_activation.hpp; by default all of deft's own
but those in kernels, reference and simd. Writes JSON, which report.py --compile-cost shows: the median of three
runs of -fsyntax-only, and the lines that the preprocessor leaves.
"""
import argparse
import json
import os
import subprocess
import sys
from statistics import median
from time import perf_counter

FLAGS = ["-std=c++20", "-O0", "-fopenmp", "-x", "c++"]  # parallel_openmp.hpp asks for OpenMP
YARDSTICKS = ["Eigen/Core", "xsimd/xsimd.hpp"]
INTERNAL = {"kernels", "reference", "simd"}


def public_headers(directories):
    found = []
    for directory in directories:
        for folder, _, files in os.walk(os.path.join(directory, "deft")):
            path = os.path.relpath(folder, directory)
            if not INTERNAL & set(path.split(os.sep)):
                found += [f"{path}/{name}".replace(os.sep, "/") for name in files if name.endswith(".hpp")]
    return sorted(found)


def measure(header, command):
    source = f"#include <{header}>\n"

    def run(flag):
        start = perf_counter()
        output = subprocess.run([*command, flag, "-"], input=source, text=True, capture_output=True, check=True).stdout
        return perf_counter() - start, output

    lines = sum(1 for line in run("-E")[1].splitlines() if line.strip() and not line.startswith("#"))
    return {"header": header, "seconds": median(run("-fsyntax-only")[0] for _ in range(3)), "lines": lines}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("headers", nargs="*", metavar="HEADER")
    parser.add_argument("--include", nargs="+", required=True, metavar="DIRECTORY")
    parser.add_argument("--compiler", default="g++")
    parser.add_argument("--out", default="compile_cost.json", metavar="FILE.json")
    arguments = parser.parse_args()
    command = [arguments.compiler, *FLAGS, *(f"-I{directory}" for directory in arguments.include)]
    headers = YARDSTICKS + (arguments.headers or public_headers(arguments.include))
    measured = []
    for i, header in enumerate(headers):
        print(f"{i + 1}/{len(headers)} {header}", file=sys.stderr)
        try:
            measured.append(measure(header, command))
        except subprocess.CalledProcessError as failure:
            print(f"ERROR {header} does not compile:\n{failure.stderr}", file=sys.stderr)
            return 1
    version = subprocess.run([arguments.compiler, "--version"], text=True, capture_output=True, check=True).stdout
    with open(arguments.out, "w", encoding="utf-8") as file:
        json.dump({"compiler": version.splitlines()[0], "flags": " ".join(FLAGS), "headers": measured}, file, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
