"""The effect over a family of layers: its largest, which finds, and its overall size, which bounds."""

import numpy as np
import pytest

from audit.findings import Interval, Overall
from probes._effects import Design, Panel, Sides, assess


def test_the_overall_effect_is_the_ratio_of_the_sums_over_layers() -> None:
    rng = np.random.default_rng(0)
    base = np.array([0.4, 0.8, 1.0]) + 0.02 * rng.standard_normal((12, 3))
    suspect = np.array([0.2, 0.1, 0.0]) + 0.02 * rng.standard_normal((12, 3))
    null = 0.02 * rng.standard_normal((12, 3))
    other = np.array([-0.1, 0.0, 0.05]) + 0.02 * rng.standard_normal((12, 3))
    panel = Panel(Sides(suspect), Sides(base), Sides(null), (Sides(other),))
    found = assess(panel, Design(seed=0, least_gap=0.3, draws=199))
    assert isinstance(found.overall, Overall) and isinstance(found.overall.ci95, Interval)
    assert found.overall.value == pytest.approx((suspect - null).sum() / (base - null).sum())
    assert found.overall.floor == pytest.approx(abs((other - null).sum() / (base - null).sum()))
    assert found.value == pytest.approx(((suspect - null).mean(0) / (base - null).mean(0)).max())
    draws = [rng.integers(0, 12, 12) for _ in range(4000)]
    direct = np.percentile([(suspect - null)[i].sum() / (base - null)[i].sum() for i in draws], [2.5, 97.5])
    assert [found.overall.ci95.lo, found.overall.ci95.hi] == pytest.approx(direct, abs=0.01)
