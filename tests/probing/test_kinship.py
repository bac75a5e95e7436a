"""Who descends from whom, by weights alone: copies and edits are seen at any scale, models trained apart are not."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy import ndarray

from audit.probing.kinship import COPY, Kinship, descents, unsettled

WIDTH = 4000
"""Weights of the models drawn here: directions drawn at random are at right angles to one another, to 2 %."""


class World:
    """Weights of models: an ancestor at 0, what everybody learns, what each learns besides, and noise of its own."""

    def __init__(self, seed: int, shared: float, own: float) -> None:
        self.rng = np.random.default_rng(seed)
        self.hub, self.own = shared * self.direction(), own
        self.models = {"ancestor": np.zeros(WIDTH)}
        self.models["base"] = self.apart() + 0.3 * self.direction()

    def direction(self) -> ndarray:
        x = self.rng.standard_normal(WIDTH)
        return x / np.linalg.norm(x)

    def apart(self) -> ndarray:
        """A model trained from the ancestor without the forget set."""
        return self.hub + self.own * self.direction()

    def edit(self, of: str, size: float) -> ndarray:
        """A model moved a little, in a direction of its own."""
        start = self.models[of]
        return start + size * float(np.linalg.norm(start - self.hub)) * self.direction()

    def kinship(self, *left_out: str) -> Kinship:
        models = {name: x for name, x in self.models.items() if name not in left_out}
        names = ("base", *(name for name in models if name != "base"))
        stacked = np.stack([models[name] - models["base"] for name in names])
        return Kinship(names, stacked @ stacked.T)


shares, noises, sizes = st.floats(0.1, 5.0), st.floats(0.3, 1.5), st.floats(0.05, 0.6)


@given(seed=st.integers(0, 99), shared=shares, own=noises, size=sizes)
def test_models_trained_apart_are_never_refused_however_much_everybody_learned(
    seed: int, shared: float, own: float, size: float
) -> None:
    world = World(seed, shared, own)
    world.models |= {"suspect": world.edit("base", size), "reference 0": world.apart(), "reference 1": world.apart()}
    for left_out in ((), ("ancestor",)):
        kin = world.kinship(*left_out)
        assert descents(kin)[0] == {} == unsettled(kin, {})


@given(seed=st.integers(0, 99), shared=shares, own=noises, size=sizes, first=st.booleans())
def test_an_edit_of_base_beside_a_genuine_reference_is_refused_and_the_genuine_one_stays(
    seed: int, shared: float, own: float, size: float, first: bool
) -> None:
    world = World(seed, shared, own)
    edit, genuine = ("reference 0", "reference 1") if first else ("reference 1", "reference 0")
    world.models |= {"suspect": world.edit("base", 0.3), edit: world.edit("base", size), genuine: world.apart()}
    if shared <= own:  # where little noise is left beside what everybody learned, outputs and states have to decide
        assert set(descents(world.kinship())[0]) == {edit}
    kin = world.kinship("ancestor")
    failed = descents(kin)[0]
    assert genuine not in failed
    assert edit in failed or {edit, genuine} == set(unsettled(kin, failed))


@given(
    seed=st.integers(0, 99), shared=shares, own=noises, size=sizes, noise=st.floats(1e-6, 0.3 * COPY),
    clean=st.booleans(),
)  # fmt: skip
def test_the_suspect_saved_again_is_refused_whatever_the_suspect_is(
    seed: int, shared: float, own: float, size: float, noise: float, clean: bool
) -> None:
    world = World(seed, shared, own)
    world.models["suspect"] = world.apart() if clean else world.edit("base", size)
    way = float(np.linalg.norm(world.models["suspect"] - world.models["base"]))
    for n in range(2):
        world.models[f"reference {n}"] = world.models["suspect"] + noise * way * world.direction()
    world.models["reference 2"] = world.apart()
    for left_out in ((), ("ancestor",)):
        assert {"reference 0", "reference 1"} <= set(failed := descents(world.kinship(*left_out))[0])
        assert {failed[f"reference {n}"].of for n in range(2)} == {"suspect"}
        assert "reference 2" not in failed or shared > own


@given(seed=st.integers(0, 99), shared=shares, own=noises)
def test_of_two_references_that_are_one_model_the_later_takes_no_part(seed: int, shared: float, own: float) -> None:
    world = World(seed, shared, own)
    world.models |= {"suspect": world.edit("base", 0.2), "reference 0": world.apart()}
    world.models["reference 1"] = world.models["reference 0"] + 1e-3 * world.direction()
    failed = descents(world.kinship("ancestor"))[0]
    assert set(failed) == {"reference 1"} and failed["reference 1"].of == "reference 0"


@given(seed=st.integers(0, 99), own=noises, size=sizes)
def test_a_lone_reference_that_descends_from_base_is_refused_by_the_ancestor(
    seed: int, own: float, size: float
) -> None:
    world = World(seed, own, own)
    world.models |= {"suspect": world.edit("base", 0.3), "reference 0": world.edit("base", size)}
    assert set(descents(world.kinship())[0]) == {"reference 0"}
    world.models["reference 0"] = world.apart()
    assert descents(world.kinship())[0] == {}


def test_an_ancestor_that_is_base_saved_again_is_refused() -> None:
    world = World(0, 1.0, 1.0)
    world.models |= {"suspect": world.edit("base", 0.3), "reference 0": world.apart(), "reference 1": world.apart()}
    world.models["ancestor"] = world.models["base"] + 1e-4 * world.direction()
    assert "ancestor" in descents(world.kinship())[0]
