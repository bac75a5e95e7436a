"""The arithmetic of a price, part by part, by hand: seconds from what was spent, bytes from what is held, notes."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from audit.bench import Bench, PassTimes, padded_tokens
from audit.case import open_case
from audit.planning import RunSettings, pricing, timings
from audit.planning.planner import Fetch
from audit.planning.pricing import (
    ENOUGH_RUN,
    LAST,
    LIBRARIES,
    Price,
    Pricer,
    Prices,
    conditions,
    multiplied_per_second,
    seconds_of,
)
from audit.planning.timings import Spent
from audit.planning.unit_costs import UnitCost, UnitCosts
from audit.probing import SCORE
from audit.schema import Cost, Interval, Read, Site, Texts
from audit.wrappers import Placement
from tests import planted_world

ALONE = RunSettings(device="cpu", dtype="float32", threads=1, store=None)


@pytest.fixture
def pricer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pricer]:
    """Of the planted case, with nothing recorded, a thousand tokens a second, passes of 2 ms, heads that cost a fifth
    of a token, small steps of 10 microseconds, and a million bytes held; of no unit anything is known."""
    made = Pricer(open_case(planted_world.case("clean"), planted_world.root(), tmp_path), Bench(), ALONE)
    monkeypatch.setattr(made, "_recorded", ())
    monkeypatch.setattr(made, "_times", PassTimes(0.002, 0.001, 0.0002))
    monkeypatch.setattr(made, "_held", 1_000_000)
    monkeypatch.setattr(pricing, "small_seconds", lambda: 1e-5)
    monkeypatch.setattr(pricing, "fitted", UnitCosts)
    yield made


def spent(unit: str = "u", **changes: float) -> Spent:
    numbers = {"parameters": 1000, "fwd_tokens": 100, "bwd_tokens": 0, "run_tokens": 100, "cpu_s": 2.0, "wall_s": 5.0,
               "said_s": 1.0}  # fmt: skip
    return Spent.model_validate({"unit": unit, "how": "x", **numbers, **changes})


USUAL_S = 3000 * 1e-5 + 20 * 0.002
"""Of a unit without tokens and steps, of which nothing is known."""


def test_a_unit_takes_its_tokens_through_blocks_and_head_its_steps_its_passes_and_what_lies_beside(
    pricer: Pricer, monkeypatch: pytest.MonkeyPatch
) -> None:
    cost, declared = Cost(fwd_tokens=3000, bwd_tokens=1000, steps=100), 3000 + 2 * 1000
    usual = USUAL_S + 1.0 * declared * 0.001 + 0.3 * declared * 0.0002 + 3 * 100 * 0.002
    known = 7 * 1e-5 + 5 * 0.002 + 0.5 * declared * 0.001 + 2 * declared * 0.0002 + 11 * 100 * 0.002
    monkeypatch.setattr(pricing, "fitted", lambda: UnitCosts(units=(UnitCost(unit="k", factors=(7, 5, 0.5, 2, 11)),)))
    for unit, seconds in (("u", usual), ("k", known)):
        price = pricer.price(unit, cost)
        assert price.source == "benchmark" and price.expected_s == pytest.approx(seconds)
        assert price.seconds.ends == pytest.approx((seconds / 1.7, seconds * 1.7))


def test_what_this_machine_took_of_what_was_said_corrects_the_next_price_of_the_unit_alone(
    pricer: Pricer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pricer, "_recorded", (spent(cpu_s=3.0, said_s=1.5), spent("other", cpu_s=99.0)))
    price = pricer.price("u", Cost())
    assert price.source == "recorded" and price.expected_s == pytest.approx(USUAL_S), "what is said stays the same"
    assert price.seconds.ends == pytest.approx((2 * USUAL_S / 1.4, 2 * USUAL_S * 1.4))
    monkeypatch.setattr(pricer, "_recorded", (spent(cpu_s=3.0, said_s=0.0),))
    assert pricer.price("u", Cost()).source == "benchmark", "an earlier Residua said nothing"


@pytest.mark.parametrize(("ranks", "sketched"), [(1, False), (2, False), (1, True)])
def test_what_was_spent_under_these_conditions_counts_unless_ranks_or_configs_alone_are_priced(
    ranks: int, sketched: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timings, "cache_root", lambda: tmp_path)
    own, other = (spent().model_copy(update={"how": how}) for how in (conditions(ALONE), "others"))
    for one in (own, other):
        timings.record(one)
    monkeypatch.setattr(pricing, "of_config_alone", lambda checkpoint: sketched)
    case = open_case(planted_world.case("clean"), planted_world.root(), tmp_path)
    found = Pricer(case, Bench(device=Placement("cpu", ranks=ranks)), ALONE)
    assert found._recorded == ((own,) if (ranks, sketched) == (1, False) else ())


def test_of_many_recorded_units_the_last_five_that_ran_enough_give_the_range_which_is_no_wider_than_three(
    pricer: Pricer, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = [spent(cpu_s=n) for n in (9.0, 9.0, 1.0, 1.1, 1.2, 1.3, 1.4)]
    stored = [spent(cpu_s=0.1, run_tokens=49), spent(cpu_s=77.0, run_tokens=50)]
    assert (ENOUGH_RUN, LAST) == (0.5, 5)
    monkeypatch.setattr(pricer, "_recorded", (*earlier, stored[0]))
    ends = pricer.price("u", Cost()).seconds.ends
    assert ends == pytest.approx((USUAL_S / 1.4, USUAL_S * 1.4 * 1.4))
    monkeypatch.setattr(pricer, "_recorded", (*earlier, *stored))
    ends = pricer.price("u", Cost()).seconds.ends
    assert ends == pytest.approx((1.3 * USUAL_S / 3**0.5, 1.3 * USUAL_S * 3**0.5)), "around the middle one"


@pytest.mark.parametrize(
    ("device", "threads", "seconds"), [("cpu", 1, 2.0), ("cpu", 2, 5.0), ("cpu", None, 5.0), ("cuda", 1, 5.0)]
)
def test_time_is_the_processors_where_one_thread_of_it_computes(
    device: str, threads: int | None, seconds: float
) -> None:
    assert seconds_of(spent(), RunSettings(device=device, threads=threads)) == seconds


def test_memory_is_what_is_held_libraries_models_a_batch_and_what_training_adds(pricer: Pricer) -> None:
    width, vocabulary, blocks = pricer._sizes.width, pricer._sizes.vocabulary, pricer._sizes.blocks
    assert width and blocks and vocabulary == len(planted_world.tokenizer())
    assert vocabulary is not None
    state, logits, model, held = 4 * 24 * width, 3 * 4 * vocabulary, pricer.parameters * 4, 1_000_000 + LIBRARIES
    assert pricer._model == model
    assert pricer._peak(Cost(resident=0)) == held
    assert pricer._peak(Cost(resident=3)) == held + 3 * model
    assert pricer._peak(Cost(fwd_tokens=10)) == held + model + 10 * (state + logits)
    budget = padded_tokens(pricer.settings.token_budget, "cpu")
    assert pricer._peak(Cost(fwd_tokens=10**9)) == held + model + budget * (state + logits)
    at_once = 10 * (state + logits) + held + 5 * model
    assert pricer._peak(Cost(fwd_tokens=10, bwd_tokens=8)) == at_once + 8 * blocks * state // 2
    assert pricer._peak(Cost(fwd_tokens=10, bwd_tokens=8, steps=4)) == at_once + 2 * blocks * state // 2
    price = pricer.price("u", Cost(resident=3))
    assert (price.least_bytes, price.peak_bytes) == (round((held + 3 * model) / 1.6), round((held + 3 * model) * 1.6))


def test_logits_of_a_large_vocabulary_are_never_there_at_once(pricer: Pricer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pricer, "_sizes", SimpleNamespace(width=0, vocabulary=50_000, blocks=0))
    assert pricer._peak(Cost(fwd_tokens=10**9, resident=0)) == 1_000_000 + LIBRARIES + 3 * 4 * 2**24


def priced(unit: str, lo: float, hi: float, peak: int = 1, **cost: int) -> Price:
    return Price(unit, Cost.model_validate(cost), peak, Interval(lo=lo, hi=hi), "benchmark")


def test_a_run_takes_the_sum_of_its_units_and_the_most_memory_of_any() -> None:
    run = Prices((priced("a", 1, 2, 7), priced("b", 3, 5, 9), priced("c", 10, 20, 8)))
    assert run.seconds.ends == (14, 27) and run.peak_bytes == 9
    assert run.left(["c", "a", "gone"]).ends == (11, 22) and run.of("b").seconds.ends == (3, 5)


def test_models_that_do_not_fit_together_are_said_to_be_opened_one_after_the_other(
    pricer: Pricer, monkeypatch: pytest.MonkeyPatch
) -> None:
    units = [priced("a", 1, 2, fwd_tokens=5), priced("b", 1, 2, bwd_tokens=5), priced("c", 1, 2)]
    models = len({case.key for case in (pricer.case.base, pricer.case.suspect, *pricer.case.references)})
    models += pricer.case.ancestor is not None
    monkeypatch.setattr(pricing, "device_bytes", lambda device: pricer._model)
    for held, said in ((models * pricer._model, []), (models * pricer._model - 1, [f"{models} models of"])):
        monkeypatch.setattr(pricing, "room", lambda placement, held=held: held)
        notes = list(pricer._fitting(units))
        assert len(notes) == len(said) and all(x in note for x, note in zip(said, notes, strict=True))
        assert not notes or notes[0].endswith("each up to 2 times")
    monkeypatch.setattr(pricing, "received", lambda case: [("base", pricer.case.base)] * 2)
    monkeypatch.setattr(pricing, "room", lambda placement: pricer._model - 1)
    assert list(pricer._fitting(units)) == [], "one model is open in any case"


def test_one_model_that_is_larger_than_its_device_is_named_unless_it_lies_elsewhere(
    pricer: Pricer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pricing, "room", lambda placement: 10**15)
    for has, away, words in (
        (pricer._model - 1, (), "ONE MODEL takes"), (pricer._model, (), ""),
        (1, ("disk",), "the rest is read at every pass"),
    ):  # fmt: skip
        monkeypatch.setattr(pricing, "device_bytes", lambda device, has=has: has)
        place = Placement("cpu")
        monkeypatch.setattr(type(place), "away", property(lambda self, away=away: bool(away)), raising=False)
        notes = list(pricer._fitting([]))
        assert len(notes) == bool(words) and all(words in note for note in notes)


@pytest.mark.parametrize("store", [None, Path("store")])
def test_what_the_audit_of_roles_has_read_is_run_again_only_where_there_is_no_store(
    pricer: Pricer, store: Path | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pricer, "settings", RunSettings(device="cpu", dtype="float32", store=store))
    texts = Texts(cohort="forget")
    base, rows = pricer.case.base, pricer.case.rows(texts)
    tokens = pricer.bench.tokens_of(base, [(rows, (SCORE,))], like=base)
    assert 0 < tokens < int(rows.mask.sum()), "nothing after the last content token goes forward"
    assert pricer._recall([(pricer.case.base, texts)]).fwd_tokens == (tokens if store else 2 * tokens)
    assert pricer._recall([]).fwd_tokens == 2 * tokens


@pytest.mark.parametrize("sketched", [True, False])
def test_how_fast_passes_are_is_found_once_and_by_arithmetic_where_there_are_no_weights(
    pricer: Pricer, sketched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def measured(checkpoint: object, rows: object) -> PassTimes:
        assert checkpoint is pricer.case.base and rows is pricer.case.rows(Texts(cohort="forget"))
        asked.append("bench")
        return PassTimes(0.0, 0.5, 0.0)

    monkeypatch.setattr(pricer, "_sketched", sketched)
    monkeypatch.setattr(pricer, "_times", None)
    monkeypatch.setattr(pricer, "_sizes", SimpleNamespace(width=3, vocabulary=5, blocks=2))
    monkeypatch.setattr(pricer, "bench", SimpleNamespace(pass_times=measured))
    monkeypatch.setattr(pricing, "multiplied_per_second", lambda how: asked.append("device") or pricer.parameters * 8.0)
    times = (pricer.times, pricer.times)[1]
    by_hand = PassTimes(2 * 60 * 1e-5, 0.25, 2 * 3 * 5 / (pricer.parameters * 8.0))
    assert times == pytest.approx(by_hand if sketched else (0.0, 0.5, 0.0))
    assert asked == (["device"] if sketched else ["bench"])
    price = pricer.price("u", Cost(fwd_tokens=10))
    assert price.seconds.hi / price.seconds.lo == pytest.approx(16 if sketched else 1.7**2)


@pytest.mark.parametrize("so_far", [2.0, 59.0, 61.0])
def test_a_start_takes_what_pricing_took_and_a_little_unless_the_process_is_an_old_one(
    pricer: Pricer, so_far: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pricing.time, "process_time", lambda: so_far)
    price = pricer._start()
    assert price.unit == "start" and price.expected_s == pytest.approx(1.4 * so_far if so_far < 60 else 8.0)
    assert price.seconds.hi / price.seconds.lo == pytest.approx(1.4**2)


@pytest.mark.parametrize("store", [None, Path("store")])
def test_merged_reads_are_priced_by_the_passes_that_nothing_made_before(
    pricer: Pricer, store: Path | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that recall or the roles read is paid for; a read twice is paid for once; a pattern has its own pass."""
    monkeypatch.setattr(pricer, "settings", RunSettings(device="cpu", dtype="float32", store=store))
    forget, retain = Texts(cohort="forget"), Texts(cohort="retain")
    state, pattern = (Read(site=Site(part=part, block=0), at="all") for part in ("resid_out", "pattern"))
    fetches = (
        Fetch("base", 0, forget, (SCORE,)), Fetch("suspect", 0, forget, (SCORE, state)),
        Fetch("suspect", 0, retain, (SCORE, state)), Fetch("suspect", 0, retain, (state,)),
        Fetch("base", 0, retain, (state, pattern)),
    )  # fmt: skip
    f, r = 7, 100
    size = {pricer.case.rows(forget).hash: f, pricer.case.rows(retain).hash: r}
    bench = SimpleNamespace(
        passes_of=lambda reads: 1 + (pattern in reads),
        tokens_of=lambda model, asked, like: sum((1 + (pattern in reads)) * size[rows.hash] for rows, reads in asked),
    )
    monkeypatch.setattr(pricer, "bench", bench)
    monkeypatch.setattr(pricer, "_tokens", lambda texts: f if texts == forget else r)
    planner = SimpleNamespace(fetches=lambda running: fetches)
    cost = pricer._reads(planner, (), [(pricer.case.suspect, forget)])  # type: ignore[arg-type]
    if store is None:
        assert cost == Cost(fwd_tokens=f + 2 * f + 2 * r + r + 2 * r, kind="upper")
    else:
        assert cost == Cost(fwd_tokens=f + r + 2 * r, resident=2)
        nothing = SimpleNamespace(fetches=lambda running: fetches[:1])
        assert pricer._reads(nothing, (), []) == Cost(), "base's scores were read by the recall check"  # type: ignore[arg-type]


def test_a_model_whose_config_states_no_width_is_priced_by_its_vocabulary(
    pricer: Pricer, monkeypatch: pytest.MonkeyPatch
) -> None:
    vocabulary, held = pricer._sizes.vocabulary or 0, 1_000_000 + LIBRARIES
    monkeypatch.setattr(pricer, "_sizes", SimpleNamespace(width=None, vocabulary=vocabulary, blocks=None))
    assert pricer._peak(Cost(fwd_tokens=10, resident=0)) == held + 10 * 3 * 4 * vocabulary
    monkeypatch.setattr(pricer, "_sizes", SimpleNamespace(width=7, vocabulary=None, blocks=None))
    assert pricer._peak(Cost(fwd_tokens=10, resident=0)) == held + 10 * 4 * 24 * 7


def test_conditions_are_all_that_a_time_depends_on() -> None:
    settings = RunSettings(backend="b", device="d", dtype="t", attention="a", threads=3, package="p")
    assert conditions(settings) == "b|d|t|a|3|p"


def test_operations_a_second_are_two_a_product_over_the_fastest_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 200.0, 202.0, 300.0, 303.0, 400.0, 404.0])  # the first, the fastest here, is not counted
    monkeypatch.setattr(pricing.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(torch, "ones", lambda *shape, **how: torch.zeros(2, 2))
    assert multiplied_per_second(RunSettings(device="cpu", dtype="float32")) == 2 * 1024**3 / 2.0
