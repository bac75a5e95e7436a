"""What a rule of the case's own kind rests on, and its bounds for models of other bases."""

from audit.calibration import ErrorRates, Subjects
from audit.judging.support import rounded
from audit.schema import DecoyPeople, LikelihoodRatio
from audit.stats import significant, widened_bound
from audit.wording import number

DIGITS = 4


def decoys_of(subjects: Subjects, counted: ErrorRates) -> DecoyPeople | None:
    """What stands behind a rule of the case's own kind, with its bounds widened for other bases; None of a pool's."""
    own = subjects.own
    if own is None:
        return None
    alarms, misses = (
        significant(widened_bound(rate.k, rate.n, own.share), DIGITS) for rate in (counted.false_alarms, counted.misses)
    )
    return DecoyPeople(
        people=own.people, questions=own.questions, steps=own.steps, left_out=own.left_out, share=own.share,
        false_alarms=alarms, misses=misses,
    )  # fmt: skip


def own_sentence(decoys: DecoyPeople, ratio: LikelihoodRatio) -> str:
    """On what a rule of the case's own kind rests, and what its worlds are not: draws of models."""
    n = ratio.false_alarms.n
    return (
        f"This was calibrated on this model's own kind. In {n} decoy worlds its own base was taught {decoys.people} "
        f"invented people ({decoys.questions} questions), whom it did not know before. Then it was made to forget "
        "them. The worlds share one base and are no independent draws of models: the bounds above are for this base. "
        f"For others like it they are widened by the between-base share of {number(decoys.share)}: false alarms at "
        f"most {number(100 * decoys.false_alarms)} %, misses at most {number(100 * decoys.misses)} %. By so many "
        f"worlds no ratio can pass {number(rounded(ratio.ceiling, True))}."
    )
