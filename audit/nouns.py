"""The words of an audit: what is audited, from where, on which data. Frozen, strict, free of torch.

Everything that touches disk is one of these nouns or one of :mod:`audit.findings`. Unknown keys are errors, NaN is
refused, and a missing value is the noun :class:`Missing` with a reason, never a number.
"""

import hashlib
import json
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class ExitCode:
    """The process exit codes of the command line (see ``residua --help-exit-codes``)."""

    OK = 0
    GATE = 1
    INPUT = 2
    INTEGRITY = 3
    UNDECIDED = 4
    INTERRUPTED = 130


class AuditError(Exception):
    """Something a user can fix: what happened and where, and what to do about it.

    Shown without a traceback. ``code`` is the process exit code: 2 for input, 3 for integrity or tool faults,
    4 where the audit cannot decide (for instance: base does not recall under the template).
    """

    def __init__(self, what: str, do: str, code: int = ExitCode.INPUT) -> None:
        super().__init__(f"{what}\n  what to do: {do}")
        self.what, self.do, self.code = what, do, code

    def __reduce__(self) -> tuple[type["AuditError"], tuple[str, str, int]]:
        """Whole across processes too: an exception is otherwise rebuilt from its message alone."""
        return AuditError, (self.what, self.do, self.code)

    @property
    def error_id(self) -> str:
        """Eight hex digits: the same fault has the same id, so that two people can see that they mean one thing."""
        return hashlib.sha256(f"{self.what}\n{self.do}".encode(errors="replace")).hexdigest()[:8]


class Noun(BaseModel):
    """Base of every value that touches disk: frozen, no unknown keys, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def canonical(self) -> str:
        """Canonical JSON: sorted keys, no spaces, UTF-8. Equal nouns give equal bytes."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    def content_hash(self) -> str:
        """sha256 (hex) of :meth:`canonical`."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()


class Missing(Noun):
    """A value that is not there, and why. Missing is a word with a reason, never a number."""

    missing: str


Role = Literal["base", "suspect", "reference", "ancestor"]
Cohort = Literal["forget", "retain", "holdout", "general"]
Form = Literal["trained", "held_out_phrasing", "held_out_attribute"]
Tower = Literal["text", "vision", "projector"]
Part = Literal[
    "embed", "resid_in", "resid_mid", "resid_out", "attn_in", "mlp_in", "final_in",
    "q", "k", "v", "z", "pattern", "attn_out", "mlp_hidden", "mlp_out", "logits",
]  # fmt: skip
GLOBAL_PARTS = frozenset({"embed", "final_in", "logits"})


class Site(Noun):
    """A place in a model where a state can be read or written.

    ``attn_in``, ``mlp_in`` and ``final_in`` are after the norm that the part reads through; ``attn_out`` and
    ``mlp_out`` are as added to the residual stream, after any post-norm. ``embed``, ``final_in`` and ``logits`` belong
    to no block; every other part needs one. ``head`` selects one head of ``q k v z pattern``.
    """

    part: Part
    block: Annotated[int, Field(ge=0)] | None = None
    head: Annotated[int, Field(ge=0)] | None = None
    tower: Tower = "text"

    @model_validator(mode="after")
    def _block_fits_part(self) -> Self:
        if (self.part in GLOBAL_PARTS) != (self.block is None):
            raise ValueError(f"site {self.part!r} {'takes no' if self.part in GLOBAL_PARTS else 'needs a'} block")
        return self

    def __str__(self) -> str:
        where = "" if self.block is None else f"{self.block}."
        head = "" if self.head is None else f"#{self.head}"
        return f"{self.tower}.{where}{self.part}{head}"


class EditRecord(Noun):
    """A fitted edit as the bench plays it back: the edit's name and settings, and the hash of its stored delta.

    ``plays`` says how: ``weights`` replaces whole tensors by those in ``delta.safetensors``; the others are hooks whose
    arrays lie in the same file (``logit_bias``: ``bias``; ``low_rank``: ``u``, ``v``, ``b`` per site).
    """

    name: str
    plays: Literal["weights", "logit_bias", "low_rank"]
    settings: dict[str, str | int | float | bool] = {}
    delta_sha256: str
    delta_file: str = "delta.safetensors"


class Checkpoint(Noun):
    """Weights named by content, never by label.

    ``source`` is a local folder (absolute path) or ``owner/name@<40-hex commit>``; ``fingerprint`` is the sha256 over
    tensors, config, tokenizer and generation config. ``edits`` are played back in order; each lives in ``edits_from``.
    """

    source: str
    family: str
    fingerprint: str
    adapter: str | None = None
    edits: tuple[EditRecord, ...] = ()
    edits_from: str | None = None

    @property
    def key(self) -> str:
        """Content key: fingerprint and edits, without any path. Names everything computed from these weights."""
        payload = json.dumps([self.fingerprint, [e.model_dump(mode="json") for e in self.edits]], sort_keys=True)
        return hashlib.sha256(payload.encode()).hexdigest()


class Item(Noun):
    """One row of data: a question and its answer, or plain text (``question`` empty, ``answer`` the text).

    ``group`` is the unit of replication (person, author, document). ``key`` is the substring of ``answer`` that carries
    the fact; without it content tokens are chosen by rule (:mod:`audit.data`), never with a model's help.
    ``alternates`` are the same answer with another, never-trained value of the same attribute (matched alternates).
    """

    id: str
    group: str
    question: str
    answer: str
    key: str | None = None
    paraphrased_answer: str | None = None
    perturbed_answers: tuple[str, ...] = ()
    alternates: tuple[str, ...] = ()
    alternate_keys: tuple[str, ...] = ()
    attribute: str | None = None
    form: Form = "trained"
    frequency: int | None = None


class Template(Noun):
    """How a question and an answer become one prompt. Hashed into every cache key.

    With ``chat`` the tokenizer's chat template wraps ``system`` and the question. ``bos`` is ``always`` (prepend once),
    ``never``, or ``tokenizer`` (whatever its own rule adds).
    """

    prompt: str = "{question}"
    answer: str = " {answer}"
    chat: bool = False
    system: str = ""
    bos: Literal["always", "never", "tokenizer"] = "tokenizer"


Lineage = Literal["same_ancestor", "other_initialisation"]


class Source(Noun):
    """Where a checkpoint is and, where known, what it must hash to."""

    path: str
    commit: str | None = None
    adapter: str | None = None
    fingerprint: str | None = None
    lineage: Lineage = "same_ancestor"
    data_order: int | None = None


class Roles(Noun):
    """Who plays what. ``references`` never hold the audited model; the first is the null, the rest give the floor."""

    base: Source
    suspect: Source
    references: tuple[Source, ...] = ()
    ancestor: Source | None = None


class DataFiles(Noun):
    """JSONL files of the cohorts; paths are relative to the case file. ``group`` names the field to split by."""

    forget: str
    retain: str
    holdout: str | None = None
    general: str | None = None
    group: str = "group"
    split_seed: int = 0


class Case(Noun):
    """*What* is audited: roles, data, prompt template, and what is known of the suspect's edit set.

    *How* (device, dtype, memory, workers) is a flag, recorded in provenance and outside the plan hash.
    ``edited`` is ``all`` or ``unknown``, or the ids of the forget items the suspect is known to have been edited on.
    ``published`` names a file of numbers that others published (``*_EVAL.json``), shown beside ours and never judged.
    """

    name: str
    roles: Roles
    data: DataFiles
    template: Template = Template()
    edited: Literal["all", "unknown"] | tuple[str, ...] = "unknown"
    probes: dict[str, dict[str, str | int | float | bool]] = {}
    seed: int = 0
    published: str | None = None


class Op(StrEnum):
    """What a backend can do. A probe that needs an operation its backend lacks is skipped with that reason."""

    READ = "read"
    WRITE = "write"
    RESUME = "resume"
    STOP = "stop"
    GRADIENT = "gradient"
    EMBEDS = "embeds"
    TRAIN = "train"
    GENERATE = "generate"
    PATTERN = "pattern"


class Requires(Noun):
    """What a probe must be given: roles, cohorts, families ('*' is any causal language model) and operations."""

    roles: tuple[Role, ...] = ("base", "suspect")
    any_of_roles: tuple[Role, ...] = ()
    data: tuple[Cohort, ...] = ("forget",)
    families: tuple[str, ...] = ("*",)
    ops: tuple[Op, ...] = (Op.READ,)


Positions = Literal["last", "mean", "all", "answer", "key"]
Reduce = Literal["state", "logprob", "rank"]


class Read(Noun):
    """One thing to read in a pass: a site, at which positions, reduced how.

    Positions: ``last`` real token, masked ``mean``, ``all`` (padded), ``answer`` or ``key``: the positions that predict
    the answer's tokens, or its content tokens, packed row by row. ``logprob`` and ``rank`` (only at ``answer`` or
    ``key``) score the next token through the model's own final norm and head: at ``logits`` the output itself, at a
    residual site the logit lens. Nothing of size vocabulary is kept.
    """

    site: Site
    at: Positions = "last"
    reduce: Reduce = "state"

    @model_validator(mode="after")
    def _scores_need_targets(self) -> Self:
        if self.reduce != "state" and self.at not in ("answer", "key"):
            raise ValueError(f"reduce={self.reduce!r} scores the next token: at must be 'answer' or 'key'")
        return self


AnswerField = Literal["answer", "paraphrased", "perturbed", "alternate"]


class Texts(Noun):
    """Which rows: a cohort's items of one form, with one of their answers. ``index`` numbers perturbed/alternates."""

    cohort: Cohort
    form: Form = "trained"
    answer: AnswerField = "answer"
    index: int = 0


class Need(Noun):
    """A cacheable read that a probe declares: merged over probes, priced exactly, fetched once."""

    role: Role
    texts: Texts
    reads: tuple[Read, ...]
    reference: int = 0


class Cost(Noun):
    """What a unit of work costs, in tokens forward and backward, optimiser steps and models held at once."""

    fwd_tokens: int = 0
    bwd_tokens: int = 0
    steps: int = 0
    resident: int = 1
    kind: Literal["exact", "upper"] = "exact"
