#!/usr/bin/env python3
"""Plots the diversity per layer that examples/feature_collapse writes as its second argument.

    python examples/feature_collapse.py diversity.csv diversity.svg
"""
import csv
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: feature_collapse.py DIVERSITY.csv PLOT.svg|.png")
    with open(sys.argv[1], newline="") as file:
        header, *rows = csv.reader(file)
    layers = [int(row[0]) for row in rows]
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for column, name in enumerate(header[1:], start=1):
        axes.plot(layers, [float(row[column]) for row in rows], marker=".", label=name)
    axes.set(xlabel="layer", ylabel="relative diversity $d_M(Z) / |Z|_F$", yscale="log", title="Feature collapse")
    axes.grid(True, which="both", alpha=0.3)
    axes.legend()
    figure.savefig(sys.argv[2], dpi=120)


if __name__ == "__main__":
    main()
