"""The exhibits of a report: every file that was received beside the weights is hashed, or listed as not opened."""

import shutil
from pathlib import Path

from audit import checkpoints
from audit.runs.provenance import NOT_OPENED, NOT_USED, Received, arithmetic_used, exhibits
from audit.schema import Checkpoint, Source
from tests import toy


def no_tensors(ckpt: Checkpoint) -> tuple[str, ...]:
    return ()


def test_files_beside_the_weights_are_listed_as_not_opened(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(toy.folder("llama"), tmp_path / "model"))
    ckpt = checkpoints.resolve(Source(path=str(folder)), Path("/"))
    (clean,) = exhibits((Received("suspect", ckpt),), tmp_path, no_tensors)
    for name in ("adapter_config.json", "adapter_model.safetensors", "consolidated.safetensors", "optimizer.pt"):
        (folder / name).write_bytes(b"{}")
    (beside,) = exhibits((Received("suspect", ckpt),), tmp_path, no_tensors)
    added = {name for name, hashed in beside.files.items() if hashed == NOT_OPENED}
    assert added == {"adapter_config.json", "adapter_model.safetensors", "consolidated.safetensors", "optimizer.pt"}
    assert {n: h for n, h in beside.files.items() if n not in added} == clean.files
    assert beside.fingerprint == clean.fingerprint


def test_tensors_that_the_model_does_not_use_are_listed_by_name() -> None:
    ckpt = checkpoints.resolve(Source(path=str(toy.folder("llama"))), Path("/"))
    (listed,) = exhibits((Received("suspect", ckpt),), Path("/"), lambda _: ("rotary_emb.inv_freq",))
    assert listed.files["tensor rotary_emb.inv_freq"] == NOT_USED


def test_roles_whose_attention_differs_are_told_apart_and_those_that_agree_are_one_name() -> None:
    ckpt = checkpoints.resolve(Source(path=str(toy.folder("llama"))), Path("/"))
    other = checkpoints.resolve(Source(path=str(toy.folder("gemma2"))), Path("/"))
    roles = [Received("base", ckpt), Received("suspect", ckpt), Received("reference", other)]

    def of(checkpoint: Checkpoint) -> str:
        return "eager" if checkpoint is other else "sdpa"

    assert arithmetic_used(roles, of) == "sdpa: base, suspect; eager: reference"
    assert arithmetic_used(roles[:2], of) == "sdpa"
