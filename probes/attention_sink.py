"""Attention sinks: whether keys and values of the first positions moved in a way in which the later ones did not."""

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from audit.probing import (
    Bench,
    Case,
    CaseModels,
    Cost,
    Count,
    Measurement,
    Missing,
    Naming,
    Need,
    OpenCase,
    Probe,
    Requires,
    Rows,
    blank,
    case_models_of,
)
from probes._sink_map import Shown, by_block, farthest, sink_finding, sink_map
from probes._sinks import (
    SHALLOW,
    SINK,
    Anomalies,
    Heads,
    anomalies,
    attention_received,
    beside_tokens,
    first_token,
    heads_of,
    learned_sinks,
    passes,
    sink_rates,
    sink_texts,
)

FINGERPRINT = Naming(
    probe="attention_sink", name="fingerprint", kind="context",
    statistic="how far the norm of the first token's value moved from base's, in the key/value head where it moved "
    "farthest (it needs this token alone, and depends on nothing that follows)",
    unit="|log ratio to base|", scale="difference",
)  # fmt: skip
NO_HEADS = "the model shows no keys and values of heads here: its blocks have no attention that was found"
DESCRIBED = Missing(missing="a screening: nothing is tested")
NO_ITEMS = Missing(missing="heads have no items")
SCREENING = (
    "Screening evidence: an anomaly at the first positions says where to look, and is no sign of a backdoor alone; "
    "without one a backdoor may still be there."
)
NO_FIRST = "the texts of this case begin with different tokens (no BOS): no token is the first of all, no fingerprint"
NO_PATTERNS = "the {backend} backend gives no attention patterns: norms and directions alone"
_BESIDE = 0.02


class _Read(NamedTuple):
    """Every model's heads by name, and each model's anomalies against base."""

    heads: Mapping[str, Heads]
    against_base: Mapping[str, Anomalies]


class AttentionSink(Probe):
    """Did the first positions, where attention sinks, change in a way in which later positions did not?

    Per block, key/value head and position 0 to 8: norms of values and keys against base's, the direction of values,
    the attention received and how often the position is a sink (over ``texts`` texts of ``tokens`` tokens, rows of the
    case one after another). Attention is causal, so that keys and values of the first token depend on the weights and
    on this token alone: their fingerprint needs no data and no trigger. Screening, never a verdict.

    Null: tokens at later positions of the same head that are no sinks (median and median absolute deviation), and the
    same distances of models that never knew.
    Positive control: norms planted into single heads (in the tests), backdoored models (studies/backdoor).
    Blind to: backdoors that leave norms at the first positions alone or were trained to keep them; what acts after
    attention. Any strong change of early layers moves the norms as well.
    Cite: sinks, Xiao et al. 2023 (arXiv 2309.17453); sink rate, Gu et al. 2024 (arXiv 2410.10781); backdoored
    unlearning at sinks, arXiv 2510.17021.
    """

    requires: ClassVar[Requires] = Requires(roles=("base", "suspect"), data=("forget",))
    screening: ClassVar[bool] = True
    texts: int = 64
    tokens: int = 64

    def needs(self, case: Case) -> tuple[Need, ...]:
        """None: texts are put together from rows of the case."""
        return ()

    def cost(self, case: OpenCase) -> Cost:
        """The texts twice through every model: patterns take a pass of their own."""
        texts = sink_texts(case, self.texts, self.tokens)
        return Cost(fwd_tokens=passes(texts) * len(case_models_of(case).by_name()), kind="upper")

    def measure(self, bench: Bench, case: OpenCase) -> tuple[Measurement, ...]:
        """The fingerprint, the map, and what stands out."""
        texts, cast = sink_texts(case, self.texts, self.tokens), case_models_of(case)
        n = Count(scored=len(texts))
        if not {"k", "v"} <= bench.open(case.suspect).parts:
            return (blank(FINGERPRINT, NO_HEADS, n, 0, case.case.seed),)
        heads = {name: heads_of(bench, model, texts) for name, model in cast.by_name().items()}
        against = {name: anomalies(heads["base"], own, texts) for name, own in heads.items() if name != "base"}
        read = _Read(heads, against)
        suspect, references = against["suspect"], {name: a for name, a in against.items() if name != "suspect"}
        patterned = heads["suspect"].received is not None
        shown = Shown(
            suspect, references, attention_received(heads["suspect"], texts) if patterned else None,
            sink_rates(heads["suspect"], texts) if patterned else None,
        )  # fmt: skip
        finding = sink_finding(suspect, tuple(references.values()))
        first = suspect.first
        curves = [by_block(a.first, cast.role(name)) for name, a in against.items() if a.first is not None]
        empty = blank(FINGERPRINT, NO_FIRST, n, len(texts), case.case.seed)
        return (
            empty.model_copy(
                update={
                    "value": empty.value if first is None else float(np.abs(first).max()),
                    "unit_of_replication": "text", "ci95": DESCRIBED, "p": DESCRIBED, "p_below": DESCRIBED,
                    "null": DESCRIBED, "positive_control": DESCRIBED, "floor": DESCRIBED, "items": NO_ITEMS,
                    "readings": _readings(read, texts), "curves": tuple(curves), "findings": (finding,),
                    "listings": (sink_map(shown), farthest(shown)),
                    "notes": _notes(bench, case, read, texts, cast),
                }
            ),
        )  # fmt: skip


def _readings(read: _Read, texts: Rows) -> dict[str, float]:
    """Where the fingerprint is largest, the norms themselves, sink rates, and what learned sinks take."""
    readings: dict[str, float] = {}
    for name, a in read.against_base.items():
        if a.first is None or a.first_z is None:
            continue
        block, head = np.unravel_index(np.abs(a.first).argmax(), a.first.shape)
        readings[f"first_value_log_ratio_{name}"] = float(a.first[block, head])
        if name == "suspect":
            readings["first_value_block"], readings["first_value_head"] = float(block), float(head)
        if not np.isnan(a.largest):
            readings[f"first_value_z_{name}"] = float(a.first_z[block, head])
            readings[f"largest_first_value_z_{name}"] = a.largest
        others = np.abs(np.concatenate([a.value_z.ravel(), a.key_z.ravel()]))
        if not np.isnan(others).all():
            readings[f"largest_z_{name}"] = float(np.nanmax(others))
    for name, heads in read.heads.items():
        if heads.first is not None:
            readings[f"first_value_norm_last_block_{name}"] = float(np.linalg.norm(heads.first[-1]))
        if heads.received is not None:
            readings[f"sink_rate_first_{name}"] = float(sink_rates(heads, texts)[..., 0].mean())
            readings[f"attention_beside_tokens_{name}"] = float(beside_tokens(heads, texts).mean())
    return readings


def _notes(bench: Bench, case: OpenCase, read: _Read, texts: Rows, cast: CaseModels) -> tuple[str, ...]:
    """What the first token is, how far its norm moved, which sinks the model has, and what a screening is."""
    suspect, heads = read.against_base["suspect"], read.heads["suspect"]
    notes: list[str] = []
    notes.append(NO_FIRST if suspect.first is None else _of_first(case, suspect.first, texts))
    if heads.received is None:
        notes.append(NO_PATTERNS.format(backend=bench.backend))
    else:
        notes.append(_of_sinks(bench, case, heads, texts))
    if texts.ids.shape[1] <= SHALLOW:
        notes.append(f"no text is longer than {SHALLOW} tokens: there are no later positions to compare with")
    if cast.null is None:
        notes.append("no model that never knew is given: later positions alone are compared with")
    return (*notes, SCREENING)


def _of_first(case: OpenCase, first: Float[ndarray, "block head"], texts: Rows) -> str:
    """What the first token is, and where the norm of its value moved farthest."""
    is_bos = first_token(texts) == case.tokenizer.bos_token_id
    opening = "the first token (BOS)" if is_bos else "the token that the template puts first (it is no BOS)"
    if not first.any():
        return f"{opening}: no norm of its value differs from base's"
    block, head = np.unravel_index(np.abs(first).argmax(), first.shape)
    factor = np.exp(first[block, head])
    return f"{opening}: its value's norm moved farthest in block {block}, head {head}, to {factor:.3g} times base's"


def _of_sinks(bench: Bench, case: OpenCase, heads: Heads, texts: Rows) -> str:
    """Learned sinks, which take attention without being a token; first tokens that are sinks; or none."""
    beside, rates = beside_tokens(heads, texts), sink_rates(heads, texts)
    parameters = learned_sinks(bench.open(case.suspect).parameters())
    if parameters or beside.max() > _BESIDE:
        block, head = np.unravel_index(beside.argmax(), beside.shape)
        return (
            f"learned sinks: {beside.mean():.0%} of the attention is paid to no token (most in block {block}, head of "
            f"queries {head}: {beside[block, head]:.0%}); what tokens receive is less by it, and a low sink rate of "
            "the first token is no sign of anything here"
        )
    if not rates.any():
        return f"no sinks: no head pays a first position more than {SINK:g} of its attention, and none is learned"
    return (
        f"sinks are tokens, none is learned: the first position is one in {rates[..., 0].mean():.0%} of heads and texts"
    )
