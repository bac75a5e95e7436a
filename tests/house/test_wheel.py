"""What an installation takes: the built wheel, its names and size, and the demo from a fresh environment."""

import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

import audit
import residua

ROOT = Path(__file__).resolve().parents[2]
TOP_LEVEL = {"residua", "audit", "probes", "saes", "dashboards"}
MOST_BYTES = 8_000_000


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    words = [sys.executable, "-m", "pip", "wheel", str(ROOT), "--no-deps", "--no-build-isolation", "-q", "-w", str(out)]
    subprocess.run(words, check=True, capture_output=True)
    return next(out.glob("residua-*.whl"))


def test_the_documented_door_is_the_products_own() -> None:
    assert set(residua.__all__) == set(audit.__all__) == set(dir(residua))
    assert residua.run is audit.run and residua.Case is audit.Case and residua.__version__ == audit.__version__
    typed = (ROOT / "residua" / "__init__.pyi").read_text(encoding="utf-8")
    assert all(f"from audit import {name} as {name}\n" in typed for name in audit.__all__)
    with pytest.raises(AttributeError):
        residua.no_such_name  # noqa: B018  # type: ignore[attr-defined]


def test_the_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "residua", "--version"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"residua {audit.__version__}\n"), done.stderr


def test_the_product_is_described_in_the_same_words_everywhere() -> None:
    described = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["description"]
    for words in (described, residua.__doc__, audit.__doc__):
        assert "how sure are we?" in (words or "")


def test_the_changelog_dates_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## {re.escape(audit.__version__)} \(\d{{4}}-\d\d-\d\d\)$", text, re.M)


@pytest.mark.thorough
def test_a_wheel_holds_the_product_and_no_studies(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        entries = [entry for entry in archive.infolist() if ".dist-info/" not in entry.filename]
    assert {entry.filename.partition("/")[0] for entry in entries} == TOP_LEVEL
    assert sum(entry.file_size for entry in entries) < MOST_BYTES
    names = {entry.filename for entry in entries}
    assert {"residua/py.typed", "audit/py.typed", "residua/__init__.pyi", "probes/attacks/in_context.toml"} <= names


@pytest.mark.slow
def test_the_demo_runs_from_an_installed_wheel(wheel: Path, tmp_path: Path) -> None:
    """A fresh environment, beside the libraries of this one (without what is installed of the checkout)."""
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "env")], check=True)
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run([str(python), "-m", "pip", "install", "-q", "--no-deps", str(wheel)], check=True)
    env = {**os.environ, "PYTHONPATH": sysconfig.get_path("purelib"), "RESIDUA_CACHE": str(tmp_path / "cache")}
    where = subprocess.run(
        [str(python), "-c", "import audit, residua; print(audit.__file__)"],
        cwd=tmp_path, env=env, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert str(tmp_path / "env") in where.stdout
    done = subprocess.run(
        [str(tmp_path / "env" / "bin" / "residua"), "demo", "--world", "tiny", "-o", str(tmp_path / "runs")],
        cwd=tmp_path, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "base" in done.stdout and list((tmp_path / "runs").rglob("report.html"))
