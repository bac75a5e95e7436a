"""The frozen world: what its items bring to the probes whose behaviour it records."""

from audit.probing import frozen_world


def test_an_item_has_as_many_perturbed_answers_as_in_tofu_and_fewer_alternates() -> None:
    """A probe that takes the first three of five perturbed answers is another probe; the world has to show it."""
    lines = [
        frozen_world._line(index, cohort, fact)  # pyright: ignore[reportPrivateUsage]
        for cohort, known in frozen_world.facts().items()
        for index, fact in enumerate(known)
    ]
    perturbed = [line["perturbed_answers"] for line in lines if "perturbed_answers" in line]
    alternates = [line["alternates"] for line in lines if "alternates" in line]
    assert perturbed and alternates and len(perturbed) < len(lines) and len(alternates) < len(lines)
    for line in lines:
        others = line.get("perturbed_answers", [])
        assert isinstance(others, list) and len(others) == len(set(others)) == (5 if others else 0)
        assert not any(str(other).split()[-1] == str(line["answer"]).split()[-1] for other in others)
    assert {len(list(values)) for values in alternates} == {3}  # type: ignore[call-overload]
