"""Scores of transformer_lens 4.3 on two toys, as the file that test_attribution.py reads.

Made by ``python -m tests.lens_edges PYTHON``, where PYTHON is the interpreter of an environment with transformer_lens
4.3: sae_lens needs an older one, so the two cannot share an environment.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from audit.case import Rows
from tests import toy

FAMILIES = ("gpt2", "gpt_neox")
EXPECTED = Path(__file__).parent / "expected" / "lens_edges.json"
SCRIPT = Path(__file__).parents[1] / "studies" / "speed" / "lens_edges.py"
N = 2


def clean_rows() -> Rows:
    """Two rows of the toys' words."""
    return toy.rows(N, seed=11)


def other_rows() -> Rows:
    """Rows of the same lengths and other words; the first token is the same."""
    made = clean_rows()
    ids = toy.rows(N, seed=11).ids.flip(0).masked_fill(~made.mask, 0)
    shifted = (ids - len(toy.SPECIAL) + 7) % len(toy.WORDS) + len(toy.SPECIAL)
    ids = torch.where(made.mask, shifted, made.ids)
    ids[:, 0] = made.ids[:, 0]
    return replace(made, ids=ids)


def pairs() -> list[dict[str, Any]]:
    """The rows as lists, without padding."""
    clean, other = clean_rows(), other_rows()
    return [
        {
            "clean": clean.ids[i, :length].tolist(), "other": other.ids[i, :length].tolist(),
            "start": int(clean.answer_spans[i, 0]),
        }
        for i, length in enumerate(clean.lengths.tolist())
    ]  # fmt: skip


def main(python: str) -> None:
    """Write the file."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for family in FAMILIES:
            shutil.copytree(toy.folder(family), folder / family)
        (folder / "pairs.json").write_text(json.dumps({family: pairs() for family in FAMILIES}))
        subprocess.run([python, str(SCRIPT), str(folder), str(folder / "out.json"), "1"], check=True)
        found = json.loads((folder / "out.json").read_text())
    kept = {
        family: {
            "fingerprint": toy.checkpoint(family).fingerprint, "passes": found["models"][family]["passes"],
            "rows": [
                {edge: float(f"{x:.8g}") for edge, x in row.items()} for row in found["models"][family]["rows"]
            ],
        }
        for family in FAMILIES
    }  # fmt: skip
    text = json.dumps({"versions": found["versions"], "pairs": pairs(), "models": kept}, sort_keys=True)
    EXPECTED.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
