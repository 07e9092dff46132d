#!/usr/bin/env python3
"""Writes the handwritten digits that scikit-learn ships (UCI, 1797 images of 8 x 8) as .safetensors, for prune_digits.

    pip download --no-deps --dest build scikit-learn
    python3 examples/prune_digits.py build/scikit_learn-*.whl build/digits.safetensors

The wheel is read as the archive that it is: nothing has to be installed.
"""
import gzip
import json
import struct
import sys
import zipfile


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: prune_digits.py scikit_learn-VERSION.whl DIGITS.safetensors")
    with zipfile.ZipFile(sys.argv[1]) as wheel:
        text = gzip.decompress(wheel.read("sklearn/datasets/data/digits.csv.gz")).decode()
    rows = [[int(float(cell)) for cell in line.split(",")] for line in text.splitlines()]
    if len(rows) != 1797 or any(len(row) != 65 for row in rows):
        sys.exit(f"{sys.argv[1]}: digits.csv.gz is not 1797 rows of 64 pixels and a label")
    images = bytes(pixel for row in rows for pixel in row[:64])
    labels = bytes(row[64] for row in rows)
    header = {"__metadata__": {"source": "scikit-learn digits (UCI optical recognition of handwritten digits)"},
              "images": {"dtype": "U8", "shape": [1797, 64], "data_offsets": [0, len(images)]},
              "labels": {"dtype": "U8", "shape": [1797], "data_offsets": [len(images), len(images) + len(labels)]}}
    encoded = json.dumps(header).encode()
    with open(sys.argv[2], "wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded + images + labels)


if __name__ == "__main__":
    main()
