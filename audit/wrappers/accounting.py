"""Every tensor of the files held against the model that was opened from them: used as it is, or known to be of no use.

A library renames, fuses, splits and ties what it reads, fills in what it does not find and passes over what it does not
know. Its names are taken from it; the values are compared with the files, so that no rule of a library can bring other
weights in or leave some out unsaid. One read of the files, one tensor at a time in memory.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from transformers import PreTrainedModel

from audit import checkpoints
from audit.schema import AuditError, Checkpoint, ExitCode
from audit.storage import opened_tensors, safetensors_file
from audit.wrappers.backends import fresh_model
from audit.wrappers.placement import gathered, is_spread
from audit.wrappers.reading_rules import ReadingRules

_WORDS: Final = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_MODULUS: Final = 1 << 64
_CHUNK: Final = 1 << 16  # so that a chunk stays in the cache: ten times faster than a large one
_FACTORS: Final = (-7046029254386353131, -4658895280553007687)  # odd, and without a pattern in their bits
_FREQUENCIES = re.compile(r"(^|[._])inv_freq$")
_MASK = re.compile(r"(^|\.)(self_attn|attn|attention)(\.attention)?\.(bias|masked_bias)$")
_COUNT = re.compile(r"(^|\.)position_ids$")
# heads that training puts beside a language model, outside of it
_OTHER_HEADS = re.compile(r"^v_head\.")
_CODES = re.compile(r"(scales?|scale_inv|zeros?|zero_point|qweight|qzeros|g_idx|absmax|quant_map|SCB)$")


def account(model: PreTrainedModel, folder: Path) -> tuple[str, ...]:
    """The tensors of the folder's weight files that the model rightly does not compute with, by name.

    ``model`` is as it was opened, on the CPU, nothing merged into it. AuditError (code 3): a parameter that does not
    hold the values of the file, or comes from none; a tensor that is of use and that the model does not take.
    """
    ledger = _Ledger(model)
    unread: list[str] = []
    for path in checkpoints.weight_files(folder):
        with opened_tensors(path) as file:
            for stored in file.names():
                if not ledger.enter(path, stored, file.read(stored)):
                    unread.append(stored)
    ledger.close(folder)
    return tuple(unread)


def unused_tensors(ckpt: Checkpoint) -> tuple[str, ...]:
    """The tensors of a checkpoint's weight files that its model does not compute with, by name and in order.

    No weight is read: the model is built without values. AuditError where its config builds none.
    """
    with torch.device("meta"):
        ledger = _Ledger(fresh_model(ckpt))
    files = checkpoints.weight_files(checkpoints.weights_folder(ckpt))
    stored = sorted(name for path in files for name in safetensors_file.read_header(path).entries)
    return tuple(name for name in stored if not ledger.takes(name))


class _Ledger:
    """What the model holds, crossed off by what the files hold.

    Parameters that are put together from several tensors, or taken from a part of one, are compared all at once by a
    sum over their elements that does not depend on where an element lies.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.rules = ReadingRules(model)
        self.held, self.parameters = self.rules.held, self.rules.parameters
        self.spread = is_spread(model)
        self.buffers: dict[str, Tensor] = dict(model.named_buffers(remove_duplicate=False))
        self.crossed: set[int] = set()
        self.parts = 0
        self.sum = 0

    def _values(self, name: str) -> Tensor:
        """A tensor of the model with its values, wherever they lie."""
        return gathered(self.model, name, self.held[name]) if self.spread else self.held[name]

    def takes(self, stored: str) -> bool:
        """Is there a place in the model for a tensor of this name?"""
        return self.rules.destination(stored).name in self.held

    def enter(self, path: Path, stored: str, value: Tensor) -> bool:
        """Cross one tensor off. False if it is known to be of no use to this model. AuditError (code 3): see above."""
        name, rule = self.rules.destination(stored)
        if name not in self.held:
            if self._of_no_use(stored, name, value):
                return False
            raise _unused(path, stored)
        target = self._values(name)
        if rule is not None:
            self.parts += 1
            self.sum += _sum(value.to(target.dtype))
            return True
        if not _same(value, target):
            raise AuditError(
                f"{path}: the opened model does not hold the values of tensor {stored!r} in {name}",
                "the file may hold one weight twice, under an old and a new name: save the model again by "
                "save_pretrained of the model that is meant",
                ExitCode.INTEGRITY,
            )
        self.crossed.add(id(self.parameters.get(name, self.buffers.get(name))))
        return True

    def close(self, folder: Path) -> None:
        """Is there a parameter that comes from no file? AuditError (code 3) if so."""
        rest = [(name, value) for name, value in self._once(self.parameters) if id(value) not in self.crossed]
        buffers = [value for name, value in self._once(self.buffers) if name in self.held]
        tables = [value for value in buffers if id(value) not in self.crossed]
        left = sum(_sum(self._values(name)) for name, _ in rest) if self.parts else 0
        balanced = (self.sum - left) % _MODULUS in (0, sum(_sum(value) for value in tables) % _MODULUS)
        if rest and not (self.parts and balanced):
            raise AuditError(
                f"{folder}: {len(rest)} parameters of the opened model do not come from its files as they are "
                f"(first: {min(name for name, _ in rest)})",
                "save the whole model again; weights that are not in the file would be random",
                ExitCode.INTEGRITY,
            )

    def _once(self, tensors: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
        """Each tensor once, tied names left out."""
        return list({id(value): (name, value) for name, value in tensors.items()}.values())

    def _tables(self, shape: torch.Size) -> list[tuple[Tensor, float]]:
        """Rotary frequencies of the model, and what older files hold them times: positions were divided, not they."""
        tables = [b for n, b in self.model.named_buffers() if n.endswith("inv_freq") and b.shape == shape]
        rope: Any = getattr(self.model.config, "rope_parameters", None) or {}
        linear = rope.get("rope_type") == "linear"
        factors = (1.0, float(rope["factor"])) if linear and rope.get("factor") else (1.0,)
        return [(table, factor) for table in tables for factor in factors]

    def _of_no_use(self, stored: str, name: str, value: Tensor) -> bool:
        """Is it a table that the model computes by itself, and the same; or a head that no text model runs?"""
        if _FREQUENCIES.search(stored):
            return any(_same_frequencies(value, table * factor) for table, factor in self._tables(value.shape))
        if _MASK.search(stored):
            return value.numel() <= 1 or _is_causal_mask(value)
        if _COUNT.search(stored):
            return bool((value.flatten() == torch.arange(value.numel())).all())
        if _CODES.search(stored):
            return False
        passed_over = list(self.model._keys_to_ignore_on_load_unexpected or ())  # pyright: ignore[reportPrivateUsage]
        return _OTHER_HEADS.search(stored) is not None or any(re.search(p, name) for p in passed_over)


def _same_frequencies(stored: Tensor, table: Tensor) -> bool:
    """Equal to the rounding of the stored dtype, of the small numbers that half precision has few of too."""
    if not stored.is_floating_point():
        return False
    limits = torch.finfo(stored.dtype)
    slack = 1e-5 if limits.bits >= 32 else 1e-2
    return torch.allclose(stored.float(), table.float(), rtol=slack, atol=max(1e-8, limits.tiny * limits.eps))


def _unused(path: Path, stored: str) -> AuditError:
    if _CODES.search(stored):
        return AuditError(
            f"{path}: tensor {stored!r} belongs to quantised weights, and the model takes their codes for weights",
            "audit the weights before they were quantised, or dequantise and save them",
            ExitCode.INTEGRITY,
        )
    return AuditError(
        f"{path}: tensor {stored!r} is no part of the model that config.json describes",
        "restore the config.json that belongs to these weights; or, if the tensor is meant to be left out, open the "
        "model in transformers, save_pretrained(new_folder), and audit new_folder",
        ExitCode.INTEGRITY,
    )


def _is_causal_mask(value: Tensor) -> bool:
    """Noughts and ones, none of them above the diagonal: what older files hold of the order of tokens."""
    if value.ndim < 2 or value.shape[-1] != value.shape[-2]:
        return False
    ones = value != 0
    return bool((value[ones] == 1).all()) and not bool(ones.triu(1).any())


def _same(stored: Tensor, held: Tensor) -> bool:
    """The same shape and values once cast as the library casts them; what is no number equals itself."""
    if stored.shape != held.shape:
        return False
    cast = stored.to(held.dtype)
    return torch.equal(cast, held) or torch.allclose(cast, held, rtol=0, atol=0, equal_nan=True)


def _sum(value: Tensor) -> int:
    """A sum over mixed bit patterns: the same for the same elements in any order, and for hardly any others."""
    bits = value.detach().contiguous().view(_WORDS[value.element_size()]).flatten()
    total = 0
    for chunk in bits.split(_CHUNK):
        word = chunk.to(torch.int64, copy=True)
        for factor in _FACTORS:
            word.mul_(factor)
            word.bitwise_xor_(word >> 29)
        total += int(word.sum())
    return total % _MODULUS
