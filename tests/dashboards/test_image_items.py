"""The items of an audit of images: masked until they are asked for, then small pictures of the data that are there."""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from audit.runs import thumbnail
from audit.schema import DataFiles
from audit.wording import IMAGE, counted
from dashboards.thumbnails import NOT_FOUND, thumbnails
from dashboards.vault import Vault
from tests import golden, run_store
from tests.dashboards.test_pages import opened, told

ROLES = ("base", "suspect", "reference")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the data files of a case and, below ``runs``, one finished audit of their images."""
    monkeypatch.setenv("RESIDUA_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    rng, hashes = np.random.default_rng(0), dict[str, str]()
    for cohort in ("forget", "retain"):
        np.savez(f"{cohort}.npz", x=rng.integers(0, 256, (6, 8, 8), dtype=np.uint8), y=np.arange(6))
        hashes[cohort] = hashlib.sha256(Path(f"{cohort}.npz").read_bytes()).hexdigest()
    report = golden.report("suppressed")
    plan = report.plan.model_copy(update={
        "case": report.plan.case.model_copy(update={"data": DataFiles(forget="forget.npz", retain="retain.npz")}),
        "data_sha256": hashes,
    })  # fmt: skip
    evidence = tuple(e.model_copy(update={"measurement": counted(e.measurement, IMAGE)}) for e in report.evidence)
    rows = [{"item": f"forget-{i}", "group": f"forget-{i}", "role": role, "prompt": "", "target": "3", "output": "",
             "score": float(i), "axis_value": 0} for i in range(1, 7) for role in ROLES]  # fmt: skip
    images = report.model_copy(update={"plan": plan, "evidence": evidence, "masked": True})
    run_store.issue(images, tmp_path / "runs" / "world" / "a", pa.Table.from_pylist(rows))
    return tmp_path


def test_images_are_masked_until_they_are_asked_for(world: Path) -> None:
    at = opened(world / "runs", "items")
    shown = at.dataframe[0].value
    assert set(shown["image"]) == {"‹masked, an image›"} and set(shown["class"]) == {"3"}
    assert "data:image/png" not in str(shown.to_dict()) + told(at) and not any("forget-" in x for x in shown["item"])
    assert "copied words" not in shown.columns
    at.toggle(key="reveal").set_value(True).run()
    pixels, revealed = np.load("forget.npz")["x"], at.dataframe[0].value
    assert list(revealed["image"]) == [thumbnail(image) for image in pixels]
    assert "The images are shown" in told(at)


def test_images_that_are_not_there_are_said_to_be_missing(world: Path) -> None:
    Path("forget.npz").write_bytes(b"others")
    at = opened(world / "runs", "items")
    at.toggle(key="reveal").set_value(True).run()
    assert set(at.dataframe[0].value["image"]) == {"‹masked, an image›"} and NOT_FOUND in told(at)


def test_a_run_leads_to_no_file_outside_the_folders_that_are_looked_in(world: Path, tmp_path: Path) -> None:
    report = golden.report("suppressed")
    outside = tmp_path.parent / f"{tmp_path.name}-outside.npz"
    outside.write_bytes(Path("forget.npz").read_bytes())
    digest = hashlib.sha256(outside.read_bytes()).hexdigest()
    for stated in (str(outside), f"../{outside.name}"):
        data = DataFiles(forget=stated, retain=stated)
        plan = report.plan.model_copy(update={
            "case": report.plan.case.model_copy(update={"data": data}),
            "data_sha256": {"forget": digest, "retain": digest},
        })  # fmt: skip
        assert not thumbnails(Vault(world / "runs"), report.model_copy(update={"plan": plan}))
    outside.unlink()


def test_no_page_speaks_of_people(world: Path) -> None:
    for page in ("verdict", "evidence", "report"):
        words = told(opened(world / "runs", page))
        assert "images" in words, page
        assert " people of the forget set" not in words and "Who was audited" not in words, page
