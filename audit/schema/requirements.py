"""What a probe must be given, what it reads, and what that costs."""

from enum import StrEnum
from typing import Literal, Self

from pydantic import model_validator

from audit.schema.case import Cohort, Form, Role
from audit.schema.checkpoint import Modality
from audit.schema.record import Record
from audit.schema.site import Site


class Op(StrEnum):
    """What a backend can do. A probe that needs an operation its backend lacks is skipped with that reason."""

    READ = "read"
    WRITE = "write"
    RESUME = "resume"
    STOP = "stop"
    GRADIENT = "gradient"
    EMBEDS = "embeds"
    TRAIN = "train"
    CHANGE = "change weights"
    GENERATE = "generate"
    PATTERN = "pattern"


class Requires(Record):
    """What a probe must be given: roles, cohorts, a kind of model, and operations.

    ``modalities`` are what the models may read; ``families`` narrows them to model types (empty: any of these
    modalities). ``hooked``: the suspect must carry an edit that acts on states, and not on weights.
    """

    roles: tuple[Role, ...] = ("base", "suspect")
    any_of_roles: tuple[Role, ...] = ()
    data: tuple[Cohort, ...] = ("forget",)
    modalities: tuple[Modality, ...] = ("text",)
    families: tuple[str, ...] = ()
    ops: tuple[Op, ...] = (Op.READ,)
    hooked: bool = False


Positions = Literal["last", "mean", "all", "answer", "key", "patches"]
Reduce = Literal["state", "logprob", "rank", "entropy", "varentropy", "margin", "norm", "received"]


class Read(Record):
    """One thing to read in a pass: a site, at which positions, reduced how.

    Positions: ``last`` real token, masked ``mean``, ``all`` (padded), ``answer`` or ``key``: the positions that predict
    the answer's tokens, or its content tokens, packed row by row. ``logprob``, ``rank``, ``entropy``, ``varentropy``
    and ``margin`` (only at ``answer`` or ``key``) score the next token through the model's own final norm and head: at
    ``logits`` the output itself, at a residual site the logit lens. Nothing of size vocabulary is kept. A varentropy is
    the variance of the log-probability of a word drawn from the model (nats squared; its mean is minus the entropy), a
    margin the next token's logit less the largest other one. ``norm`` (of q, k, v or z, at ``all``) is the
    Euclidean norm of every head's vector, ``received`` (of a pattern, at ``all``) the attention that a position is paid
    on average by itself and all that follow it: the pattern is reduced where it is computed.

    In a tower of an image the state that the head reads (the class token, the pooled map) is ``last``, ``answer`` and
    ``key``, the class being the answer of one target; ``mean`` and ``all`` are over all its positions, ``patches`` are
    those beside the class token.
    """

    site: Site
    at: Positions = "last"
    reduce: Reduce = "state"

    @model_validator(mode="after")
    def _scores_need_targets(self) -> Self:
        if self.reduce in ("logprob", "rank", "entropy", "varentropy", "margin") and self.at not in ("answer", "key"):
            raise ValueError(f"reduce={self.reduce!r} scores the next token: at must be 'answer' or 'key'")
        return self

    @model_validator(mode="after")
    def _heads_are_reduced_everywhere(self) -> Self:
        parts: dict[str, tuple[str, ...]] = {"norm": ("q", "k", "v", "z"), "received": ("pattern",)}
        allowed = parts.get(self.reduce)
        if allowed is not None and (self.at != "all" or self.site.part not in allowed):
            raise ValueError(f"reduce={self.reduce!r} is of {' '.join(allowed)} alone, at 'all'")
        return self


AnswerField = Literal["answer", "paraphrased", "perturbed", "alternate"]


class Texts(Record):
    """Which rows: a cohort's items of one form, with one of their answers. ``index`` numbers perturbed/alternates."""

    cohort: Cohort
    form: Form = "trained"
    answer: AnswerField = "answer"
    index: int = 0


class Need(Record):
    """A cacheable read that a probe declares: merged over probes, priced exactly, fetched once.

    ``every``: of each of the numbered answers that the data hold, however many these are, not of ``texts.index`` alone.
    """

    role: Role
    texts: Texts
    reads: tuple[Read, ...]
    reference: int = 0
    every: bool = False


class Cost(Record):
    """What a unit of work costs, in tokens forward and backward, optimiser steps and models held at once."""

    fwd_tokens: int = 0
    bwd_tokens: int = 0
    steps: int = 0
    resident: int = 1
    kind: Literal["exact", "upper"] = "exact"
