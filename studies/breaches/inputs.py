"""Inputs that an earlier build believed, broke on or waited for: a sound case of a tiny world, each damaged once."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from safetensors.torch import load_file, save_file

SECRET: Final = "the copper casket under the third lamp of the harbour road "
"""What a refusal must not quote."""
HIDDEN: Final = "\x1b[31m\u202eolleh"
"""What no stream may get as it is: an escape sequence and a mark that turns the text around."""
ROLES: Final = ("base", "suspect", "reference_1", "reference_2", "ancestor")
Document = dict[str, Any]


class Input(NamedTuple):
    """One damaged case: the row of the table that it belongs to, what it is, and by which command it is tried."""

    row: str
    name: str
    damage: Callable[[Path], None]
    verb: str = "plan"


def write_case(folder: Path, models: dict[str, Path], data: Path) -> None:
    """A sound case whose models lie elsewhere: links, so that one of them can be put in its place and damaged."""
    (folder / "data").mkdir(parents=True)
    for name in ("forget", "retain", "holdout", "general"):
        shutil.copy(data / f"{name}.jsonl", folder / "data")
    for role in ROLES:
        (folder / role).symlink_to(models[role], target_is_directory=True)
    roles = "".join(f'[roles.{role}]\npath = "{role}"\n' for role in ("base", "suspect", "ancestor"))
    references = "".join(
        f'[[roles.references]]\npath = "reference_{n}"\nlineage = "same_ancestor"\ndata_order = {n}\n' for n in (1, 2)
    )
    cohorts = "".join(f'{name} = "data/{name}.jsonl"\n' for name in ("forget", "retain", "holdout", "general"))
    text = f'name = "suspect"\nedited = "unknown"\nseed = 0\n{roles}{references}[data]\nsplit_seed = 0\n{cohorts}'
    (folder / "case.toml").write_text(text, encoding="utf-8")


# ---- what is done to it -----------------------------------------------------------------------------------------
def own(folder: Path, role: str) -> Path:
    """A role's model as a copy that may be changed."""
    place = folder / role
    source = place.resolve()
    place.unlink()
    return Path(shutil.copytree(source, place))


def stated(old: str, new: str) -> Callable[[Path], None]:
    """Another line in the case file."""

    def change(folder: Path) -> None:
        path = folder / "case.toml"
        text = path.read_text(encoding="utf-8")
        assert old in text, old
        path.write_text(text.replace(old, new, 1), encoding="utf-8")

    return change


def settings(role: str, file: str, change: Callable[[Document], object]) -> Callable[[Path], None]:
    """Another JSON file beside a role's weights, made where there is none."""

    def write(folder: Path) -> None:
        path = own(folder, role) / file
        path.parent.mkdir(exist_ok=True)
        document = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        change(document)
        path.write_text(json.dumps(document), encoding="utf-8")

    return write


def weights(role: str, change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    """Other weights of a role."""

    def write(folder: Path) -> None:
        path = own(folder, role) / "model.safetensors"
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path, {"format": "pt"})

    return write


def matrix_of(tensors: dict[str, torch.Tensor]) -> str:
    """The first matrix of an MLP."""
    return min(name for name, tensor in tensors.items() if "mlp" in name and tensor.ndim == 2)


def as_integers(tensors: dict[str, torch.Tensor]) -> None:
    """The values of one matrix rounded to integers, and stored as such."""
    name = matrix_of(tensors)
    tensors[name] = (tensors[name] * 10).round().to(torch.int32)


def zeroed(tensors: dict[str, torch.Tensor]) -> None:
    """One matrix of zeros."""
    tensors[matrix_of(tensors)].zero_()


def overflowing(ending: str) -> Callable[[dict[str, torch.Tensor]], None]:
    """Every number is finite, and what is computed with those of these names is not."""

    def change(tensors: dict[str, torch.Tensor]) -> None:
        for name, tensor in tensors.items():
            if name.endswith(ending):
                tensor.mul_(1e38 / tensor.abs().max())

    return change


def named_pipe(folder: Path) -> None:
    """Data that nobody writes."""
    (folder / "data" / "forget.jsonl").unlink()
    os.mkfifo(folder / "data" / "forget.jsonl")


def row_of_data(**changes: str) -> Callable[[Path], None]:
    """The first row of the forget set, otherwise."""

    def write(folder: Path) -> None:
        path = folder / "data" / "forget.jsonl"
        first, *others = path.read_text(encoding="utf-8").splitlines()
        path.write_text("\n".join([json.dumps(json.loads(first) | changes), *others]), encoding="utf-8")

    return write


def cut(folder: Path) -> None:
    """Half a tokenizer.json."""
    path = own(folder, "base") / "tokenizer.json"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


TOKENIZERS: Final[dict[str, Callable[[Path], None]]] = {
    "half a file": cut,
    "an empty object": settings("base", "tokenizer.json", dict.clear),
    "no model": settings("base", "tokenizer.json", lambda d: d.pop("model")),
    "a model of no known kind": settings("base", "tokenizer.json", lambda d: d["model"].update(type="Own")),
    "a vocabulary that is none": settings("base", "tokenizer.json", lambda d: d["model"].update(vocab="none")),
    "added tokens that are none": settings("base", "tokenizer.json", lambda d: d.update(added_tokens={"a": 1})),
    "a step of no known kind": settings("base", "tokenizer.json", lambda d: d.update(pre_tokenizer={"type": "Own"})),
    "a class that is no word": settings(
        "base", "tokenizer_config.json", lambda d: d.update(tokenizer_class=["PreTrainedTokenizerFast"])),
}  # fmt: skip
FAR: Final = "x" * 5000
PATHS: Final[dict[str, Callable[[Path], None]]] = {
    "a zero character for base": stated('path = "base"', 'path = "ba\\u0000se"'),
    "a zero character for a reference": stated('path = "reference_1"', 'path = "re\\u0000f"'),
    "an overlong path for the suspect": stated('path = "suspect"', f'path = "{FAR}"'),
    "a zero character for data": stated('"data/forget.jsonl"', '"data/\\u0000.jsonl"'),
    "an overlong path for data": stated('"data/retain.jsonl"', f'"{FAR}.jsonl"'),
}
SEEDS: Final[dict[str, Callable[[Path], None]]] = {
    "seed -1": stated("\nseed = 0", "\nseed = -1"),
    "seed 2^63": stated("\nseed = 0", f"\nseed = {2**63}"),
    "split_seed -1": stated("split_seed = 0", "split_seed = -1"),
    "split_seed 2^70": stated("split_seed = 0", f"split_seed = {2**70}"),
}
WISHES: Final[dict[str, Callable[[Path], None]]] = {
    "custom_generate": settings("base", "generation_config.json", lambda d: d.update(custom_generate="owner/name")),
    "a processor's auto_map": settings(
        "base", "preprocessor_config.json", lambda d: d.update(auto_map={"AutoImageProcessor": "mine.Mine"})),
    "auto_map in a sub-folder": settings(
        "base", "sub/config.json", lambda d: d.update(auto_map={"AutoModel": "mine.Mine"})),
}  # fmt: skip
TOKENIZER, PATH, SEED = "a tokenizer that the library refuses", "a path that is none", "a seed out of bounds"
OVERFLOW, PIPE = "a reference whose activations overflow", "a named pipe as data"
INTEGERS, ZEROED = "a float tensor stored as integers", "a zeroed tensor"
QUOTED, CODE = "a refusal quotes text or control characters", "a wish for code that is ignored without a word"
INPUTS: Final = (
    *(Input(TOKENIZER, name, damage) for name, damage in TOKENIZERS.items()),
    *(Input(PATH, name, damage) for name, damage in PATHS.items()),
    *(Input(SEED, name, damage) for name, damage in SEEDS.items()),
    Input(PIPE, "forget", named_pipe),
    Input(QUOTED, "100 KB of the forget set", row_of_data(answer=SECRET * 1800, key="nowhere at all")),
    Input(QUOTED, "control characters of a path", stated('"data/forget.jsonl"', '"\\u001b[31m\\u202eolleh"')),
    *(Input(CODE, name, damage) for name, damage in WISHES.items()),
    Input(OVERFLOW, "the last norm", weights("reference_1", overflowing("model.norm.weight")), "run"),
    Input(OVERFLOW, "each block's norm", weights("reference_1", overflowing("input_layernorm.weight")), "run"),
    *(Input(INTEGERS, role, weights(role, as_integers), "run") for role in ("reference_1", "base", "suspect")),
    *(Input(ZEROED, role, weights(role, zeroed), "run") for role in ("reference_1", "base", "suspect")),
)
