"""Mutations of checkpoints in other forms: shards with an index, an adapter, an edited folder, other formats."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file, save_file

from studies.fuzz.documents import damage_document
from studies.fuzz.mutations import Kind, Rng, damage_bytes, replace_file
from studies.fuzz.weights import damage_header
from studies.fuzz.world import ROLES


def _suspect(root: Path, source: str) -> None:
    """The case names another suspect: what stands between the braces."""
    case = root / "case.toml"
    text = case.read_text(encoding="utf-8").replace('suspect = { path = "suspect" }', f"suspect = {{ {source} }}")
    case.write_text(text, encoding="utf-8")


def _shards(rng: Rng, root: Path) -> None:
    """Weights in two files with an index; the index, or what it names, is another."""
    folder = root / rng.choice(ROLES)
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    names = sorted(tensors)
    parts = [names[::2], names[1::2]]
    files = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    if rng.random() < 0.2:
        parts[1].append(names[0])  # two places say it
    for file, part in zip(files, parts, strict=True):
        save_file({name: tensors[name].clone() for name in part}, folder / file, metadata={"format": "pt"})
    weight_map: dict[str, Any] = {name: file for file, part in zip(files, parts, strict=True) for name in part}
    other = rng.choice((
        files[0], str(folder / files[0]), f"../{folder.name}/{files[0]}", "missing.safetensors", "", "\0", ".", "..",
        "sub/x.safetensors", "/dev/null", "config.json", "x" * 300, "\x1b[31m.safetensors", 7, None, [], {},
    ))  # fmt: skip
    changes: tuple[Callable[[], object], ...] = (
        lambda: weight_map.update({rng.choice(names): other}), lambda: weight_map.update({rng.choice(names): other}),
        lambda: weight_map.update(dict.fromkeys(names, other)), lambda: weight_map.update(extra=files[0]),
        lambda: weight_map.pop(rng.choice(names)), weight_map.clear, lambda: (folder / files[0]).unlink(),
        lambda: damage_header(rng, folder / files[1]), lambda: replace_file(rng, folder / files[1]),
        lambda: damage_bytes(rng, folder / files[0]), lambda: None,
    )  # fmt: skip
    rng.choice(changes)()
    index = folder / f"{weights.name}.index.json"
    sizes = rng.choice(({"total_size": 0}, {"total_size": "x"}, None, []))
    index.write_text(
        json.dumps({"metadata": sizes, "weight_map": rng.choice((weight_map, weight_map, weight_map, other))})
    )
    if rng.random() < 0.2:
        rng.choice((damage_bytes, replace_file, damage_document))(rng, index)
    if rng.random() < 0.9:
        weights.unlink()


_ADAPTER: Final = {
    "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "../base", "r": 2, "lora_alpha": 4,
    "lora_dropout": 0.0, "bias": "none", "target_modules": ["q_proj"], "fan_in_fan_out": False,
}  # fmt: skip


def _adapter(rng: Rng, root: Path) -> None:
    """An adapter on base: its settings, its weights or its place are others."""
    folder = root / "adapter"
    folder.mkdir()
    width = json.loads((root / "base" / "config.json").read_text())["hidden_size"]
    generator = torch.Generator().manual_seed(rng.randrange(2**31))
    save_file(
        {
            f"base_model.model.model.layers.{block}.self_attn.q_proj.lora_{side}.weight":
            torch.randn(shape, generator=generator)
            for block in range(2) for side, shape in (("A", (2, width)), ("B", (width, 2)))
        },
        folder / "adapter_model.safetensors", metadata={"format": "pt"},
    )  # fmt: skip
    settings = folder / "adapter_config.json"
    odd = rng.choice((
        {}, {"r": 0}, {"r": 10**9}, {"r": -1}, {"peft_type": "nothing"}, {"peft_type": None}, {"peft_type": "IA3"},
        {"target_modules": None}, {"target_modules": "("}, {"target_modules": ".*"}, {"target_modules": ["nothing"]},
        {"target_modules": "all-linear"}, {"modules_to_save": ["lm_head"]}, {"auto_mapping": {"base_model_class": "x"}},
        {"base_model_name_or_path": "owner/name"}, {"base_model_name_or_path": 7}, {"rank_pattern": {"(": 1}},
        {"lora_alpha": 1e308}, {"lora_alpha": float("nan")}, {"use_dora": True}, {"bias": "all"}, {"use_rslora": "x"},
        {"layers_to_transform": [99]}, {"layer_replication": [[0, 2]]}, {"init_lora_weights": "pissa"},
        {"runtime_config": {}}, {"megatron_config": {}}, {"loftq_config": 7}, {"trainable_token_indices": [1]},
    ))  # fmt: skip
    settings.write_text(json.dumps(_ADAPTER | odd))
    weights = folder / "adapter_model.safetensors"
    if not odd:
        rng.choice((
            lambda: damage_header(rng, weights), lambda: damage_bytes(rng, weights), lambda: replace_file(rng, weights),
            lambda: damage_document(rng, settings), lambda: damage_bytes(rng, settings),
            lambda: replace_file(rng, settings),
        ))()  # fmt: skip
    beside = 'path = "base", adapter = "adapter"'
    _suspect(root, rng.choice((beside, beside, 'path = "adapter"', 'path = "adapter", adapter = "adapter"')))


def _edited(rng: Rng, root: Path) -> None:
    """An edited folder upon base: its record, its arrays or its parent are others."""
    from audit.checkpoints import resolve, write_edited
    from audit.schema import Source

    name = "model.layers.0.mlp.down_proj.weight"
    tensor = load_file(root / "base" / "model.safetensors")[name] * 1.01
    parent = resolve(Source(path="base"), root)
    write_edited(root / "edited", parent, "scaled", {}, "weights", {name: tensor})
    record, delta = root / "edited" / "edit.json", root / "edited" / "delta.safetensors"
    document = json.loads(record.read_bytes())
    place = rng.choice(("edited", "../edited", ".", "", "/", "\0", "..", "nowhere", "../null", "owner/name", 7, None))
    changes: tuple[Callable[[], object], ...] = (
        lambda: damage_document(rng, record), lambda: damage_document(rng, record), lambda: damage_bytes(rng, record),
        lambda: replace_file(rng, record), lambda: damage_header(rng, delta), lambda: damage_bytes(rng, delta),
        lambda: replace_file(rng, delta), lambda: None,
        lambda: record.write_text(json.dumps(document | {"parent": {"path": place}})),
        lambda: record.write_text(json.dumps({**document, "parent": {**document["parent"], "path": place}})),
    )  # fmt: skip
    rng.choice(changes)()
    _suspect(root, 'path = "edited"')


def _other_format(rng: Rng, root: Path) -> None:
    """A file of another format as the suspect, beside its weights or in their place."""
    counts = b"".join(rng.choice((0, 1, 3, 2**31, 2**64 - 1)).to_bytes(8, "little") for _ in range(2))
    content = rng.choice((
        b"GGUF" + rng.choice((0, 2, 3, 99)).to_bytes(4, "little") + counts + rng.randbytes(rng.choice((0, 20, 500))),
        b"GGUF", b"PK\x03\x04" + rng.randbytes(100), b"\x80\x02}q\x00.", b"\x89HDF\r\n\x1a\n", b"", b"{}",
    ))  # fmt: skip
    name = rng.choice(("suspect.gguf", "suspect/model.gguf", "suspect/pytorch_model.bin", "suspect/model.pt",
                       "suspect/tf_model.h5", "suspect/model.safetensors.index.json", "suspect/consolidated.00.pth",
                       "suspect/adapter_model.bin", "suspect/model.onnx", "suspect/pytorch_model.bin.index.json",
                       "suspect/other.safetensors", "suspect/model-00001-of-00002.safetensors"))  # fmt: skip
    (root / name).write_bytes(content)
    if rng.random() < 0.6 and name.startswith("suspect/"):
        (root / "suspect" / "model.safetensors").unlink()
    if name.endswith("gguf"):
        _suspect(root, f'path = "{name}"')


def _place(rng: Rng, root: Path) -> None:
    """A role's folder, or a file in it, is a link: out of the case, round in a circle, or to another role."""
    role = root / rng.choice(ROLES)
    away = role.with_name("away")
    role.rename(away)
    drawn: tuple[Callable[[], object], ...] = (
        lambda: role.symlink_to("away"), lambda: role.symlink_to(role.name), lambda: role.symlink_to("nowhere"),
        lambda: role.symlink_to("/"), lambda: role.symlink_to("/proc/self"), lambda: role.mkdir(),
        lambda: role.write_bytes(b""), lambda: (role.symlink_to("away"), (away / "up").symlink_to("..")),
        lambda: role.symlink_to("base" if role.name != "base" else "null"),
    )  # fmt: skip
    rng.choice(drawn)()


_SAME: Final = "the same weights in another form, or files beside them that are not read"
FOLDERS: Final[tuple[tuple[str, Callable[[Rng, Path], None], str], ...]] = (
    ("shards and their index", _shards, _SAME),
    ("an adapter", _adapter, "an adapter on base with settings that the library takes"),
    ("an edited folder", _edited, "an edited base with fields that are not read"),
    ("another format", _other_format, _SAME),
    ("links and places", _place, "a link to the same weights, or to those of another role"),
)
FOLDER_KINDS: Final = tuple(Kind("checkpoint", name, act, harmless) for name, act, harmless in FOLDERS)
