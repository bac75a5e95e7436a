"""Llama 3.2 Vision behind torch hooks: the text tower looks at an image's tiles through cross-attention blocks.

The tower of images is two lists of blocks, run one after the other; its outputs are those of some blocks of the first
list, side by side with that of the last block of all, so most of them cannot be started after. A row's image is one
token; which tokens see which tiles follows from it and is made of the ids in every pass, as the processor makes it:
without that mask two attention implementations disagree. Text rows run without an image, where the library leaves the
cross-attention blocks out: here they hand on what they are given, so that a block keeps its number.

States of the image are shown in an order of their own: the class tokens of all tiles and what fills tiles up first, the
patches after them, tile by tile. All of them are attended to, filling included, as in the released model.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from audit.schema import AuditError, ExitCode, Part, TowerName
from audit.wrappers.anatomy import Anatomy
from audit.wrappers.hooks import Visit
from audit.wrappers.image_inputs import PIXELS, check_size, image_config, image_shape, patch_shape
from audit.wrappers.interface import Batch, Resume, Tap, Tower, text_tower
from audit.wrappers.native_vlm import VisionLanguageWrapper
from audit.wrappers.tracing import gap
from audit.wrappers.vision_tower import Seen, VisionHooks, hand_on

RATIO_IDS, RATIO_MASK = "aspect_ratio_ids", "aspect_ratio_mask"
SEEN_STATES = "cross_attention_states"
"""Among what a batch brings, once its images have been seen: what the cross-attention blocks look at."""
_STREAM: frozenset[Part] = frozenset({"embed", "resid_in", "resid_out"})
"""What every block has, of whichever kind it is."""
_FINE, _COARSE = 1e-4, 0.1
"""Two attention implementations may differ by so much of the largest logit, in 32 bits and in 16."""
_FILLED = 8
"""The states of a tile are filled up to a multiple of this."""


class TileOrder(NamedTuple):
    """Where the states of an image stand in the model's own order; ``leading``: those that are no patches."""

    places: Int[Tensor, " pos"]
    leading: int

    def shown(self, state: Float[Tensor, "row pos d"]) -> Float[Tensor, "row pos d"]:
        """States as they are shown."""
        return state[:, self.places.to(state.device)]

    def handed(self, state: Float[Tensor, "row pos d"]) -> Float[Tensor, "row pos d"]:
        """States as blocks hand them on."""
        return state[:, self.places.argsort().to(state.device)]


def tile_order(config: Any) -> TileOrder:
    """The order of a vision config's states: a class token, the patches and the filling of each tile."""
    (_, height, width), patch = image_shape(config), patch_shape(config)
    patches = (height // patch[0]) * (width // patch[1])
    filled = -(-(patches + 1) // _FILLED) * _FILLED
    place = torch.arange(config.max_num_tiles * filled).view(config.max_num_tiles, filled)
    others = torch.cat([place[:, 0], place[:, patches + 1 :].flatten()])
    return TileOrder(torch.cat([others, place[:, 1 : patches + 1].flatten()]), len(others))


class TileHooks(VisionHooks):
    """The blocks of both lists, in the order in which they run."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        tower: Any = model.base_model.vision_model
        blocks = nn.ModuleList([*tower.transformer.layers, *tower.global_transformer.layers])
        self.anatomy = Anatomy(tower, blocks, None, int(model.config.vision_config.hidden_size))
        self._parts = _STREAM
        with torch.inference_mode(False):  # passes with gradients index by it
            self.order = tile_order(model.config.vision_config)

    def seen(self, run: Callable[[], object]) -> Seen:
        """How many states an image has, by the config: nothing is run."""
        return Seen(len(self.order.places), self.order.leading)

    def _shown(self, visit: Visit) -> Visit:
        def seen(state: Tensor) -> Tensor | None:
            new = visit(self.order.shown(state))
            return None if new is None else self.order.handed(new)

        return seen

    def install(self, stack: ExitStack, taps: Sequence[Tap], resume: Resume | None, stop: int | None) -> None:
        """The taps of one pass; a state to start from is put into the order of the blocks."""
        handed = None if resume is None else resume._replace(state=self.order.handed(resume.state))
        super().install(stack, taps, handed, stop)


class CrossAttentionWrapper(VisionLanguageWrapper):
    """A model whose text tower has cross-attention blocks among its own. One image a row, or none in any."""

    takes = frozenset({PIXELS, RATIO_IDS, RATIO_MASK})
    looks_again = True

    def _dissected(self) -> Anatomy:
        """The stream alone: what is inside a block differs between the two kinds."""
        core: Any = self.core
        return Anatomy(core, core.layers, core.norm, int(core.config.hidden_size))

    def _vision_hooks(self) -> VisionHooks:
        return TileHooks(self.model)

    def _text_tower(self) -> Mapping[TowerName, Tower]:
        return text_tower(self.anatomy.d_model, len(self.blocks), {*_STREAM, "final_in", "logits"})

    @property
    def image_tokens(self) -> int:
        """One token stands for an image, however many tiles it has."""
        return 1

    # ---- the forward ---------------------------------------------------------------------------------------------
    def features(self, images: Mapping[str, Tensor]) -> Float[Tensor, "row pos d"]:
        """What the projector gives of each row's tiles, all of them in a row, by the model's own code."""
        lacking = sorted(self.takes - images.keys())
        if lacking:
            raise AuditError(f"{self.name}: the rows bring no {', '.join(lacking)}", "give rows of an image case")
        pixels = images[PIXELS].to(self.dtype)
        if pixels.ndim != 6 or pixels.shape[1] != 1:
            raise AuditError(
                f"{self.name}: pixels of shape {tuple(pixels.shape)} are no single image of tiles a row",
                "give each row one image, as the checkpoint's processor leaves it",
            )
        check_size(self.model, pixels)
        ratios = {name: images[name] for name in (RATIO_IDS, RATIO_MASK)}
        states: Tensor = self.base.vision_model(pixel_values=pixels, **ratios).last_hidden_state
        return self.base.multi_modal_projector(states).flatten(1, -2)

    def seen(self, batch: Batch, features: Float[Tensor, "row pos d"]) -> Batch:
        """The batch with what its cross-attention blocks look at."""
        self.places_of(batch)
        return batch._replace(extra={**batch.extra, SEEN_STATES: features})

    def _unseen(self, batch: Batch, stack: ExitStack) -> None:
        """Without an image the library skips the cross-attention blocks: they are called, and hand on what they get."""
        if SEEN_STATES in batch.extra:
            return
        core: Any = self.core
        own: list[int] = core.cross_attention_layers
        stack.callback(setattr, core, "cross_attention_layers", own)
        core.cross_attention_layers = []
        for number in own:
            hand_on(stack, self.blocks[number], None)

    def cross_mask(self, batch: Batch) -> Int[Tensor, "row pos 1 tile"]:
        """Which tokens see which tiles of their row's image: those from the image token on, the tiles that it has."""
        seeing = ((batch.ids == self.image_id) & batch.mask).long().cumsum(1).clamp_max(1)
        return seeing[:, :, None, None] * batch.extra[RATIO_MASK].long()[:, None]

    def language_inputs(self, batch: Batch) -> dict[str, object]:
        """What the model without its head is called with: tiles and their mask where there is an image."""
        if SEEN_STATES not in batch.extra:
            return super().language_inputs(batch)
        tiles = batch.extra[SEEN_STATES].unflatten(1, (-1, self.base.vision_model.num_patches)).flatten(0, 1)
        looked_at = {"cross_attention_mask": self.cross_mask(batch), SEEN_STATES: tiles}
        return {**super().language_inputs(batch), **looked_at}

    def check_attention(self, batch: Batch) -> None:
        """Eager attention and the other one see the same, as they do under a cross-attention mask only."""
        configs = [self.model.config.vision_config, self.model.config.text_config]
        before = [config._attn_implementation for config in configs]
        logits: list[Tensor] = []
        try:
            for implementation in ("eager", "sdpa"):
                self.model.set_attn_implementation(implementation)
                logits.append(self.model(**self.own_inputs(batch)).logits)
        finally:
            self.model.set_attn_implementation({"vision_config": before[0], "text_config": before[1]})
        if gap(*logits) > (_COARSE if self.dtype.itemsize < 4 else _FINE):
            raise AuditError(
                f"{self.name}: eager and sdpa attention give other logits of the same images",
                "report the model's class with this message; nothing that is read of it can be trusted",
                ExitCode.INTEGRITY,
            )

    # ---- made-up rows ----------------------------------------------------------------------------------------------
    def made_up(self, n: int) -> Mapping[str, Tensor]:
        """Images of one and two tiles by turns, and what says how many each has."""
        config = image_config(self.model)
        shape = (n, 1, int(config.max_num_tiles), *image_shape(config))
        count = torch.arange(torch.Size(shape).numel(), device=self.device, dtype=torch.float32)
        pixels = torch.sin(count * 12.9898 + 0.5).view(shape).to(self.dtype)
        tiles = torch.arange(n, device=self.device) % 2 + 1
        mask = torch.arange(shape[2], device=self.device) < tiles[:, None]
        ids = tiles.clamp_max(config.max_aspect_ratio_id)[:, None]
        return {PIXELS: pixels, RATIO_IDS: ids, RATIO_MASK: mask.long()[:, None]}

    def own_inputs(self, batch: Batch) -> Mapping[str, object]:
        mask = {"cross_attention_mask": self.cross_mask(batch)} if PIXELS in batch.extra else {}
        return {**super().own_inputs(batch), **mask}
