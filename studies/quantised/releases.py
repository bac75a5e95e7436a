"""Releases of a plain folder in each format, in codes.

A format's own library makes them where it packs on a CPU, a packer written from its specification where it does not.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

Tensors = dict[str, torch.Tensor]


def edit_config(out: Path, **fields: object) -> None:
    """Change entries of a folder's config.json; None takes one out."""
    path = out / "config.json"
    settings = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({key: value for key, value in settings.items() if value is not None}))


def _by_transformers(quantised_by: Callable[[], Any]) -> Callable[[Path, Path], None]:
    """A release that transformers quantises on the way in and saves."""

    def make(source: Path, out: Path) -> None:
        model = AutoModelForCausalLM.from_pretrained(
            source, quantization_config=quantised_by(), device_map="cpu", dtype=torch.float32
        )
        model.save_pretrained(out)

    return make


def bits_and_bytes(**settings: Any) -> Callable[[Path, Path], None]:
    """A release by bitsandbytes with these settings."""

    def built() -> Any:
        from transformers import BitsAndBytesConfig

        return BitsAndBytesConfig(**settings)

    return _by_transformers(built)


def _torchao(name: str, **settings: Any) -> Callable[[Path, Path], None]:
    def built() -> Any:
        from torchao import quantization
        from transformers import TorchAoConfig

        return TorchAoConfig(getattr(quantization, name)(**settings))

    return _by_transformers(built)


def linear(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """The names of the matrices of a decoder's blocks."""
    return [name for name, tensor in tensors.items() if ".layers." in name and tensor.ndim == 2]


def _rewritten(
    source: Path, out: Path, settings: Mapping[str, Any], parts: Callable[[str, torch.Tensor], Tensors]
) -> None:
    """A release whose linear layers are stored as ``parts`` of each, and whose config states ``settings``."""
    shutil.copytree(source, out)
    tensors = load_file(source / "model.safetensors")
    packed = {name: parts(name.removesuffix(".weight"), tensors[name]) for name in linear(tensors)}
    rest = {name: tensor for name, tensor in tensors.items() if name not in packed}
    save_file(
        rest | {n: t.contiguous() for built in packed.values() for n, t in built.items()}, out / "model.safetensors"
    )
    edit_config(out, quantization_config=dict(settings))


def _compressed_tensors(preset: str) -> Callable[[Path, Path], None]:
    def make(source: Path, out: Path) -> None:
        from compressed_tensors.compressors import ModelCompressor
        from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config, preset_name_to_scheme
        from compressed_tensors.quantization.utils import calculate_qparams

        model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
        scheme = preset_name_to_scheme(preset, ["Linear"])
        if scheme.weights.group_size:
            scheme.weights.group_size = 32
        settings = QuantizationConfig(config_groups={"group_0": scheme}, ignore=["lm_head"])
        apply_quantization_config(model, settings)
        for module in model.modules():
            if getattr(module, "quantization_scheme", None) is not None:
                weight, args = module.weight.data, module.quantization_scheme.weights
                groups = weight.unflatten(1, (-1, args.group_size)) if args.group_size else weight.unsqueeze(1)
                low, high = groups.amin(-1), groups.amax(-1)
                if str(args.strategy) == "tensor":
                    low, high = low.amin().reshape(1), high.amax().reshape(1)
                scale, zero = calculate_qparams(low, high, args)
                module.weight_scale.data.copy_(scale.reshape(module.weight_scale.shape))
                if hasattr(module, "weight_zero_point"):
                    module.weight_zero_point.data.copy_(zero.reshape(module.weight_zero_point.shape))
        compressor = ModelCompressor.from_pretrained_model(model)
        compressor.compress_model(model)
        model.save_pretrained(out)
        compressor.update_config(out)

    return make


def _hqq(source: Path, out: Path) -> None:
    """Each layer by hqq's own linear module; a model of them cannot be saved by transformers 5.23.0 on a CPU."""
    from hqq.core.quantize import BaseQuantizeConfig, HQQLinear

    settings = BaseQuantizeConfig(nbits=4, group_size=32)

    def parts(stem: str, weight: torch.Tensor) -> Tensors:
        layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        layer.weight.data = weight.clone()
        built = HQQLinear(layer, settings, compute_dtype=torch.float32, device="cpu")
        return {f"{stem}.{name}": tensor for name, tensor in built.state_dict().items()}

    plain = {key: value for key, value in settings.items() if isinstance(value, dict)}
    _rewritten(source, out, {"quant_method": "hqq", "quant_config": plain, "skip_modules": ["lm_head"]}, parts)


def _fp8(tile: tuple[int, int] | None) -> Callable[[Path, Path], None]:
    def make(source: Path, out: Path) -> None:
        def parts(stem: str, weight: torch.Tensor) -> Tensors:
            rows, columns = tile or weight.shape
            scales = torch.empty(-(-weight.shape[0] // rows), -(-weight.shape[1] // columns))
            codes = torch.empty(weight.shape, dtype=torch.float8_e4m3fn)
            for i in range(scales.shape[0]):
                for j in range(scales.shape[1]):
                    part = (slice(i * rows, (i + 1) * rows), slice(j * columns, (j + 1) * columns))
                    scales[i, j] = weight[part].abs().max() / 448
                    codes[part] = (weight[part] / scales[i, j]).to(torch.float8_e4m3fn)
            return {f"{stem}.weight": codes, f"{stem}.weight_scale_inv": scales if tile else scales.reshape(())}

        block = {"weight_block_size": list(tile)} if tile else {}
        _rewritten(source, out, {"quant_method": "fp8", "activation_scheme": "dynamic", **block}, parts)

    return make


def pack_words(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Unsigned integers along the first axis into words of 32 bits, bit by bit, the lowest first."""
    stream = ((codes.long().unsqueeze(1) >> torch.arange(bits).reshape(1, -1, *[1] * (codes.ndim - 1))) & 1).flatten(
        0, 1
    )
    words = stream.unflatten(0, (-1, 32)).long()
    powers = (1 << torch.arange(32)).reshape(1, -1, *[1] * (codes.ndim - 1))
    total = (words * powers).sum(1)
    return torch.where(total >= 1 << 31, total - (1 << 32), total).to(torch.int32)


def quantised_groups(weight: torch.Tensor, bits: int, group: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes [in, out], scales and zeros [groups, out] of an [out, in] matrix, rounded to the nearest of each group."""
    grouped = weight.T.unflatten(0, (-1, group))
    low, high, most = grouped.amin(1), grouped.amax(1), 2**bits - 1
    scales = ((high - low) / most).half().float()
    zeros = (-low / scales).round().clamp(0, most)
    codes = (grouped / scales.unsqueeze(1) + zeros.unsqueeze(1)).round().clamp(0, most)
    return codes.flatten(0, 1).int(), scales, zeros.int()


def _gptq(bits: int, layout: str = "gptq", ordered: bool = False) -> Callable[[Path, Path], None]:
    def make(source: Path, out: Path) -> None:
        def parts(stem: str, weight: torch.Tensor) -> Tensors:
            generator = torch.Generator().manual_seed(len(stem))
            order = torch.randperm(weight.shape[1], generator=generator) if ordered else torch.arange(weight.shape[1])
            codes, scales, zeros = quantised_groups(weight[:, order], bits, 32)
            index = torch.empty(weight.shape[1], dtype=torch.int32)
            index[order] = torch.arange(weight.shape[1], dtype=torch.int32) // 32
            back = torch.empty_like(codes)
            back[order] = codes
            stored = (zeros - 1) % 2**bits if layout == "gptq" else zeros
            return {
                f"{stem}.qweight": pack_words(back, bits), f"{stem}.qzeros": pack_words(stored.T, bits).T,
                f"{stem}.scales": scales.half(), f"{stem}.g_idx": index,
            }  # fmt: skip

        stated = {"quant_method": "gptq", "bits": bits, "group_size": 32, "desc_act": ordered, "sym": False}
        _rewritten(source, out, stated | {"checkpoint_format": layout}, parts)

    return make


def _awq(source: Path, out: Path) -> None:
    order = [0, 2, 4, 6, 1, 3, 5, 7]

    def packed(columns: torch.Tensor) -> torch.Tensor:
        return pack_words(columns.unflatten(1, (-1, 8))[:, :, order].flatten(1).T, 4).T

    def parts(stem: str, weight: torch.Tensor) -> Tensors:
        codes, scales, zeros = quantised_groups(weight, 4, 32)
        return {f"{stem}.qweight": packed(codes), f"{stem}.qzeros": packed(zeros), f"{stem}.scales": scales.half()}

    settings = {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm", "zero_point": True}
    _rewritten(source, out, settings, parts)


def mxfp4(source: Path, out: Path) -> None:
    """Experts of gpt-oss by hand: pairs of 4-bit floats a byte, the first in the low half; a power of two for 32."""
    table = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])
    tensors = load_file(source / "model.safetensors")
    stored: Tensors = {}
    for name, tensor in tensors.items():
        if not name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            stored[name] = tensor
            continue
        groups = tensor.transpose(1, 2).unflatten(-1, (-1, 32))
        exponents = groups.abs().amax(-1).log2().floor() - 2
        codes = (groups / exponents.exp2().unsqueeze(-1)).unsqueeze(-1).sub(table).abs().argmin(-1)
        stored[f"{name}_blocks"] = (codes[..., 0::2] | codes[..., 1::2] << 4).to(torch.uint8)
        stored[f"{name}_scales"] = (exponents + 127).to(torch.uint8)
    shutil.copytree(source, out)
    save_file({name: tensor.contiguous() for name, tensor in stored.items()}, out / "model.safetensors")
    edit_config(out, quantization_config={"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]})


def _gguf(kind: str) -> Callable[[Path, Path], None]:
    def make(source: Path, out: Path) -> None:
        from studies.quantised import gguf_writer

        out.mkdir(parents=True)
        gguf_writer.write(source, out / f"toy-{kind}.gguf", kind)

    return make


MADE: dict[str, tuple[str, Callable[[Path, Path], None]]] = {
    "bitsandbytes 8-bit": ("bitsandbytes", bits_and_bytes(load_in_8bit=True)),
    "bitsandbytes NF4": ("bitsandbytes", bits_and_bytes(load_in_4bit=True, bnb_4bit_quant_type="nf4")),
    "bitsandbytes FP4": ("bitsandbytes", bits_and_bytes(load_in_4bit=True)),
    "bitsandbytes NF4 double": (
        "bitsandbytes",
        bits_and_bytes(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True),
    ),
    "compressed-tensors W4A16": ("compressed_tensors", _compressed_tensors("W4A16")),
    "compressed-tensors W4A16_ASYM": ("compressed_tensors", _compressed_tensors("W4A16_ASYM")),
    "compressed-tensors W8A16": ("compressed_tensors", _compressed_tensors("W8A16")),
    "compressed-tensors W8A8": ("compressed_tensors", _compressed_tensors("W8A8")),
    "compressed-tensors FP8": ("compressed_tensors", _compressed_tensors("FP8")),
    "compressed-tensors FP8_DYNAMIC": ("compressed_tensors", _compressed_tensors("FP8_DYNAMIC")),
    "torchao int8": ("torchao", _torchao("Int8WeightOnlyConfig")),
    "torchao int8 dynamic": ("torchao", _torchao("Int8DynamicActivationInt8WeightConfig")),
    "torchao float8": ("torchao", _torchao("Float8WeightOnlyConfig")),
    "hqq": ("hqq", _hqq),
    "fp8 tiles": ("torch", _fp8((24, 40))),
    "fp8 tensor": ("torch", _fp8(None)),
    "gptq 4": ("torch", _gptq(4)),
    "gptq 3 ordered": ("torch", _gptq(3, ordered=True)),
    "gptq 8 v2": ("torch", _gptq(8, layout="gptq_v2")),
    "awq": ("torch", _awq),
    "gguf Q8_0": ("gguf", _gguf("Q8_0")),
    "gguf Q4_0": ("gguf", _gguf("Q4_0")),
}  # fmt: skip
"""Format -> the package that it needs here, and what writes a release of a plain folder in it."""
