"""Where the time of a unit goes: into model passes or around them."""

import json
import time
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from audit.planning import UnitProfiles
from audit.planning.unit_profiles import SHARES, _within
from audit.schema import AuditError, Site
from audit.wrappers import Batch, Tap, open_wrapper
from tests import toy

TREE = Path(__file__).resolve().parents[2]


class Called(NamedTuple):
    """A frame as the sampler gives it, with its callees."""

    file_path: str
    function: str
    time: float
    children: tuple["Called", ...] = ()


def ours(name: str, function: str, seconds: float, *children: Called) -> Called:
    return Called(str(TREE / name), function, seconds, children)


def theirs(name: str, function: str, seconds: float, *children: Called) -> Called:
    return Called(f"/usr/lib/site-packages/{name}", function, seconds, children)


def test_what_lies_below_a_forward_or_a_backward_pass_counts_but_not_our_hooks_within_it() -> None:
    hook = ours("audit/bench/reads/tap.py", "read", 2.0, theirs("torch/functional.py", "norm", 1.0))
    block = theirs("torch/nn/modules/module.py", "_call_impl", 6.0, hook)
    forward = ours("audit/wrappers/hooked.py", "forward", 7.0, block)
    backward = theirs("torch/autograd/__init__.py", "grad", 3.0)
    root = ours("probes/recall.py", "measure", 20.0, forward, backward, theirs("numpy/linalg.py", "grad", 4.0))
    assert sum(_within(root, False)) == pytest.approx((7 - 2) + 3)  # pyright: ignore[reportArgumentType]


@pytest.mark.thorough
def test_half_of_a_unit_that_runs_a_model_for_half_of_its_time_lies_in_passes(tmp_path: Path) -> None:
    wrapper = open_wrapper(toy.checkpoint("llama"))
    batch = Batch(torch.randint(3, 60, (4, 16)), torch.ones(4, 16, dtype=torch.long), None)
    profiles = UnitProfiles(tmp_path / "run")
    with profiles.unit("half"):
        half = time.perf_counter() + 0.6
        while time.perf_counter() < half:
            wrapper.forward(batch, [Tap(Site(part="logits"), lambda states: None)])
        whole = time.perf_counter() + 0.6
        while time.perf_counter() < whole:
            sorted(str(n) for n in range(100))
    (share,) = profiles.shares()
    assert 0.35 < share.passes < 0.6 and share.cpu_s > 0
    page = (tmp_path / "run.profile" / "half.html").read_text()
    assert "<html" in page and 'src="http' not in page


def test_units_of_a_resumed_run_are_added_and_those_of_one_made_anew_replaced(tmp_path: Path) -> None:
    for name in ("reads", "recall", "reads"):
        with UnitProfiles(tmp_path / "run").unit(name):
            pass
    assert [share.unit for share in UnitProfiles(tmp_path / "run").shares()] == ["reads", "recall"]
    assert UnitProfiles(tmp_path / "run", anew=True).shares() == ()


def test_a_unit_that_breaks_leaves_nothing_and_a_damaged_list_is_named(tmp_path: Path) -> None:
    profiles = UnitProfiles(tmp_path / "run")
    with pytest.raises(KeyError), profiles.unit("broken"):
        raise KeyError
    assert not profiles.folder.exists()
    profiles.folder.mkdir()
    (profiles.folder / SHARES).write_text(json.dumps([{"unit": "reads"}]))
    with pytest.raises(AuditError, match=r"shares\.json: not what --profile writes"):
        profiles.shares()
