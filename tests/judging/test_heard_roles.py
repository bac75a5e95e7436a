"""What a verdict says of roles that were refused, that disagree, or of which there is something to be said."""

from audit.judging.roles import MOST_LIMITS, REPLACE, UNSETTLED, heard, remarks, taking_part
from audit.schema import Case, DataFiles, Missing, RoleAudit, Roles, Source
from tests.judging.test_judging import family, ruled

REFUSED = RoleAudit(role="reference 1", takes_part=False, because=("it knows", "it tells"))
OPEN = [RoleAudit(role=f"reference {n}", takes_part=True, settled=False, because=("they differ",)) for n in (0, 2)]
NOTED = RoleAudit(role="ancestor", takes_part=True, because=("it is another size",))
FINE = RoleAudit(role="base", takes_part=True, because=())


def test_who_was_refused_takes_no_part_and_everybody_else_does() -> None:
    roles = Roles(
        base=Source(path="base"), suspect=Source(path="suspect"), ancestor=Source(path="ancestor"),
        references=tuple(Source(path=f"r{n}") for n in range(3)),
    )  # fmt: skip
    case = Case(name="x", roles=roles, data=DataFiles(forget="f", retain="r"))
    assert taking_part(case, [FINE, NOTED, *OPEN]) is case
    heard_of = taking_part(case, [FINE, REFUSED, NOTED]).roles
    assert [x.path for x in heard_of.references] == ["r0", "r2"] and heard_of.ancestor == roles.ancestor
    without = taking_part(case, [NOTED.model_copy(update={"takes_part": False})]).roles
    assert without.ancestor is None and without.references == roles.references and without.base == roles.base


def test_who_was_refused_is_said_first_and_a_disagreement_once() -> None:
    refused, note = "Reference 1 was refused and took no part: it knows; it tells.", "Ancestor: it is another size."
    assert remarks([FINE, NOTED, *OPEN, REFUSED]) == (refused, "They differ.", note)
    assert remarks([FINE]) == ()


def test_a_verdict_of_roles_of_which_nothing_is_to_be_said_stays_itself() -> None:
    verdict = ruled(family(causal=1.0))
    assert heard(verdict, [FINE]) is verdict


def test_a_refused_role_limits_a_verdict_and_a_remark_only_is_noted() -> None:
    verdict = ruled(family(causal=1.0))
    noted = heard(verdict, [FINE, NOTED])
    assert noted.limits == ("Ancestor: it is another size.", *verdict.limits)[:MOST_LIMITS]
    assert (noted.word, noted.would_change) == (verdict.word, verdict.would_change)
    refused = heard(verdict, [REFUSED, NOTED])
    assert (refused.word, refused.sentence) == ("SUPPRESSED", verdict.sentence)
    assert refused.would_change == (REPLACE, *verdict.would_change)
    assert refused.limits[0].startswith("Reference 1 was refused")


def test_where_references_disagree_nothing_is_decided_but_for_a_suspect_that_is_broken() -> None:
    for numbers in (family(causal=1.0), family(output=1.0), family(), family(output=0.1)):
        verdict = ruled(numbers)
        found = heard(verdict, [FINE, *OPEN])
        assert (found.word, found.strength, found.direction, found.basis) == ("INCONCLUSIVE", "none", "none", "in-case")
        assert found.sentence == f"INCONCLUSIVE: {UNSETTLED}." and found.ratio == Missing(missing=UNSETTLED)
        assert found.because == ("they differ", *verdict.because)
        assert found.would_change == (REPLACE, *verdict.would_change)
    broken = heard(ruled(family(gate=0.1)), OPEN)
    assert broken.word == "INVALID" and broken.limits[0] == "They differ."
    open_and_refused = OPEN[0].model_copy(update={"takes_part": False})
    assert heard(ruled(family(causal=1.0)), [open_and_refused]).word == "SUPPRESSED", "it takes no part"
