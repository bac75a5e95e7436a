"""The bare passes of an audit: what is recorded is what ran, and what is replayed is what was recorded."""

import tempfile
from pathlib import Path

import torch

from audit.bench import Bench, CausalLearner, Draw, Start, TrainData, TrainingRecipe, descend
from audit.case import Rows
from audit.schema import Read, Site
from saes import TensorActivations, TrainingSettings, train
from studies.speed import audit, pass_recorder, price
from studies.speed.pass_list import Back, Event, Head, Learnt, Opened, PassList, Run, Stepped, UnitPasses, counted
from studies.speed.pass_replayer import Replay
from studies.speed.price_worlds import FITTED, JUDGED, LONG, lines_of
from tests import toy

BLOCKS = toy.N_BLOCKS


def recorded(*act: str) -> PassList:
    """What the recorder sees of a bench that does some things with the toy Llama, after it was opened."""
    with pass_recorder.watched() as recorder:
        bench, ckpt, rows = Bench(), toy.checkpoint("llama"), toy.rows(5)
        bench.open(ckpt)
        for name in act:
            with recorder.within(name):
                ACTS[name](bench, rows)
        return recorder.passes()


def _forward(bench: Bench, rows: Rows) -> None:
    score = Read(site=Site(part="logits"), at="key", reduce="logprob")
    bench.run(toy.checkpoint("llama"), rows, (score,))
    bench.run(toy.checkpoint("llama"), rows, (Read(site=Site(part="resid_out", block=0)),))
    state = torch.zeros(len(rows), rows.ids.shape[1], toy.model("llama").config.hidden_size)
    start = Start(site=Site(part="resid_out", block=0), source=state)
    bench.run(toy.checkpoint("llama"), rows, (score,), start=start)


def _gradients(bench: Bench, rows: Rows) -> None:
    def objective(forward: object) -> torch.Tensor:
        return torch.zeros(len(rows)).index_add(0, forward.row, forward.logprob)  # type: ignore[attr-defined]

    bench.gradients(toy.checkpoint("llama"), rows, "inputs", objective)
    bench.gradients(toy.checkpoint("llama"), rows, (Site(part="resid_out", block=0),), objective)


def _drawn(bench: Bench, rows: Rows) -> None:
    bench.sample(toy.checkpoint("llama"), rows.take(torch.arange(1)), Draw(n=3, max_new_tokens=2))


def _trained(bench: Bench, rows: Rows) -> None:
    del bench
    learner = CausalLearner(toy.model("llama"))
    recipe = TrainingRecipe("fit", lambda forget, *_: -forget.logprob.mean(), steps=2, lr=1e-3, batch=4)  # type: ignore[union-attr]
    descend(learner, recipe, TrainData(rows))


def _learnt(bench: Bench, rows: Rows) -> None:
    del bench, rows
    states = TensorActivations({"states": torch.randn(300, 8, generator=torch.Generator().manual_seed(0))})
    with tempfile.TemporaryDirectory() as folder:
        train(states, states, TrainingSettings(features=24, k=3, rows=300), Path(folder))


ACTS = {"forward": _forward, "gradients": _gradients, "drawn": _drawn, "trained": _trained, "learnt": _learnt}


def events_of(passes: PassList, unit: str) -> list[Event]:
    return next(each.events for each in passes.units if each.unit == unit)


def test_a_pass_is_recorded_with_the_blocks_that_it_ran_and_the_positions_that_went_through_the_head() -> None:
    passes = recorded("forward")
    events = events_of(passes, "forward")
    rows, width, key = 5, toy.rows(5).ids.shape[1], int(toy.rows(5).key.sum())
    runs = [event for event in events if isinstance(event, Run)]
    assert [(run.first, run.last) for run in runs] == [(0, BLOCKS - 1), (0, 0), (1, BLOCKS - 1)]
    assert [(run.rows, run.width, run.lowest) for run in runs] == [(rows, n, -1) for n in (width - 1, width, width)], (
        "what follows the last target's prediction does not run, of rows that are not written into"
    )
    heads = [event.positions for event in events if isinstance(event, Head)]
    assert heads[-2:] == [key, key] and set(heads[:-2]) <= {3}, "before it is used, the head is tried on made-up states"
    kind = passes.kinds[runs[0].kind]
    assert Path(kind.folder).resolve() == toy.folder("llama").resolve() and kind.dtype == "float32"
    assert counted(events_of(passes, "between units")).opened == 1


def test_gradients_are_recorded_as_far_down_as_they_flow_and_training_with_its_steps() -> None:
    passes = recorded("gradients", "trained")
    first, second = (event for event in events_of(passes, "gradients") if isinstance(event, Run))
    assert (first.lowest, first.weights) == (0, False)
    assert second.lowest == 1, "nothing below the first block's own output is asked for"
    events = events_of(passes, "trained")
    assert counted(events)[4:7] == (2, 2, 0) and all(run.weights for run in events if isinstance(run, Run))
    numbers = sum(parameter.numel() for parameter in toy.model("llama").parameters())
    assert [event.numbers for event in events if isinstance(event, Stepped)] == [numbers, numbers]


def test_every_step_of_a_dictionarys_training_is_recorded() -> None:
    events = events_of(recorded("learnt"), "learnt")
    settings = TrainingSettings(features=24, k=3, rows=300)
    assert events == [Learnt(1, settings.batch_rows, 8, 24, 3)] * settings.steps and settings.steps > 1
    assert counted(events).other_steps == settings.steps


def test_what_is_replayed_is_what_was_recorded(tmp_path: Path) -> None:
    passes = recorded(*ACTS)
    passes.write(tmp_path / "list")
    read = PassList.read(tmp_path / "list")
    assert read == passes
    replay = Replay(read.kinds)
    with pass_recorder.watched() as recorder:
        for unit in read.units:
            with recorder.within(unit.unit):
                replay.unit(unit.events)
        again = recorder.passes().counts()
    for name in ACTS:
        before, after = read.counts()[name], again[name]
        assert after._replace(passes=0, head=0, opened=0, work=0) == before._replace(passes=0, head=0, opened=0, work=0)
        if name != "drawn":  # keys and values of the beginning are made once more
            assert (after.work, after.head) == (before.work, before.head)


def test_torch_is_as_before_when_nobody_records() -> None:
    before = torch.nn.Module.__call__, torch.autograd.grad, torch.autograd.backward
    with pass_recorder.watched():
        assert torch.nn.Module.__call__ is not before[0]
    assert (torch.nn.Module.__call__, torch.autograd.grad, torch.autograd.backward) == before


def test_passes_add_up() -> None:
    events: list[Event] = [
        Opened(0), Run(0, 0, 3, 2, 5), Head(0, 4), Run(0, 1, 3, 2, 5, lowest=2), Head(0, 7, 3),
        Back((3, 4), False, True), Stepped("AdamW", 9, True), Stepped("Adam", 9, False),
    ]  # fmt: skip
    assert counted(events) == (2, 10 * 4 + 10 * 3, 10 * 2, 11, 1, 1, 1, 1)


def test_units_are_compared_with_their_own_passes_alone_and_not_where_there_are_hardly_any() -> None:
    passes = PassList([], [UnitPasses("a", [Run(0, 0, 0, 1, 7)])])
    units = {"audit": [{"a": 3.0, "b": 1.0}], "bare": [{"a": 2.0}]}
    with_passes, without = audit.unit_rows(passes, units, seed=0)
    assert (with_passes.unit, with_passes.work, with_passes.ratio and with_passes.ratio.median) == ("a", 7, 1.5)
    assert (without.unit, without.ratio, without.bare_s) == ("b", None, (0.0,))


def case(name: str, took_s: float, took_mb: float) -> price.PricedCase:
    return price.PricedCase(name=name, lo_s=10, hi_s=20, took_s=took_s, lo_mb=100, hi_mb=300, took_mb=took_mb, units=())


def test_a_run_counts_as_priced_where_time_and_memory_lie_within_the_ranges() -> None:
    cases = (case("both", 10, 300), case("slow", 21, 200), case("large", 15, 301), case("neither", 9, 99))
    inside = [(each.time_inside, each.memory_inside) for each in cases]
    assert inside == [(True, True), (False, True), (True, False), (False, False)]
    results = price.Results(stamp=price.stamp(0), command="", cases=cases)
    assert results.sentence.startswith("Of 4 runs that the price was not fitted on, **1** took")
    assert "(2 the time, 2 the memory)" in results.sentence and "3.0 times" in results.sentence


def test_no_world_is_both_fitted_and_judged_and_each_has_people_of_its_own() -> None:
    names = [world.name for world in (*FITTED, *JUDGED)]
    assert len(set(names)) == len(names) and len(JUDGED) >= 20
    assert not {(w.family, str(w.config), w.people, w.long) for w in FITTED} & {
        (w.family, str(w.config), w.people, w.long) for w in JUDGED
    }
    long = next(world for world in JUDGED if world.long)
    cohorts = lines_of(long)
    assert all(line["question"].startswith(LONG.strip()) for lines in cohorts.values() for line in lines)
    people = [{line["group"] for line in lines} for lines in cohorts.values()]
    assert [len(each) for each in people] == [long.people] * 3 and not set.intersection(*people)
