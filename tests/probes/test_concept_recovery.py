"""What is counted as brought back: of what is hidden, beyond a model that never knew, by the best of all attacks."""

import numpy as np
import pytest

from audit.schema import Missing
from probes._concept_attacks import LETTERS, PLAIN, _share
from probes._concept_geometry import along_base, direction, off_manifold
from probes._concept_recovery import Attacked, attacked_of, by_attack, recoverable, recovered
from probes._concept_scene import Response

N = 24


def attacked(suspect: tuple[float, ...], null: tuple[float, ...], plain: float = 0.0, noise: float = 0.02) -> Attacked:
    """Base says .9 under every attack; the others as stated."""
    rng = np.random.default_rng(0)

    def people(level: tuple[float, ...]) -> np.ndarray:
        return np.array(level) + noise * rng.standard_normal((N, len(level)))

    names = tuple(f"a{n}" for n in range(len(suspect)))
    under = {"base": people((0.9,) * len(suspect)), "suspect": people(suspect), "null": people(null)}
    level = {"base": 0.9, "suspect": plain, "null": 0.0}
    quiet = {name: x + noise * rng.standard_normal(N) for name, x in level.items()}
    return Attacked(names, tuple(map(str, range(N))), under, quiet, {n: np.zeros(len(names)) for n in under})


def test_what_one_attack_brings_back_is_found_and_named() -> None:
    result = recovered(attacked((0.0, 0.45, 0.0), (0.0, 0.0, 0.0)), 0, 999)
    assert not isinstance(result, str) and result.attack == "a1"
    assert result.value == pytest.approx(0.5, abs=0.05) and result.p < 0.01 and recoverable(result).holds is True


def test_what_comes_in_a_model_that_never_knew_as_well_is_not_brought_back() -> None:
    result = recovered(attacked((0.0, 0.45), (0.0, 0.45)), 0, 999)
    assert not isinstance(result, str) and abs(result.value) < 0.05 and recoverable(result).holds is False
    assert result.null == pytest.approx(0.5, abs=0.05)


def test_the_largest_of_many_attacks_that_bring_nothing_is_no_finding() -> None:
    alarms = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        empty = attacked((0.0,) * 8, (0.0,) * 8)
        noisy = {name: x + 0.1 * rng.standard_normal(x.shape) for name, x in empty.under.items()}
        result = recovered(empty._replace(under=noisy), seed, 499)
        assert not isinstance(result, str)
        alarms += result.p < 0.01
    assert alarms <= 1


def test_where_nothing_is_hidden_or_nobody_never_knew_the_rule_is_not_asked() -> None:
    intact = recovered(attacked((0.9,), (0.0,), plain=0.9), 0, 99)
    assert isinstance(intact, str) and isinstance(recoverable(intact).holds, Missing)
    sole = attacked((0.4,), (0.0,))
    without = sole._replace(under={k: v for k, v in sole.under.items() if k != "null"})
    assert isinstance(recovered(without, 0, 99), str)


def test_listing_has_a_row_an_attack_with_the_same_numbers() -> None:
    table = by_attack(attacked((0.0, 0.45), (0.0, 0.0)), 0.1, 0, 199)
    assert [row[0] for row in table.rows] == ["a0", "a1"]
    effect, back = table.rows[1][1], table.rows[1][4]
    assert effect == pytest.approx(0.5, abs=0.05) and back == pytest.approx(0.5, abs=0.05)


def test_pictures_that_one_attack_has_not_leave_all_of_them_and_controls_are_no_attacks() -> None:
    people = ["p", "q", "r"]
    values = {PLAIN: np.ones(3), LETTERS: np.ones(3), "crop": np.ones(3), "caption": np.array([1.0, np.nan, 1.0])}
    both = attacked_of({"base": values, "suspect": values}, {"base": dict.fromkeys(values, 0.0)}, people)
    assert both.people == ("p", "r") and both.attacks == ("crop", "caption")
    assert both.under["suspect"].shape == (2, 2) and both.plain["base"].shape == (2,)


def test_share_among_options_leaves_out_what_an_item_has_not() -> None:
    responses = Response(np.array([[0.2, 0.2], [0.2, 0.6]]), np.array([[0.1, 0.1], [0.3, 0.9]]))
    share = _share(responses, np.array([[True, True], [True, False]]))
    assert share.present.tolist() == [0.5, 1.0] and share.absent.tolist() == [0.25, 1.0]


def test_states_moved_off_the_data_lie_further_and_base_lies_at_one() -> None:
    import torch

    rng = torch.Generator().manual_seed(0)
    base = torch.randn(40, 6, 5, generator=rng)
    other = base.clone()
    other[:20, :, 0] += 8
    result = off_manifold({"base": base, "suspect": other}, 20)
    assert np.allclose(result["base"].distance, 1) and np.allclose(result["base"].norm, 1)
    assert (result["suspect"].distance > 1.5).all() and (result["suspect"].norm > 1.2).all()


def test_direction_of_a_turned_and_of_a_shrunk_concept() -> None:
    import torch

    rng = torch.Generator().manual_seed(1)
    noise = torch.randn(40, 1, 4, generator=rng) * 0.01
    base, turned = noise.clone(), noise.clone()
    base[:20, :, 0] += 2
    turned[:20, :, 1] += 2
    half = noise.clone()
    half[:20, :, 0] += 1
    assert direction(half[:, 0], base[:, 0], 20).cosine == pytest.approx(1, abs=0.01)
    assert direction(half[:, 0], base[:, 0], 20).length == pytest.approx(0.5, abs=0.02)
    assert abs(direction(turned[:, 0], base[:, 0], 20).cosine) < 0.05
    along = along_base({"base": base, "half": half, "turned": turned}, 20, np.arange(20) % 2)
    means = {name: float(x.mean()) for name, x in along.items()}
    assert means["base"] == pytest.approx(1, abs=0.02) and means["half"] == pytest.approx(0.5, abs=0.02)
    assert abs(means["turned"]) < 0.05
