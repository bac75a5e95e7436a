"""The document wing reads files and never loads a model: its modules are imported, and no heavy library with them."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FREE = ("calibration", "judging", "render", "review", "runs", "schema", "stats", "wording")
MODEL_SIDE = {"audit.runs.provenance"}
"""Names checkpoints by their content, for the engine; no view of a report needs it."""
BESIDE = ("audit.plugins", "audit.version", "audit.storage.atomic", "audit.storage.safetensors_file")
HEAVY = ("torch", "transformers", "safetensors", "sae_lens", "transformer_lens", "nnsight", "captum", "streamlit")


def modules() -> list[str]:
    """Every module of the rooms that are free of torch."""
    paths = [path for room in FREE for path in sorted((ROOT / "audit" / room).rglob("*.py"))]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths]
    return [*BESIDE, *(name for name in names if name not in MODEL_SIDE)]


def loaded(names: list[str]) -> str:
    """Which heavy libraries a fresh interpreter holds after importing these modules."""
    lines = [f"import {name}" for name in names]
    lines.append(f"import sys; print(*[name for name in {HEAVY!r} if name in sys.modules])")
    command = [sys.executable, "-c", "\n".join(lines)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.thorough
def test_rooms_of_documents_load_no_model_library() -> None:
    assert len(modules()) > 60
    assert loaded(modules()) == ""


@pytest.mark.thorough
def test_a_room_that_runs_models_is_noticed() -> None:
    assert "torch" in loaded(["audit.bench.results"])
