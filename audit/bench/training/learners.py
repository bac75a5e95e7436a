"""What is trained: a model and its rows behind one interface, whichever way the model is run."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from audit.bench.results import Forward
from audit.case import Rows
from audit.schema import AuditError, Site

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from audit.wrappers import Wrapper


class TrainData(NamedTuple):
    """The rows that a recipe's objective sees; either may be missing, then the objective gets None in its place."""

    forget: Rows | None = None
    retain: Rows | None = None


class Learner(Protocol):
    """Anything that can be trained: live parameters by name, and a scored forward pass of some rows."""

    def parameters(self) -> Mapping[str, Tensor]: ...
    def answers(self, rows: Rows, at_sites: Sequence[Site] = ()) -> Forward: ...


def score_answers(
    rows: Rows, final: Float[Tensor, "row pos d"], head: Callable[[Tensor], Tensor], states: Mapping[Site, Tensor]
) -> Forward:
    """Score the answer tokens of ``rows`` from final states: only their positions go through the head."""
    row, position = (index.to(final.device) for index in rows.targets("answer"))
    logits = head(final[row, position - 1]).float()
    target = rows.ids.to(final.device)[row, position]
    logprob = logits.log_softmax(-1).gather(-1, target[:, None])[:, 0]
    return Forward(logprob, logits, target, row, rows.key.to(final.device)[row, position], states, position - 1)


class CausalLearner:
    """A live Hugging Face causal language model. Rows are right-padded, so causal attention needs no mask.

    Scores take the model's own forward pass; only where states are asked for, or rows bring images, is it put behind
    the native backend, which refuses inputs that the model would not read.
    """

    def __init__(self, model: "PreTrainedModel") -> None:
        self.model = model

    def parameters(self) -> Mapping[str, Tensor]:
        """Live parameters by their checkpoint names."""
        return dict(self.model.named_parameters())

    @cached_property
    def wrapper(self) -> "Wrapper":
        """The model behind the native backend."""
        from audit.wrappers import wrap

        return wrap(self.model)

    def answers(self, rows: Rows, at_sites: Sequence[Site] = ()) -> Forward:
        """Score the answers of ``rows``, and keep the states at ``at_sites``."""
        from audit.wrappers import core_of, logits_of

        if at_sites or rows.extra:
            return WrapperLearner(self.wrapper).answers(rows, at_sites)
        ids = rows.ids.to(self.model.device)
        states = core_of(self.model)(input_ids=ids, use_cache=False).last_hidden_state
        return score_answers(rows, states, partial(logits_of, self.model), {})


class WrapperLearner:
    """A model behind a backend, trained through its own forward pass: language models, and classifiers of images,
    whose rows have their class for a target. In both nothing but weights changes: statistics of batches stay."""

    def __init__(self, wrapper: "Wrapper") -> None:
        self.wrapper = wrapper

    def parameters(self) -> Mapping[str, Tensor]:
        """Live parameters by their checkpoint names."""
        return self.wrapper.parameters()

    def answers(self, rows: Rows, at_sites: Sequence[Site] = ()) -> Forward:
        """Score the answers of ``rows``, and keep the states at ``at_sites``."""
        from audit.wrappers import Batch, Tap

        final, seen = Site(part="final_in"), dict[Site, Tensor]()
        device = self.wrapper.device
        extra = {name: value.to(device) for name, value in rows.extra.items()}
        batch = Batch(rows.ids.to(device), rows.mask.to(device), None, extra)
        self.wrapper.forward(batch, [Tap(site, partial(seen.__setitem__, site)) for site in (final, *at_sites)])
        states, tower = {site: seen[site] for site in at_sites}, self.wrapper.tower()
        scored = score_answers(rows, seen[final], self.wrapper.head, states)
        # what a classifier of images reads lies at position 0 of its final states, as if its class followed a token
        return scored if tower.summary != "pooled" else scored._replace(at=None)


def wrapper_of(learner: Learner) -> "Wrapper":
    """The live model of a learner behind a backend. AuditError for one that runs a model in a way of its own."""
    if isinstance(learner, CausalLearner | WrapperLearner):
        return learner.wrapper
    raise AuditError(f"{type(learner).__name__} has no places for hooks", "give a model of transformers")


def states_of(
    learner: Learner, rows: Rows, sites: Sequence[Site], keep: Callable[[Rows, Tensor], Tensor], size: int = 64
) -> dict[Site, Tensor]:
    """What is kept of the states at some sites, ``size`` rows at a time and one batch below the other, in float32.

    ``keep(rows, state)`` sees a batch of rows and its states, [row pos d].
    """
    from audit.wrappers import Batch, Tap

    batches: dict[Site, list[Tensor]] = {site: [] for site in sites}
    wrapper = wrapper_of(learner)
    device = wrapper.device
    for index in torch.arange(len(rows)).split(size):
        part, seen = rows.take(index), dict[Site, Tensor]()
        extra = {name: value.to(device) for name, value in part.extra.items()}
        batch = Batch(part.ids.to(device), part.mask.to(device), None, extra)
        with torch.no_grad():
            wrapper.forward(batch, [Tap(site, partial(seen.__setitem__, site)) for site in sites])
        for site in sites:
            batches[site].append(keep(part, seen[site].float()))
    return {site: torch.cat(parts) for site, parts in batches.items()}


def last_state(rows: Rows, state: Float[Tensor, "row pos d"]) -> Float[Tensor, "row d"]:
    """The states at the rows' last tokens."""
    return state[torch.arange(len(rows)), rows.lengths - 1]


def real_states(rows: Rows, state: Float[Tensor, "row pos d"]) -> Float[Tensor, "token d"]:
    """The states at all tokens of the rows, padding left out."""
    return state[rows.mask.to(state.device)]
