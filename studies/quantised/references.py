"""The weights that the codes of a release stand for, by another route than the one that opens it.

By the format's own library on the weights themselves, by transformers' loader, or element by element.
"""

import importlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from studies.quantised.releases import Tensors, linear, quantised_groups


def opened(folder: Path, **settings: Any) -> Tensors:
    """The weights as transformers opens them, whatever class they are there."""
    model = AutoModelForCausalLM.from_pretrained(folder, device_map="cpu", dtype=torch.float32, **settings)
    return {name: parameter.dequantize() if "torchao" in str(type(parameter)) else parameter.detach()
            for name, parameter in model.state_dict().items()}  # fmt: skip


def _bits_and_bytes(name: str, original: Tensors) -> Tensors:
    """By the library's quantiser and back, of the weights themselves."""
    functional = importlib.import_module("bitsandbytes.functional")
    if "8-bit" in name:
        pairs = {n: functional.int8_vectorwise_quant(w.half())[:2] for n, w in original.items()}
        return {n: codes.float() * scale.unsqueeze(1) / 127 for n, (codes, scale) in pairs.items()}
    kind, double = ("fp4" if "FP4" in name else "nf4"), "double" in name
    pairs = {
        n: functional.quantize_4bit(w.flatten(), quant_type=kind, compress_statistics=double)
        for n, w in original.items()
    }
    # one row of blocks: of a matrix the CPU kernel reads scales wrongly where rows are not whole blocks
    return {n: functional.dequantize_4bit(*pair).view_as(original[n]) for n, pair in pairs.items()}


def _compressed(folder: Path) -> Tensors:
    from transformers import CompressedTensorsConfig

    stated = json.loads((folder / "config.json").read_text())["quantization_config"]
    settings = CompressedTensorsConfig(**{k: v for k, v in stated.items() if k != "quant_method"}, dequantize=True)
    return opened(folder, quantization_config=settings)


def _grouped(name: str, original: Tensors) -> Tensors:
    """What the packer of the test packed: codes less zeros times scales."""
    bits = int(name.split()[1]) if name.startswith("gptq") else 4
    collected: Tensors = {}
    for n, w in original.items():
        order = torch.arange(w.shape[1])
        if "ordered" in name:
            order = torch.randperm(w.shape[1], generator=torch.Generator().manual_seed(len(n.removesuffix(".weight"))))
        codes, scales, zeros = quantised_groups(w[:, order], bits, 32)
        values = (codes.unflatten(0, (-1, 32)) - zeros.unsqueeze(1)) * scales.unsqueeze(1)
        collected[n] = torch.empty_like(w).index_copy_(1, order, values.flatten(0, 1).T)
    return collected


def reference(name: str, plain: Path, folder: Path) -> Tensors:
    """The matrices of blocks that the codes of the release in ``folder``, made of the model in ``plain``, stand for."""
    source = load_file(plain / "model.safetensors")
    original = {n: source[n] for n in linear(source)}
    if name.startswith("bitsandbytes"):
        return _bits_and_bytes(name, original)
    if name.startswith("compressed"):
        return _compressed(folder)
    if name.startswith(("gptq", "awq")):
        return _grouped(name, original)
    if name.startswith("gguf"):
        file = next(folder.glob("*.gguf"))
        model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file.name, dtype=torch.float32)
        return dict(model.state_dict())
    if name == "fp8 tensor":
        stored = load_file(folder / "model.safetensors")
        return {n: stored[n].double().mul(stored[f"{n}_scale_inv"].double()).float() for n in original}
    if name == "fp8 tiles":
        return _tiled(load_file(folder / "model.safetensors"), original, (24, 40))
    if name == "hqq":
        return _by_hqq(original)
    return opened(folder)


def _tiled(stored: Tensors, original: Tensors, tile: tuple[int, int]) -> Tensors:
    """Element by element: the scale of the tile that it lies in."""
    collected: Tensors = {}
    for n, w in original.items():
        rows = torch.arange(w.shape[0]).unsqueeze(1) // tile[0]
        columns = torch.arange(w.shape[1]).unsqueeze(0) // tile[1]
        collected[n] = stored[n].float() * stored[f"{n}_scale_inv"][rows, columns]
    return collected


def _by_hqq(original: Tensors) -> Tensors:
    quantize = importlib.import_module("hqq.core.quantize")
    collected: Tensors = {}
    for n, w in original.items():
        layer = torch.nn.Linear(w.shape[1], w.shape[0], bias=False)
        layer.weight.data = w.clone()
        settings = quantize.BaseQuantizeConfig(nbits=4, group_size=32)
        collected[n] = quantize.HQQLinear(layer, settings, compute_dtype=torch.float32, device="cpu").dequantize()
    return collected
