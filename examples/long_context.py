"""Plots the times that long_context wrote: linear against softmax attention over the number of tokens."""
import csv
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit("usage: long_context.py TIMES.csv PLOT.png")
    with open(sys.argv[1], newline="") as file:
        rows = list(csv.DictReader(file))
    tokens = [int(row["tokens"]) for row in rows]
    linear = [float(row["linear_ms"]) for row in rows]
    softmax = [float(row["softmax_ms"]) for row in rows]
    figure, axes = plt.subplots(figsize=(6, 4))
    axes.loglog(tokens, linear, "o-", label="linear_attention")
    axes.loglog(tokens, softmax, "s-", label="softmax_attention")
    crossover = next((n for n, a, b in zip(tokens, linear, softmax) if b > a), None)
    if crossover is not None:
        axes.axvline(crossover, color="grey", linestyle=":", label=f"linear is faster from {crossover}")
    axes.set(xlabel="tokens", ylabel="ms", title="8 heads of 64, float, one thread")
    axes.grid(True, which="both", alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(sys.argv[2], dpi=120)


if __name__ == "__main__":
    main()
