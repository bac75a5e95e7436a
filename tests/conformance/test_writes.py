"""Every write of the folder, held to the same promises on a tiny model. Nothing here knows which there are."""

from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from audit.bench import Bench, Write
from audit.bench.writes.features import Dictionary
from audit.checkpoints import write_edited
from audit.plugins import discover
from audit.schema import AuditError, Read, Site
from tests import toy
from tests.conformance.write_examples import ROWS, example, hints, named_states, other

WRITES = discover("audit.bench.writes", Write)
ANSWERS = Read(site=Site(part="logits"), at="answer", reduce="logprob")
POSITIONS = ("last", "answer", "key", "all")
each_write = pytest.mark.parametrize("kind", WRITES)
with_positions = pytest.mark.parametrize("kind", [kind for kind in WRITES if "positions" in hints(WRITES[kind])])
with_rows = pytest.mark.parametrize("kind", [kind for kind in WRITES if "rows" in hints(WRITES[kind])])
with_a_site = pytest.mark.parametrize("kind", [kind for kind in WRITES if "site" in hints(WRITES[kind])])


@cache
def bench() -> Bench:
    return Bench()


def answers(*writes: Write, by: Bench | None = None) -> Tensor:
    """Log-probabilities of the answers under the writes."""
    return (by or bench()).run(toy.checkpoint("llama"), ROWS, [ANSWERS], writes)[ANSWERS]


def changed(write: Write) -> Tensor:
    """[row pos]: whether the state at the write's site is another one."""
    read = Read(site=write.site, at="all")  # type: ignore[attr-defined]
    before, after = (bench().run(toy.checkpoint("llama"), ROWS, [read], w)[read] for w in ((), (write,)))
    return (before != after).any(-1)


def stored(write: Write) -> dict[str, Tensor] | None:
    """The write as it lies on disk, if it can."""
    try:
        return write.to_delta()
    except AuditError as error:
        assert "cannot be stored" in str(error)
        return None


def test_there_are_writes() -> None:
    assert len(WRITES) > 1


@each_write
def test_write_is_called_as_its_file(kind: str) -> None:
    assert WRITES[kind].kind() == example(WRITES[kind]).kind() == kind


@each_write
def test_write_bites(kind: str) -> None:
    write = example(WRITES[kind])
    moved = (answers(write) - answers()).abs()
    assert write.bites() and moved.max() > 0.01 and torch.isfinite(moved).all()


@each_write
@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_write_says_whether_it_bites(kind: str, fill: float) -> None:
    write, read = example(WRITES[kind], fill), Read(site=Site(part="logits"), at="answer")
    before, after = (bench().run(toy.checkpoint("llama"), ROWS, [read], writes)[read] for writes in ((), (write,)))
    assert write.bites() == (not torch.equal(before, after))


@with_rows
def test_write_on_no_rows_does_not_bite(kind: str) -> None:
    write = example(WRITES[kind], rows=torch.zeros(len(ROWS), dtype=torch.bool))
    assert not write.bites() and torch.equal(answers(write), answers())


@each_write
def test_write_has_a_stable_key(kind: str) -> None:
    key = example(WRITES[kind]).key()
    assert key is not None and list(key) == list(example(WRITES[kind]).key() or ())
    assert all(isinstance(part, str) for part in key)


@each_write
def test_every_field_of_a_write_is_in_its_key(kind: str) -> None:
    fields = [name for name, hint in hints(WRITES[kind]).items() if hint is not Dictionary]  # which `name` stands for
    keys = [example(WRITES[kind]).key(), *(other(WRITES[kind], name).key() for name in fields)]
    assert len({tuple(key) for key in keys if key is not None}) == len(fields) + 1


@each_write
def test_write_is_cut_to_the_rows_of_a_batch(kind: str) -> None:
    write = example(WRITES[kind])
    torch.testing.assert_close(answers(write, by=Bench(token_budget=40)), answers(write), atol=2e-5, rtol=1e-5)


@with_positions
@pytest.mark.parametrize("positions", POSITIONS)
def test_write_acts_on_the_positions_it_names_and_on_no_other(kind: str, positions: str) -> None:
    given = {"source": toy.checkpoint("llama", 1)} if "source" in hints(WRITES[kind]) else {}
    assert torch.equal(changed(example(WRITES[kind], positions=positions, **given)), named_states(ROWS, positions))


@with_positions
def test_write_acts_on_no_mean_of_positions(kind: str) -> None:
    with pytest.raises(AuditError, match="mean"):
        answers(example(WRITES[kind], positions="mean"))


@with_rows
def test_write_acts_on_the_rows_it_names_and_on_no_other(kind: str) -> None:
    rows = torch.tensor([True, False, True, True, False, False])
    assert torch.equal(changed(example(WRITES[kind], rows=rows)), ROWS.mask & rows[:, None])


@with_a_site
def test_write_without_limits_acts_on_every_row(kind: str) -> None:
    assert changed(example(WRITES[kind])).any(1).all()


@each_write
def test_write_comes_back_from_its_delta(kind: str) -> None:
    write = example(WRITES[kind])
    delta = stored(write)
    if delta is None:
        with pytest.raises(ValueError, match="cannot be stored"):
            WRITES[kind].from_delta({})
        return
    (again,) = WRITES[kind].from_delta(delta)
    assert again.key() == write.key()
    with pytest.raises(ValueError, match="hold"):
        WRITES[kind].from_delta({"nonsense": torch.ones(2)})


@pytest.mark.parametrize("kind", [kind for kind in WRITES if stored(example(WRITES[kind])) is not None])
def test_edit_of_a_stored_write_is_the_write(kind: str, tmp_path: Path) -> None:
    write = example(WRITES[kind])
    delta = stored(write)
    assert delta is not None
    edited = write_edited(tmp_path / "edited", toy.checkpoint("llama"), "edit", {}, kind, delta)
    assert torch.equal(Bench().run(edited, ROWS, [ANSWERS])[ANSWERS], answers(write))


@each_write
def test_write_leaves_the_model_as_it_was(kind: str) -> None:
    before = answers()
    answers(example(WRITES[kind]))
    fresh = dict(toy.model("llama").named_parameters())
    assert all(torch.equal(p, fresh[n]) for n, p in bench().open(toy.checkpoint("llama")).parameters().items())
    assert torch.equal(answers(), before)
