"""What a report says of attacks: which were made, counted by what gave a number."""

from audit.plugins import describe
from audit.runs.derivation import ATTACKS, coverage
from audit.schema import Evidence, Measurement, Missing
from tests import golden


def evidence(*measurements: Measurement) -> tuple[Evidence, ...]:
    judged = golden.report("consistent").evidence[0]
    return tuple(judged.model_copy(update={"measurement": measurement}) for measurement in measurements)


def test_attacks_are_counted_by_the_numbers_they_gave_and_readings_by_their_kind() -> None:
    numbers = [golden.effect("quantisation_recovery", f"m{n}", "recovery", 0.5, 0.1) for n in range(2)]
    none = golden.effect("quantisation_recovery", "m2", "recovery", 0.5, 0.1).model_copy(
        update={"value": Missing(missing="it broke")}
    )
    paper = golden.effect("relearning_recovery", "m", "recovery", 0.5, 0.1).model_copy(update={"mode": "paper"})
    kinds = [golden.effect(f"{kind}_{n}", "m", kind, 0.5, 0.1)
             for kind, times in (("output", 1), ("decoding", 2), ("causal", 3)) for n in range(times)]  # fmt: skip
    own = golden.effect("own", "m", "recovery", 0.5, 0.1)
    attacks = {
        "quantisation_recovery": "quantisation", "relearning_recovery": "relearning", "own": "a kind of its own",
    }  # fmt: skip
    rows = coverage(evidence(*numbers, none, paper, *kinds, own), attacks)
    assert [row.measurements for row in rows[:3]] == [1, 2, 3] and {row.attack for row in rows[:3]} == {""}
    assert [(row.family, row.access, row.attack) for row in rows[3:]] == [
        *ATTACKS, ("a kind of its own", "as its probe says", "a kind of its own")
    ]  # fmt: skip
    assert {row.attack: row.measurements for row in rows[3:] if row.measurements} == {
        "quantisation": 2, "a kind of its own": 1
    }  # fmt: skip
    assert [row.measurements for row in coverage((), {})] == [0] * (3 + len(ATTACKS))


def test_a_probe_that_attacks_a_text_model_makes_an_attack_of_the_list() -> None:
    words = {probe.attack for probe in describe("probes")} - {None}
    assert words - {word for _, _, word in ATTACKS} == {"filter removal", "picture"}, "these are asked of few models"
