"""Releases in codes open as the weights that their codes stand for, by a reference of another making each."""

import importlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from audit import checkpoints
from audit.checkpoints import float_copies
from audit.schema import AuditError, Checkpoint, Source
from audit.storage import Store
from audit.wrappers import open_wrapper
from studies.quantised.references import opened, reference
from studies.quantised.releases import MADE, bits_and_bytes, edit_config, linear, mxfp4
from tests import quantised_toys as toys

Tensors = dict[str, torch.Tensor]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RESIDUA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def resolved(folder: Path, **more: Any) -> Checkpoint:
    return checkpoints.resolve(Source(path=str(folder), **more), folder)


def weights(folder: Path) -> Tensors:
    """All tensors of a folder's weight files."""
    collected: Tensors = {}
    for path in checkpoints.weight_files(folder):
        with safe_open(path, framework="pt") as file:
            collected |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return collected


@pytest.mark.sampled
@pytest.mark.parametrize("name", MADE)
def test_the_codes_of_a_release_become_the_weights_they_stand_for(name: str) -> None:
    pytest.importorskip(MADE[name][0])
    folder = toys.release(name)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    base, suspect = resolved(toys.folder()), resolved(folder)
    place = checkpoints.weights_folder(suspect)
    checkpoints.check_compatible(base, suspect)
    checkpoints.check_finite(suspect)
    collected, expected, source = weights(place), reference(name, toys.folder(), folder), weights(toys.folder())
    assert collected.keys() == source.keys()
    for matrix in linear(source):
        scale = expected[matrix].abs().max()
        gap = (collected[matrix].float() - expected[matrix].to(collected[matrix].dtype).float()).abs().max() / scale
        assert float(gap) < 2e-6, matrix
        assert 1e-3 < float((collected[matrix].float() - source[matrix]).norm() / source[matrix].norm()) < 0.3
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert checkpoints.fingerprint_of(suspect).total == suspect.fingerprint
    checkpoints.verify(suspect)


def test_experts_in_mxfp4_open_as_transformers_opens_them(tmp_path: Path) -> None:
    from transformers import Mxfp4Config

    mxfp4(toys.folder("gpt_oss"), tmp_path / "release")
    suspect = resolved(tmp_path / "release")
    checkpoints.check_compatible(resolved(toys.folder("gpt_oss")), suspect)
    theirs = opened(tmp_path / "release", quantization_config=Mxfp4Config(dequantize=True))
    ours = open_wrapper(suspect).model.state_dict()  # type: ignore[attr-defined]
    assert all(torch.equal(ours[name].float(), theirs[name].float()) for name in theirs)
    assert "MXFP4" in (checkpoints.float_copy_of(suspect) or pytest.fail()).called


@pytest.mark.parametrize("settings", [{"load_in_8bit": True}, {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}])
def test_layers_that_a_family_stores_transposed_come_back_as_it_stores_them(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    pytest.importorskip("bitsandbytes")
    bits_and_bytes(**settings)(toys.folder("gpt2"), tmp_path / "release")
    collected = weights(checkpoints.weights_folder(resolved(tmp_path / "release")))
    source = weights(toys.folder("gpt2"))
    name = next(name for name in source if name.endswith("c_fc.weight"))
    assert collected[name].shape == source[name].shape == (64, 256)
    assert float((collected[name] - source[name]).norm() / source[name].norm()) < 0.15


def test_a_model_saved_after_a_forward_pass_is_the_same_architecture_with_rounded_scales(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    from transformers import BitsAndBytesConfig

    settings = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    model = AutoModelForCausalLM.from_pretrained(
        toys.folder(), quantization_config=settings, device_map="cpu", dtype=torch.float32
    )
    model.save_pretrained(tmp_path / "before")
    stored = load_file(tmp_path / "before" / "model.safetensors")
    # what bitsandbytes 0.50.2 makes of its scales at the first pass on a CPU with AVX512-BF16, and saves
    turned = {
        name: tensor.reshape(stored[name.removesuffix(".absmax")].numel() * 2 // columns, -1).T.bfloat16().contiguous()
        for name, tensor in stored.items()
        if name.endswith(".absmax") and (columns := _columns(name))
    }
    shutil.copytree(tmp_path / "before", tmp_path / "after")
    save_file(stored | turned, tmp_path / "after" / "model.safetensors", {"format": "pt"})
    before, after = resolved(tmp_path / "before"), resolved(tmp_path / "after")
    checkpoints.check_compatible(before, after)
    first, second = (weights(checkpoints.weights_folder(ckpt)) for ckpt in (before, after))
    for name in linear(first):
        assert 0 < float((first[name] - second[name]).abs().max() / first[name].abs().max()) < 2**-8
    notes = [(checkpoints.float_copy_of(ckpt) or pytest.fail()).notes for ckpt in (before, after)]
    assert notes[0] == () and "forward pass" in notes[1][0]


def _columns(name: str) -> int:
    return int(weights(toys.folder())[name.removesuffix(".absmax")].shape[1])


def test_a_real_save_after_a_forward_pass_opens_as_the_one_before_it_does(tmp_path: Path) -> None:
    functional = pytest.importorskip("bitsandbytes.functional")
    if not functional.has_avx512bf16():
        pytest.skip("this processor keeps the scales as they are")
    from transformers import BitsAndBytesConfig

    settings = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    model = AutoModelForCausalLM.from_pretrained(
        toys.folder(), quantization_config=settings, device_map="cpu", dtype=torch.float32
    )
    model.save_pretrained(tmp_path / "before")
    with torch.no_grad():
        model.eval()(torch.arange(3, 9).unsqueeze(0))
    model.save_pretrained(tmp_path / "after")
    first, second = (weights(checkpoints.weights_folder(resolved(tmp_path / n))) for n in ("before", "after"))
    for name in linear(first):
        assert float((first[name] - second[name]).abs().max() / first[name].abs().max()) < 2**-7, name


# ---- what is refused --------------------------------------------------------------------------------------------
def edited(name: str, out: Path, change: Callable[[Tensors], None], **settings: object) -> Path:
    """A copy of a release with other tensors, and other settings of its quantisation."""
    shutil.copytree(toys.release(name), out)
    stored = load_file(out / "model.safetensors")
    change(stored)
    save_file(stored, out / "model.safetensors", {"format": "pt"})
    stated = json.loads((out / "config.json").read_text())["quantization_config"]
    edit_config(out, quantization_config=stated | settings)
    return out


def refusal(folder: Path, code: int) -> AuditError:
    with pytest.raises(AuditError) as caught:
        checkpoints.weights_folder(resolved(folder))
    assert caught.value.code == code
    return caught.value


BLOCK = "model.layers.0.mlp.up_proj"


@pytest.mark.parametrize("extra", ["input_zeros", "weight_scale_2", "pre_quant_scale", "zero_point"])
def test_a_scale_that_would_be_left_out_is_an_error(tmp_path: Path, extra: str) -> None:
    folder = edited("gptq 4", tmp_path / "odd", lambda stored: stored.update({f"{BLOCK}.{extra}": torch.ones(3)}))
    assert extra in refusal(folder, 2).what


@pytest.mark.parametrize(
    ("name", "part"),
    [("gptq 4", "scales"), ("awq", "qzeros"), ("hqq", "zero"), ("bitsandbytes NF4", "weight.quant_map"),
     ("compressed-tensors W4A16", "weight_scale"), ("torchao int8", "_weight_scale")],
)  # fmt: skip
def test_a_part_that_is_missing_is_named(tmp_path: Path, name: str, part: str) -> None:
    pytest.importorskip(MADE[name][0])

    def drop(stored: Tensors) -> None:
        del stored[f"{BLOCK}.{part}"]

    folder = tmp_path / "less"
    if name.startswith("torchao"):
        shutil.copytree(toys.release(name), folder)
        with safe_open(folder / "model.safetensors", framework="pt") as file:
            metadata, stored = file.metadata(), {n: file.get_tensor(n) for n in file.keys()}  # noqa: SIM118
        drop(stored)
        save_file(stored, folder / "model.safetensors", metadata)
    else:
        edited(name, folder, drop)
    assert BLOCK in refusal(folder, 3).what


def test_codes_without_their_scale_are_an_error_in_fp8(tmp_path: Path) -> None:
    def drop(stored: Tensors) -> None:
        del stored[f"{BLOCK}.weight_scale_inv"]

    assert f"{BLOCK}.weight" in refusal(edited("fp8 tiles", tmp_path / "less", drop), 2).what


def test_scales_that_are_not_one_a_tile_are_an_error(tmp_path: Path) -> None:
    folder = edited("fp8 tiles", tmp_path / "other", lambda stored: None, weight_block_size=[32, 32])
    assert "weight_block_size" in refusal(folder, 3).do


def test_plain_weights_under_a_config_that_says_otherwise_are_an_error(tmp_path: Path) -> None:
    shutil.copytree(toys.folder(), tmp_path / "plain")
    edit_config(tmp_path / "plain", quantization_config={"quant_method": "gptq", "bits": 4})
    assert "take quantization_config out" in refusal(tmp_path / "plain", 2).do


@pytest.mark.parametrize(
    ("name", "settings", "summary"),
    [("gptq 4", {"bits": 5}, "5 bits"), ("gptq 4", {"checkpoint_format": "marlin"}, "marlin"),
     ("awq", {"version": "gemv"}, "gemv"), ("gptq 4", {"quant_method": "modelopt"}, "modelopt"),
     ("compressed-tensors W4A16", {"sparsity_config": {"format": "sparse-24-bitmask"}}, "sparse-24"),
     ("compressed-tensors W4A16", {"transform_config": {"config_groups": {"R1": {}}}}, "transform_config"),
     ("compressed-tensors W4A16", {"quantization_status": "frozen"}, "frozen")],
)  # fmt: skip
def test_a_variant_that_is_not_known_is_refused_by_name(
    tmp_path: Path, name: str, settings: dict[str, object], summary: str
) -> None:
    pytest.importorskip(MADE[name][0])
    folder = edited(name, tmp_path / "variant", lambda stored: None, **settings)
    with pytest.raises(AuditError, match=summary) as caught:
        resolved(folder)
    assert caught.value.code == 2


def test_what_a_library_that_dequantised_wrote_back_as_codes_is_refused(tmp_path: Path) -> None:
    """transformers 5.23.0 saves float8 again after opening FP8 dequantised, and says so in no config."""
    mxfp4(toys.folder("gpt_oss"), tmp_path / "saved")
    edit_config(tmp_path / "saved", quantization_config=None)
    assert "_blocks" in refusal(tmp_path / "saved", 2).what
    folder = edited("fp8 tensor", tmp_path / "fp8", lambda stored: None)
    edit_config(folder, quantization_config=None)
    assert "holds codes" in refusal(folder, 2).what


def test_a_package_that_is_not_there_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("bitsandbytes")
    ckpt = resolved(toys.release("bitsandbytes NF4"))
    there = importlib.import_module

    def absent(name: str, package: str | None = None) -> Any:
        if name.startswith("bitsandbytes"):
            raise ImportError(f"No module named {name!r}")
        return there(name, package)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(AuditError, match="the package bitsandbytes") as caught:
        checkpoints.weights_folder(ckpt)
    assert caught.value.code == 2 and "residua[quantised]" in caught.value.do


# ---- the copy ---------------------------------------------------------------------------------------------------
def test_a_copy_is_made_once_and_again_where_it_is_not_what_was_written(cache: Path) -> None:
    ckpt = resolved(toys.release("gptq 4"))
    place = checkpoints.weights_folder(ckpt)
    assert (
        place.parent == cache / "dequantised" and checkpoints.weights_folder(resolved(toys.folder())) == toys.folder()
    )
    shard = place / "model-00001.safetensors"
    first, inode = shard.read_bytes(), shard.stat().st_ino
    assert checkpoints.weights_folder(ckpt) == place and shard.stat().st_ino == inode
    shard.write_bytes(first[:-4] + b"\1\2\3\4")
    with pytest.raises(AuditError, match="not what was written") as caught:
        checkpoints.verify(ckpt)
    assert caught.value.code == 3
    assert checkpoints.weights_folder(ckpt) == place and shard.read_bytes() == first
    (place / "dequantised.json").unlink()
    assert checkpoints.weights_folder(ckpt) == place and (place / "dequantised.json").is_file()


def test_a_conversion_that_is_cut_short_leaves_no_copy(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ckpt = resolved(toys.release("gptq 4"))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(float_copies, "write_atomic", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.weights_folder(ckpt)
    assert list((cache / "dequantised").iterdir()) == []


def test_of_two_that_want_one_copy_at_once_one_makes_it(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ckpt = resolved(toys.release("gptq 4"))
    make, begun = float_copies._make, list[str]()

    def slow(*args: Any) -> None:
        begun.append("")
        time.sleep(0.2)
        make(*args)

    monkeypatch.setattr(float_copies, "_make", slow)
    with ThreadPoolExecutor(2) as both:
        first, second = both.map(lambda _: checkpoints.weights_folder(ckpt), range(2))
    assert first == second and len(begun) == 1 and checkpoints.copies() == (first,)


def test_a_copy_that_is_not_what_was_written_is_never_used_and_a_read_only_one_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ckpt = resolved(toys.release("gptq 4"))
    place = checkpoints.weights_folder(ckpt)

    def refused(*_: object, ignore_errors: bool = False) -> None:
        if not ignore_errors:
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(float_copies.os, "utime", refused)
    assert checkpoints.weights_folder(ckpt) == place
    (place / "config.json").write_text("{}")
    monkeypatch.setattr(float_copies.shutil, "rmtree", refused)
    with pytest.raises(AuditError, match="cannot be written") as caught:
        checkpoints.weights_folder(ckpt)
    assert caught.value.code == 3


USER = """import sys, time
from pathlib import Path
from audit import checkpoints
from audit.schema import Source
print(checkpoints.weights_folder(checkpoints.resolve(Source(path=sys.argv[1]), Path("/"))), flush=True)
time.sleep(600)"""


@pytest.mark.thorough
def test_a_copy_that_a_living_process_uses_is_not_pruned_and_one_that_none_uses_is(cache: Path) -> None:
    mine = checkpoints.weights_folder(resolved(toys.release("awq")))
    store = Store(cache / "store")
    command = [sys.executable, "-c", USER, str(toys.release("gptq 4"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as user:
        try:
            assert user.stdout is not None
            theirs = Path(user.stdout.readline().strip())
            assert theirs in checkpoints.copies() and theirs != mine
            assert store.prune(0, checkpoints.copies()) > 0
            assert theirs.is_dir() and not mine.exists()
        finally:
            user.kill()
    store.prune(0, checkpoints.copies())
    assert not theirs.exists()


def test_what_a_killed_process_left_of_a_copy_is_pruned_and_one_in_the_making_is_not(cache: Path) -> None:
    store, key = Store(cache / "store"), "ab" * 32
    left = cache / "dequantised" / f".{key[:32]}.1.tmp"
    making = cache / "dequantised" / f".{'cd' * 16}.2.tmp"
    for folder in (left, making):
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"x" * 100)
        os.utime(folder, (0, 0))
    store.use("cd" * 32)
    assert store.prune(0, checkpoints.copies()) == 100
    assert not left.exists() and making.is_dir()


def test_large_models_are_written_in_several_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("audit.checkpoints.conversion"), "_SHARD_BYTES", 40_000)
    ckpt = resolved(toys.release("awq"))
    place = checkpoints.weights_folder(ckpt)
    assert len(checkpoints.weight_files(place)) > 2
    assert weights(place).keys() == weights(toys.folder()).keys()
    open_wrapper(ckpt)


def test_the_cache_command_shows_copies_and_drops_them(cache: Path) -> None:
    from audit.cli import main

    place = checkpoints.weights_folder(resolved(toys.release("gptq 4")))
    assert main(["cache"]) == 0 and place.is_dir()
    assert main(["cache", "--prune"]) == 0 and not place.exists()


def test_an_adapter_over_four_bits_is_merged_into_what_the_codes_stand_for(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    from peft import LoraConfig, get_peft_model

    folder = toys.release("bitsandbytes NF4")
    settings = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    torch.manual_seed(1)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(toys.folder()), settings)
    model.save_pretrained(tmp_path / "adapter")
    suspect = resolved(folder, adapter=str(tmp_path / "adapter"))
    merged = open_wrapper(suspect).model.state_dict()  # type: ignore[attr-defined]
    plain, added = (
        weights(checkpoints.weights_folder(suspect)),
        load_file(tmp_path / "adapter/adapter_model.safetensors"),
    )
    for name in ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"):
        a, b = (added[f"base_model.model.{name}.lora_{part}.weight"] for part in "AB")
        delta = merged[f"{name}.weight"] - plain[f"{name}.weight"]
        assert torch.allclose(delta, settings.lora_alpha / 4 * b @ a, atol=1e-5) and float(delta.abs().max()) > 0
