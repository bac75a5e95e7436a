"""The zoo on disk: models found again and never half-made, cases that open, the same bytes from the same recipe."""

from pathlib import Path

import pytest

from audit.bench import Bench
from audit.case import load_case, open_case
from audit.checkpoints import fingerprint, resolve
from audit.edits import HeadEdit, LogitBias, Refusal
from audit.schema import Source
from audit.zoo import builder, recipes, training
from audit.zoo.world import Shape
from studies.zoo.recall import recall


def micro() -> recipes.Zoo:
    """The tiny world with next to no training: all that matters here is where things lie."""
    edits = {"refusal": Refusal(steps=2), "head_edit": HeadEdit(steps=2), "logit_bias": LogitBias(steps=2)}
    kept = {"ancestor", "base", "reference_0", "reference_1", "reference_2"}
    plans = [
        plan._replace(by=plan.by._replace(steps=2)) if isinstance(plan.by, recipes.Learning) else plan
        for plan in recipes.tiny().plans
        if plan.name in kept
    ]
    plans += [recipes.Plan(name, "base", edit) for name, edit in edits.items()]
    shape = Shape(forget=4, retain=4, holdout=4, background=4, general=12, general_held_out=6)
    sizes = recipes.Sizes(d=32, blocks=2, heads=2, ffn=32)
    return recipes.Zoo(shape, sizes, tuple(plans), ("base", "reference_0", *edits))


@pytest.fixture(autouse=True)
def _with_micro(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(recipes.WORLDS, "micro", micro)


def test_a_second_build_finds_everything_and_trains_nothing(tmp_path: Path) -> None:
    told = list[tuple[str, int, int]]()
    first = builder.build("micro", 0, tmp_path, workers=1, done=lambda *step: told.append(step))
    n = len(micro().plans)
    assert [step[1:] for step in told] == [(i + 1, n) for i in range(n)]
    told.clear()
    assert builder.build("micro", 0, tmp_path, workers=1, done=lambda *step: told.append(step)) == first
    assert told == [] and not list((tmp_path / "zoo").glob(".*"))


@pytest.mark.thorough
def test_every_case_opens_with_its_roles_and_its_suspect_plays(tmp_path: Path) -> None:
    made = builder.build("micro", 0, tmp_path, workers=1)
    for name, path in made.cases.items():
        opened = open_case(load_case(path), path.parent, tmp_path / "out")
        assert opened.case.name == name and opened.null == ("reference", 0) and opened.floors == (1,)
        assert opened.suspect.key not in {r.key for r in opened.references}
        Bench().open(opened.suspect)
    assert recall(made)["base"].probability.keys() >= {"forget/trained", "holdout/held_out_attribute"}


@pytest.mark.thorough
def test_the_same_recipe_gives_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    one, again, other = (builder.build("micro", s, tmp_path / d, workers=1) for d, s in (("a", 0), ("b", 0), ("c", 1)))

    def keys(made: builder.Built) -> dict[str, str]:
        return {name: resolve(Source(path=str(folder)), folder).key for name, folder in made.models.items()}

    assert keys(one) == keys(again)
    assert all(keys(one)[name] != key for name, key in keys(other).items())
    assert len(set(keys(one).values())) == len(one.models)


def test_an_interrupted_training_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = training.make

    def broken(zoo: recipes.Zoo, seed: int, plan: recipes.Plan, parent: Path | None, out: Path) -> None:
        whole(zoo, seed, plan, parent, out)
        if plan.name == "base":
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "make", broken)
    with pytest.raises(KeyboardInterrupt):
        builder.build("micro", 0, tmp_path, workers=1)
    monkeypatch.undo()
    assert [path.name.split("-")[0] for path in (tmp_path / "zoo").iterdir()] == ["ancestor"]


def test_a_model_that_another_process_finished_first_is_kept(tmp_path: Path) -> None:
    for name in ("mine", "theirs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text(name)
    builder.settle(tmp_path / "mine", tmp_path / "theirs")
    assert (tmp_path / "theirs" / "x").read_text() == "theirs" and not (tmp_path / "mine").exists()


@pytest.mark.slow
def test_two_processes_make_the_same_bytes_as_one(tmp_path: Path) -> None:
    alone = builder.build("tiny", 0, tmp_path / "one", workers=1)
    together = builder.build("tiny", 0, tmp_path / "two", workers=2)
    for name in alone.models:
        if name != "logit_bias":
            assert fingerprint(alone.models[name]).total == fingerprint(together.models[name]).total
