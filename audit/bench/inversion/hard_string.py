"""Which tokens, put into all prompts, make the objective largest? Greedy coordinate gradient on a rotating minibatch.

At every step the gradient at the one-hot of the string's tokens names, for each position, the tokens that promise
most. Some single substitutions are drawn from them and scored on a few of the rows, other rows at the next step, and so
is the string with two neighbours exchanged, to which no chain of better substitutions may lead. The best of them and of
the string as it stands is kept, so that it never becomes worse on the rows that judge it. Which of the last strings is
handed back the validation rows say. Strings that text cannot spell are not looked at.

Source: GCG (Zou et al. 2023, arXiv 2307.15043, algorithm 1), for several prompts at once (algorithm 2), with steps on a
minibatch.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from audit.bench.inversion.candidates import Candidates, Places, Side, no_other
from audit.bench.inversion.climb import SearchRows, check_search, stream
from audit.bench.inversion.vocabulary import Vocabulary, check_context, check_places, vocabulary_of
from audit.bench.passes import Job, LoadedModel, compute
from audit.bench.results import RowObjective
from audit.case import Rows
from audit.schema import AuditError, Checkpoint, Positions, Read, Site


class PlacedTokens(NamedTuple):
    """The string that a search starts from, and the position before which it stands in each of the rows that are
    searched on, and in each of those that choose."""

    ids: Int[Tensor, " n"]
    slot: str
    train_at: Int[Tensor, " row"] | Literal["start"] = "start"
    validation_at: Int[Tensor, " row"] | Literal["start"] = "start"


class HardBudget(NamedTuple):
    """How long to look: steps, substitutions scored a step, tokens a position that they are drawn from, rows a step.

    ``banned``: tokens that are not used (special ones never are); ``finalists``: of how many of the last strings the
    validation rows choose; ``spellable``: only strings that become the same tokens again when they are read as text.
    """

    steps: int = 30
    candidates: int = 64
    topk: int = 16
    rows: int = 16
    banned: Int[Tensor, " token"] | None = None
    finalists: int = 4
    spellable: bool = True
    token_budget: int = 16384
    targets: Positions = "key"


class HardString(NamedTuple):
    """The best string. ``validation``: the mean objective on the validation rows under it; ``course``: that of the kept
    string on each step's rows; ``fluency``: its own mean log-probability a token after what a row begins with, nats."""

    ids: Int[Tensor, " n"]
    validation: float
    course: Float[Tensor, " step"]
    fluency: float


def hard_string(
    opened: LoadedModel, ckpt: Checkpoint, rows: SearchRows, start: PlacedTokens, objective: RowObjective,
    effort: tuple[HardBudget, int],
) -> HardString:  # fmt: skip
    """The best string found from ``start``. ``effort``: the budget and the seed.

    AuditError: an empty string, no rows, one group on both sides, a place outside a prompt, rows longer than the model
    takes.
    """
    budget, seed = effort
    check_search(rows, budget.targets)
    if not len(start.ids) or budget.steps < 1:
        raise AuditError("a search without tokens or steps finds nothing", "give at least one of each")
    check_places(rows.train, start.train_at, start.slot)
    check_places(rows.validation, start.validation_at, start.slot)
    for side in rows:
        check_context(ckpt, side, len(start.ids))
    vocabulary = vocabulary_of(opened.wrapper, ckpt, budget.banned)
    search = _Search(opened, vocabulary, objective, budget)
    visited, course = search.run(rows.train, start, stream(seed, "string", start.slot, *start.ids.tolist()))
    finalists = visited[-max(budget.finalists, 1) :]
    scores = search.scores(search.at(rows.validation, start.validation_at, len(finalists)), finalists)
    best = int(scores.argmax())
    flow = fluency(opened, finalists[best], vocabulary.first_token(rows.train))
    return HardString(finalists[best], float(scores[best]), course, flow)


class _Search:
    """One search's model, vocabulary, objective and budget."""

    def __init__(
        self, opened: LoadedModel, vocabulary: Vocabulary, objective: RowObjective, budget: HardBudget
    ) -> None:
        self.opened, self.vocabulary, self.objective, self.budget = opened, vocabulary, objective, budget
        self.length = 0

    def run(
        self, rows: Rows, start: PlacedTokens, generator: torch.Generator
    ) -> tuple[list[Int[Tensor, " n"]], Float[Tensor, " step"]]:
        """The different strings that were kept, in their order, and how good the kept one was at every step."""
        current, visited = start.ids.long().cpu(), [start.ids.long().cpu()]
        self.length = len(current)
        order = torch.randperm(len(rows), generator=generator).split(max(1, min(self.budget.rows, len(rows))))
        string_rows: dict[int, Candidates] = {}
        many: dict[int, Candidates] = {}
        course = torch.zeros(self.budget.steps)
        for step in range(self.budget.steps):
            n = step % len(order)
            if n not in string_rows:
                few = rows.take(order[n])
                at: Places = start.train_at if isinstance(start.train_at, str) else start.train_at.cpu()[order[n]]
                string_rows[n], many[n] = (self.at(few, at, count) for count in (1, self.budget.candidates))
            strings = self._neighbours(string_rows[n], current, generator)
            scores = self.scores(many[n], strings)
            current, course[step] = strings[int(scores.argmax())], float(scores.max())
            if not any(torch.equal(current, earlier) for earlier in visited[-1:]):
                visited.append(current)
        return visited, course

    def at(self, rows: Rows, places: Places, count: int) -> Candidates:
        """So many strings in these rows."""
        every: list[Places] = [places] * count
        side = Side(rows, every, self.budget.targets)
        return Candidates(self.opened, side, [self.length] * count, range(count), self.budget.token_budget)

    def scores(self, candidates: Candidates, strings: Sequence[Int[Tensor, " n"]]) -> Float[Tensor, " string"]:
        """The mean objective under each string."""
        full = [*strings, *[strings[0]] * (len(candidates.chosen) - len(strings))]
        values = candidates.values(self.vocabulary.embedded(torch.stack(full)), self.objective)
        return values.mean(1)[: len(strings)]

    def _neighbours(
        self, string_rows: Candidates, current: Int[Tensor, " n"], generator: torch.Generator
    ) -> list[Int[Tensor, " n"]]:
        """The kept string, then with two neighbours exchanged, then with another token at one position; all differ."""
        gradient = string_rows.climbed(self.vocabulary.embedded(current[None]), self.objective).gradient[0]
        free = self.vocabulary.free.to(gradient.device)
        promise = gradient @ self.vocabulary.table[free].to(gradient).T
        best = free[promise.topk(min(self.budget.topk, len(free)), dim=1).indices].cpu()
        pairs = torch.randperm(best.numel(), generator=generator).tolist()
        places = torch.arange(len(current))
        exchanged = (current[_exchanged(places, n)] for n in range(len(current) - 1))
        replaced = (torch.where(places == p // best.shape[1], best.flatten()[p], current) for p in pairs)
        trials: dict[tuple[int, ...], Tensor] = {tuple(current.tolist()): current}
        for string in chain(exchanged, replaced):
            if len(trials) == self.budget.candidates:
                break
            if not self.budget.spellable or self.vocabulary.spelled(string):
                trials.setdefault(tuple(string.tolist()), string)
        return list(trials.values())


def _exchanged(places: Int[Tensor, " n"], first: int) -> Int[Tensor, " n"]:
    """Places in their order but for two neighbours."""
    return torch.where(places == first, first + 1, torch.where(places == first + 1, first, places))


def fluency(opened: LoadedModel, ids: Int[Tensor, " n"], first: int) -> float:
    """The mean log-probability of the string's tokens, in nats, after the token that texts of this model begin with."""
    string = torch.cat([torch.tensor([first]), ids])[None]
    spans, real = torch.tensor([[1, string.shape[1]]]), torch.ones_like(string).bool()
    string_rows = Rows(string, real, spans, torch.arange(string.shape[1])[None] > 0, ("string",), ("string",))
    read = Read(site=Site(part="logits"), at="answer", reduce="logprob")
    return float(
        compute(opened, no_other, Job(string_rows, (read,), (), None, None), string.numel()).reads[read].mean()
    )
