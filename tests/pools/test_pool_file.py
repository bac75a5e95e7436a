"""A pool of real checkpoints: what its file may say, how it is replicated, and that it leaves calibrations."""

from pathlib import Path

import pytest

from audit.calibration import SUBJECTS, Subjects, read, read_library, read_pool
from audit.calibration.behaviour import Behaviour, Settings
from audit.judging import judge
from audit.planning import RunSettings
from audit.pools import load_pool, renew
from audit.schema import AuditError, Case, Report
from tests.golden import report
from tests.known_truth import DOMAIN, gate, measured

WORLD = """
[[world]]
base = {{ path = "base" }}
references = [{{ path = "r1" }}, {{ path = "r2" }}]
data = {{ forget = "forget.jsonl", retain = "retain.jsonl" }}
{listed}
"""
LISTED = "\n".join(
    f'[[world.{label}]]\npath = "{label}{n}"\nmechanism = "{"ab"[n % 2]}{label}"'
    for label in ("positive", "negative")
    for n in range(4)
)


def pool_file(tmp_path: Path, head: str = 'name = "mine"\n', worlds: int = 1) -> Path:
    path = tmp_path / "pool.toml"
    path.write_text(head + worlds * WORLD.format(listed=LISTED))
    return path


def test_local_paths_are_relative_to_the_file_and_hub_ids_stay(tmp_path: Path) -> None:
    path = pool_file(tmp_path)
    commit = "0" * 40
    path.write_text(path.read_text().replace('path = "r1"', f'path = "owner/name", commit = "{commit}"'))
    world = load_pool(path).world[0]
    assert world.base.path == str(tmp_path / "base")
    assert world.data.forget == str(tmp_path / "forget.jsonl")
    assert [source.path for source in world.references] == ["owner/name", str(tmp_path / "r2")]
    assert world.positive[0].source().path == str(tmp_path / "positive0")


def test_every_fault_of_a_pool_file_is_named(tmp_path: Path) -> None:
    path = pool_file(tmp_path, 'name = "mine"\nreplicates = "world"\n')
    path.write_text(path.read_text().replace('mechanism = "apositive"', 'mechanisms = "apositive"'))
    with pytest.raises(AuditError) as raised:
        load_pool(path)
    for fault in ("replicates", "world.0.positive.0.mechanism"):
        assert fault in raised.value.what
    for text in ("name = ", 'name = "none"'):
        path.write_text(text)
        with pytest.raises(AuditError):
            load_pool(path)
    with pytest.raises(AuditError, match="cannot be read"):
        load_pool(tmp_path / "absent.toml")


def fake_run(case: Case, out: Path, how: RunSettings) -> Report:
    """An audit whose outcome is known: positive checkpoints read 1 inside, negative ones 0."""
    name = Path(case.roles.suspect.path).name
    noise = 0.01 * int(name[-1]) + 0.001 * int(case.name[:4])
    effect = noise + (1.0 if name.startswith("positive") else 0.0)
    inside, lens = measured("reverse_patch", effect, 2.0, "causal"), measured("answer_lens", effect, 2.0, "decoding")
    assert how.calibrations is not None and not how.calibrations.exists(), "a pool is scored by its own cases alone"
    return report("suppressed").model_copy(
        update={"domain": DOMAIN, "evidence": tuple(judge(m) for m in (gate(1.0), inside, lens)), "calibrations": ()}
    )


def fake_behaviour(package: str, name: str, settings: Settings) -> Behaviour:
    """What a probe gives on a frozen world that is not made."""
    return Behaviour(probe=name, version=1, settings=dict(settings), values={"lift, value": 0.5})


@pytest.mark.thorough
@pytest.mark.parametrize(("head", "worlds", "units"), [("", 4, 4), ('replicate = "checkpoint"\n', 1, 4)])
def test_a_pool_of_checkpoints_leaves_calibrations_and_says_what_was_replicated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: str, worlds: int, units: int
) -> None:
    monkeypatch.setattr(renew, "run", fake_run)
    monkeypatch.setattr(renew, "behaviour_of", fake_behaviour)
    path, out = pool_file(tmp_path, f'name = "mine"\n{head}', worlds), tmp_path / "calibrations"
    done = renew.renew_pool(load_pool(path), path, out, RunSettings(), lambda step: None)
    assert done.worlds == len(read_pool(out / "scores")) == units
    subjects = read(out / SUBJECTS, Subjects)
    assert {(s.pool, s.kept) for s in subjects.subjects} == {("knowing", DOMAIN.forget_people), ("clean", 0)}
    assert set(read_library(out).calibrations) == {"reverse_patch", "answer_lens"}
    assert {c.behaviour for c in read_library(out).calibrations.values()} == set(read_library(out).records)
    assert ("replicated by checkpoint" in subjects.name) == (head != "")
    assert subjects.command == "residua calibrate --pool pool.toml --out calibrations"
    assert [row.rule for row in renew.rows(done.fitted)][-1] == "joint rule"
    joint = done.fitted.joint.record
    assert (joint.misses.k, joint.misses.n, joint.false_alarms.n) == (0, units, units)
