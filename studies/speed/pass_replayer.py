"""Runs a list of passes bare, in a process of its own: the least that an audit of these passes can take.

``python -m studies.speed.pass_replayer LIST`` opens the same models with transformers, runs the same blocks on random
tokens of the same shapes, the head on as many positions, the same backward passes and optimiser steps, and prints the
CPU-seconds of each unit as JSON. No hooks, no statistics, no log-probabilities, no store. What is not faithful is said
in README.md beside it.
"""

import json
import resource
import sys
import time
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from studies.speed.bare_dictionary import BareDictionary
from studies.speed.pass_list import Back, Event, Head, Learnt, ModelKind, Opened, PassList, Run

_LISTS: Final = ("layers", "h", "layer", "blocks")


class BareModel:
    """One model and what of it is called: its embeddings, its blocks, its head."""

    def __init__(self, model: Any) -> None:
        self.model = model.eval().requires_grad_(False)
        name, self.blocks = next(
            (name, module) for name, module in model.named_modules()
            if isinstance(module, nn.ModuleList) and name.rpartition(".")[2] in _LISTS
        )  # fmt: skip
        parent, _, self._attribute = name.rpartition(".")
        self.core = model.get_submodule(parent)
        self.head = model.get_output_embeddings()
        config = model.config.get_text_config()
        self.width, self._vocabulary = config.hidden_size, config.vocab_size
        self._cut: dict[tuple[int, int], nn.ModuleList] = {}
        self._ids: dict[tuple[int, int], Tensor] = {}
        self._states: dict[tuple[int, ...], Tensor] = {}
        self._past: dict[tuple[int, int], Any] = {}
        self._optimisers: dict[int, torch.optim.Optimizer] = {}

    def tokens(self, rows: int, width: int) -> Tensor:
        """Random tokens."""
        if (rows, width) not in self._ids:
            self._ids[rows, width] = torch.randint(self._vocabulary, (rows, width))
        return self._ids[rows, width]

    def states(self, *shape: int) -> Tensor:
        """Random states."""
        if shape not in self._states:
            self._states[shape] = torch.randn(*shape, self.width, dtype=self.model.dtype)
        return self._states[shape]

    def blocks_run(self, first: int, last: int, states: Tensor, past: int) -> Tensor:
        """What some blocks make of states, with keys and values of so many tokens before them."""
        all_blocks = (first, last) == (0, len(self.blocks) - 1)
        if not all_blocks and (first, last) not in self._cut:
            self._cut[first, last] = nn.ModuleList(list(self.blocks)[first : last + 1])
        given: dict[str, Any] = {} if not past else {"past_key_values": self._kept(len(states), past)}
        if not all_blocks:
            setattr(self.core, self._attribute, self._cut[first, last])
        try:
            return self.core(inputs_embeds=states, use_cache=bool(past), **given).last_hidden_state
        finally:
            if not all_blocks:
                setattr(self.core, self._attribute, self.blocks)

    def _kept(self, rows: int, past: int) -> Any:
        from transformers import DynamicCache

        if (rows, past) not in self._past:
            with torch.inference_mode():
                cache: Any = DynamicCache()
                self.core(inputs_embeds=self.states(rows, past), past_key_values=cache, use_cache=True)
            self._past[rows, past] = tuple((layer.keys, layer.values) for layer in cache.layers)
        return DynamicCache(self._past[rows, past])

    def stepped(self, numbers: int) -> None:
        """A step of fused AdamW over so many numbers, or a little more, at a rate of 0."""
        if numbers not in self._optimisers:
            chosen, left = list[Tensor](), numbers
            for parameter in self.model.parameters():
                if left > 0:
                    chosen.append(parameter)
                    left -= parameter.numel()
            self._optimisers[numbers] = torch.optim.AdamW(chosen, 0.0, fused=True)
        self._optimisers[numbers].step()
        self._optimisers[numbers].zero_grad(set_to_none=True)


def open_model(kind: ModelKind) -> BareModel:
    """The model of a kind, by transformers alone."""
    import transformers

    if kind.built:
        name, _, config = kind.built.partition(" ")
        chosen: Any = getattr(transformers, name)
        return BareModel(chosen(chosen.config_class.from_dict(json.loads(config))))
    config: Any = transformers.AutoConfig.from_pretrained(kind.folder)
    chosen = getattr(transformers, config.architectures[0])
    return BareModel(chosen.from_pretrained(kind.folder, dtype=kind.dtype, attn_implementation=kind.attention))


class Replay:
    """Runs the events of units in their order."""

    def __init__(self, kinds: list[ModelKind]) -> None:
        self._kinds = kinds
        self._models: dict[int, BareModel] = {}
        self._outputs: dict[int, Tensor] = {}
        self._sources: dict[int, Tensor] = {}
        self._trained: BareModel | None = None
        self._dictionaries: dict[Learnt, BareDictionary] = {}

    def unit(self, events: list[Event]) -> None:
        """Everything that a unit ran."""
        self._outputs.clear()
        last_use: dict[int, int] = {}
        for at, event in enumerate(events):
            if isinstance(event, Back):
                last_use |= dict.fromkeys(event.reached, at)
        for at, event in enumerate(events):
            if isinstance(event, Opened):
                self._models[event.kind] = open_model(self._kinds[event.kind])
            elif isinstance(event, Run):
                self._run(at, event)
            elif isinstance(event, Head):
                self._head(at, event)
            elif isinstance(event, Back):
                self._back(event, events)
                for reached in event.reached:
                    if last_use[reached] == at:
                        self._outputs.pop(reached, None)
                        self._sources.pop(reached, None)
            elif isinstance(event, Learnt):
                if event not in self._dictionaries:
                    self._dictionaries[event] = BareDictionary(event)
                self._dictionaries[event].step()
            elif event.weights and self._trained is not None:
                self._trained.stepped(event.numbers)

    def _model(self, kind: int) -> BareModel:
        if kind not in self._models:
            self._models[kind] = open_model(self._kinds[kind])
        return self._models[kind]

    def _run(self, at: int, run: Run) -> None:
        bare, first = self._model(run.kind), run.first
        grad = run.lowest >= 0
        if grad:
            self._ask(bare, run.weights)
        with torch.inference_mode() if not grad else nullcontext():
            if first == 0:
                states = bare.model.get_input_embeddings()(bare.tokens(run.rows, run.width))
            else:
                states = bare.states(run.rows, run.width)
            if not grad:
                bare.blocks_run(first, run.last, states, run.past)
                return
        if run.lowest > first and not run.weights:
            with torch.no_grad():
                states = bare.blocks_run(first, run.lowest - 1, states, run.past)
            first = run.lowest
        if not run.weights:
            states = states.detach().requires_grad_()
        self._sources[at] = states
        self._outputs[at] = bare.blocks_run(first, run.last, states, run.past)

    def _ask(self, bare: BareModel, weights: bool) -> None:
        """Whether the parameters ask for gradients."""
        if weights != next(bare.model.parameters()).requires_grad:
            bare.model.requires_grad_(weights)
        if weights:
            self._trained = bare

    def _head(self, at: int, head: Head) -> None:
        bare = self._model(head.kind)
        if head.of not in self._outputs:
            with torch.inference_mode():
                bare.head(bare.states(head.positions))
            return
        states = self._outputs[head.of].flatten(0, 1)
        self._outputs[at] = bare.head(states[torch.arange(head.positions) % len(states)])

    def _back(self, back: Back, events: list[Event]) -> None:
        reached = [at for at in back.reached if at in self._outputs]
        read = {event.of for at in reached if isinstance(event := events[at], Head)}
        roots = [self._outputs[at].sum() for at in reached if at not in read]
        if not roots:
            return
        weights = back.weights and self._trained is not None
        inputs: Iterable[Tensor] = [self._sources[at] for at in reached if at in self._sources]
        if weights and self._trained is not None:
            inputs = list(self._trained.model.parameters())
        inputs = [tensor for tensor in inputs if tensor.requires_grad]
        got = torch.autograd.grad(sum(roots[1:], roots[0]), inputs, retain_graph=back.again, allow_unused=True)
        if weights:
            for parameter, gradient in zip(inputs, got, strict=True):
                parameter.grad = gradient


def main() -> None:
    """Replay a list and print what it took."""
    from transformers.utils import logging as quiet

    quiet.set_verbosity_error()
    quiet.disable_progress_bar()
    torch.set_num_threads(1)
    passes, replay, seconds = PassList.read(Path(sys.argv[1])), None, dict[str, float]()
    replay = Replay(passes.kinds)
    for unit in passes.units:
        begin = time.process_time()
        replay.unit(unit.events)
        seconds[unit.unit] = seconds.get(unit.unit, 0.0) + time.process_time() - begin
    used = resource.getrusage(resource.RUSAGE_SELF)
    record = {"units": seconds, "cpu_s": used.ru_utime + used.ru_stime, "peak_mb": used.ru_maxrss / 1024}
    sys.stdout.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
