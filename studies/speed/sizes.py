"""The models and batches that are timed: random GPT-2s, written to disk once and opened like any checkpoint."""

from pathlib import Path
from typing import Literal, NamedTuple

import torch

from audit.case import Rows
from audit.checkpoints import resolve
from audit.schema import Checkpoint, Source

SizeName = Literal["A", "B", "T", "smoke"]


class Size(NamedTuple):
    """A random GPT-2 and the batch it is given."""

    blocks: int
    d_model: int
    heads: int
    vocab: int
    batch: int
    positions: int
    calls_per_repeat: int
    repeats_factor: int
    purpose: str

    @property
    def block_output_mib(self) -> float:
        """One block's output in float32."""
        return self.batch * self.positions * self.d_model * 4 / 2**20


SIZES: dict[SizeName, Size] = {
    "A": Size(6, 512, 8, 5_000, 32, 128, 1, 1, "a small model where the blocks dominate"),
    "B": Size(12, 768, 12, 50_257, 32, 128, 1, 1, "GPT-2 small: the 50k vocabulary makes the head expensive"),
    "T": Size(12, 64, 4, 1_000, 1, 8, 20, 4, "almost no arithmetic: what is left is Python overhead"),
    "smoke": Size(2, 32, 4, 100, 2, 8, 2, 1, "tries the harness; its numbers mean nothing"),
}


def checkpoint(name: SizeName, folder: Path, seed: int) -> Checkpoint:
    """The random model of this size as a checkpoint under ``folder``, written there if it is missing."""
    from tokenizers import Tokenizer, models
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    size, target = SIZES[name], folder / f"{name}-{seed}"
    if not (target / "model.safetensors").is_file():
        torch.manual_seed(seed)
        config = GPT2Config(
            n_layer=size.blocks, n_embd=size.d_model, n_head=size.heads, vocab_size=size.vocab,
            n_positions=max(128, size.positions), bos_token_id=0, eos_token_id=0,
        )  # fmt: skip
        words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(size.vocab)}, unk_token="w0"))
        PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0", pad_token="w0").save_pretrained(target)
        GPT2LMHeadModel(config).save_pretrained(target)
    return resolve(Source(path=str(target)), folder)


def rows(name: SizeName, seed: int) -> Rows:
    """Full rows of random tokens: no padding, so every method computes the same tokens."""
    size = SIZES[name]
    shape = (size.batch, size.positions)
    names = tuple(str(i) for i in range(size.batch))
    return Rows(
        ids=torch.randint(size.vocab, shape, generator=torch.Generator().manual_seed(seed)),
        mask=torch.ones(shape, dtype=torch.bool),
        answer_spans=torch.tensor([[1, size.positions]]).repeat(size.batch, 1),
        key=torch.zeros(shape, dtype=torch.bool),
        item_ids=names,
        group_ids=names,
    )
