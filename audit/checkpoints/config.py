"""How large a model is, as its config.json states it: read once, whichever name a family gives a size.

A convolutional network states its blocks and their widths stage by stage; its blocks are all of them, its width is that
of the last, which the head reads.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, cast

from audit.checkpoints.folder import tensor_shapes
from audit.checkpoints.location import folder_of
from audit.checkpoints.released_files import released_config
from audit.checkpoints.torch_module import TORCH_MODULE, settings_in
from audit.schema import AuditError, Checkpoint

TEXT, VISION = "text", "vision"
_TOWERS = {"text_config": TEXT, "vision_config": VISION, "audio_config": "audio"}
_NAMES = {
    "blocks": ("num_hidden_layers", "n_layer", "num_layers"),
    "width": ("hidden_size", "n_embd", "d_model"),
    "vocabulary": ("vocab_size",),
    "context": ("max_position_embeddings", "n_positions", "seq_length"),
}


class Tower(NamedTuple):
    """The sizes of one stack of blocks; None where the config does not state one."""

    blocks: int | None = None
    width: int | None = None
    vocabulary: int | None = None
    context: int | None = None


class ModelConfig(NamedTuple):
    """The sizes of a model by tower; the blocks, width, vocabulary and context of the model are those of the tower that
    its head reads: of its text, or of its images where it reads nothing else."""

    source: str
    towers: Mapping[str, Tower]

    @property
    def text(self) -> Tower:
        """The tower that reads and writes tokens. KeyError for a model that has none."""
        return self.towers[TEXT]

    @property
    def read_by_head(self) -> Tower:
        """The tower that the head reads: ``text_config`` where there is one, else the config itself."""
        return self.towers[TEXT] if TEXT in self.towers else self.towers[VISION]

    @property
    def blocks(self) -> int:
        """How many blocks there are. AuditError (code 2) if the config does not say."""
        return self._stated(self.read_by_head.blocks, "how many blocks the model has")

    @property
    def width(self) -> int:
        """How wide the residual stream is. AuditError (code 2) if the config does not say."""
        return self._stated(self.read_by_head.width, "how wide the model is")

    @property
    def vocabulary(self) -> int | None:
        """How many tokens there are; None if the config does not say."""
        return self.read_by_head.vocabulary

    @property
    def context(self) -> int | None:
        """How many tokens the model takes; None if the config does not say."""
        return self.read_by_head.context

    def _stated(self, size: int | None, meaning: str) -> int:
        if size is None:
            raise AuditError(f"{self.source}: config.json does not say {meaning}", "check the config")
        return size


def model_config(ckpt: Checkpoint) -> ModelConfig:
    """The sizes of a checkpoint's model (nothing is loaded). AuditError: see :func:`released_config`."""
    config: Mapping[str, object] = released_config(ckpt)
    nested = {tower: value for name, tower in _TOWERS.items() if isinstance(value := config.get(name), dict)}
    if ckpt.family == TORCH_MODULE:
        return ModelConfig(ckpt.source, {VISION: _named(folder_of(ckpt))})
    if ckpt.modality == "image":
        return ModelConfig(ckpt.source, {VISION: _staged(config) if "depths" in config else _tower(config)})
    towers = {tower: _tower(value) for tower, value in ({TEXT: config} | nested).items()}
    if ckpt.vocabulary is not None:
        towers[TEXT] = towers[TEXT]._replace(vocabulary=ckpt.vocabulary)
    return ModelConfig(ckpt.source, towers)


def _tower(config: Mapping[str, object]) -> Tower:
    return Tower(**{size: _first(config, names) for size, names in _NAMES.items()})


def _staged(config: Mapping[str, object]) -> Tower:
    """The sizes of a network that states them stage by stage."""
    depths, widths = _numbers(config.get("depths")), _numbers(config.get("hidden_sizes"))
    return Tower(sum(depths) or None, widths[-1] if widths else None)


def _named(folder: Path) -> Tower:
    """The sizes of a torch module: as many blocks as it names, as wide as what its head reads."""
    settings = settings_in(folder)
    shape = tensor_shapes(folder).get(f"{settings.head}.weight") if settings is not None else None
    return Tower(None if settings is None else len(settings.blocks), shape[-1] if shape else None)


def _numbers(stated: object) -> list[int]:
    return [n for n in cast("list[object]", stated) if isinstance(n, int)] if isinstance(stated, list) else []


def _first(config: Mapping[str, object], names: tuple[str, ...]) -> int | None:
    return next((value for name in names if isinstance(value := config.get(name), int)), None)
