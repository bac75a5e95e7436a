"""A world under attack: a killed call is taken up, the mean over people is the metric."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from audit.zoo import Drawn, mechanisms, pool_design
from audit.zoo.recipes import Sizes
from audit.zoo.world import Shape
from studies.faithfulness import attacks
from studies.faithfulness.readings import ATTACKS, Reading, read_all
from tests.pools.test_zoo_pools import MICRO


@pytest.mark.slow
def test_a_world_is_attacked_killed_and_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mechanisms, "KIT", MICRO)
    monkeypatch.setattr("probes.reverse_patch.LEAST_GAP", 0.05)
    hand = ("grad_diff",)
    share = pool_design.Share(7, "llama", hand, of_facts=hand, crossed=("rephrased",), doses=False, full=False)
    shape = Shape(6, 6, 4, 6, general=12, general_held_out=6, strangers=2)
    drawn = Drawn(share, shape, Sizes(32, 2, 2, 64, "llama"), (40, 1e-2), (60, 1e-2), batch=16)
    places = attacks.Places(tmp_path / "models", tmp_path / "work", tmp_path / "out")
    places.models.mkdir()
    read, left = attacks._Attacking._read, [7]

    def until_killed(*args: object) -> Reading:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return read(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(attacks._Attacking, "_read", until_killed)
    with pytest.raises(KeyboardInterrupt):
        attacks.attack_world(drawn, places)
    left[0] = 100
    found = read_all(attacks.attack_world(drawn, places).parent)[0]
    assert not list(places.work.iterdir()) and left[0] > 100 - len(found.readings)
    states = Counter((r.model, r.state) for r in found.readings)
    assert set(states.values()) == {1} and {s for m, s in states if m == "grad_diff"} == {"before", *ATTACKS}
    assert {s for m, s in states if m == "reference_0"} == {"before", *ATTACKS}
    assert not {m for m, _ in states} & {"destroyed", "grad_diff_of_facts"}
    for r in found.readings:
        assert bool(r.people) == (r.state == "before" and r.pool != "described")
        for key in ("logit_lens", "depth_profile", "depth_profile_answer"):
            if r.people and isinstance(r.values[key], float):  # the mean over people is the metric
                assert np.mean(list(r.people[key].values())) == pytest.approx(r.values[key], abs=1e-4)
    before = {r.model: r.values["probability"] for r in found.readings if r.state == "before"}
    after = {r.model: r.values["probability"] for r in found.readings if r.state == "relearned"}
    assert after["grad_diff"] > before["grad_diff"]  # type: ignore[operator]
    assert attacks.attack_world(drawn, places).is_file() and not list(places.work.iterdir())
