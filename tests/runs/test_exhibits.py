"""The exhibits of a report: every file that was received beside the weights is hashed, or listed as not opened."""

import shutil
from pathlib import Path

from audit import checkpoints
from audit.runs.provenance import NOT_OPENED, Received, exhibits
from audit.schema import Source
from tests import toy


def test_files_beside_the_weights_are_listed_as_not_opened(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(toy.folder("llama"), tmp_path / "model"))
    ckpt = checkpoints.resolve(Source(path=str(folder)), Path("/"))
    (clean,) = exhibits((Received("suspect", ckpt),), tmp_path)
    for name in ("adapter_config.json", "adapter_model.safetensors", "consolidated.safetensors", "optimizer.pt"):
        (folder / name).write_bytes(b"{}")
    (beside,) = exhibits((Received("suspect", ckpt),), tmp_path)
    added = {name for name, hashed in beside.files.items() if hashed == NOT_OPENED}
    assert added == {"adapter_config.json", "adapter_model.safetensors", "consolidated.safetensors", "optimizer.pt"}
    assert {n: h for n, h in beside.files.items() if n not in added} == clean.files
    assert beside.fingerprint == clean.fingerprint
