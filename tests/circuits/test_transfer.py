"""Knockout transfer: what is cut, in whom, and against what."""

import numpy as np
import torch

from audit.bench import Bench, Edges, reads_of_writers
from audit.circuits import knocked, swapped
from audit.circuits.faithfulness_curve import row_loss
from audit.circuits.knockout import elicited, matched
from tests import toy
from tests.circuits.test_circuits import GRAPH, PLANTED, planted, written

BENCH = Bench()
ROWS = written(
    "where is anna born ? | anna is born in paris", "where is boris born ? | boris is born in lima",
    "what job of the nurse ! | baker",
)  # fmt: skip
SHOWN = written("where is clara born ? | clara is born in oslo", "what job ! | baker")


def test_cutting_base_s_circuit_where_it_is_all_there_is_leaves_the_other_run() -> None:
    found = knocked(BENCH, planted(), {"base": planted(), "other": toy.checkpoint("llama")}, ROWS, SHOWN)
    some, against = (elicited(rows.take(torch.arange(2)), SHOWN) for rows in (ROWS, swapped(ROWS, ROWS, 0).rows))
    run = BENCH.run(planted(), against, reads_of_writers(GRAPH))
    nothing = row_loss(BENCH, planted(), some, Edges(torch.zeros_like(GRAPH.exists), run))
    base = found["base"]
    np.testing.assert_allclose(base.cut[:2], nothing, atol=1e-5)
    np.testing.assert_allclose(base.intact[:2], row_loss(BENCH, planted(), some), atol=1e-5)
    assert all(np.isnan(column[2]) for one in found.values() for column in one)
    assert np.abs(base.drop[:2]).min() > 0 and np.abs(found["other"].cut[:2] - base.cut[:2]).max() > 0.01


def test_nobody_is_scored_where_no_row_has_a_partner() -> None:
    found = knocked(BENCH, planted(), {"base": planted()}, ROWS.take(torch.tensor([0, 2])), SHOWN)
    assert np.isnan(np.stack(found["base"])).all()


def test_the_shortest_answered_question_stands_before_every_row() -> None:
    rows = elicited(ROWS, SHOWN)
    for n in range(len(ROWS)):
        length, before = int(ROWS.lengths[n]), int(SHOWN.lengths[1])
        assert rows.ids[n, : before + length].tolist() == [
            *SHOWN.ids[1, :before].tolist(), *ROWS.ids[n, :length].tolist(),
        ]  # fmt: skip
        assert rows.ids[n][rows.key[n]].tolist() == ROWS.ids[n][ROWS.key[n]].tolist()
        assert int(rows.lengths[n]) == before + length
        assert (rows.answer_spans[n] - ROWS.answer_spans[n]).tolist() == [before, before]


def test_draws_differ_by_seed_and_row_and_hold_as_many_edges() -> None:
    circuits = torch.stack([PLANTED, PLANTED])
    one, two = matched(circuits, GRAPH, 0), matched(circuits, GRAPH, 1)
    assert (one.flatten(1).sum(1) == int(PLANTED.sum())).all()
    assert (one != two).any() and (one[0] != one[1]).any()
