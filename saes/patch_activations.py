"""Activations at places of images: patches of a transformer, positions of a convolutional network's map.

An image has many places that are much alike; of each image a few are drawn, by a seed and its number alone, so that
other weights are read at the very same places. What was drawn is kept in the bench's store, and not the rest.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from audit.bench import Bench
from audit.schema import AuditError, Checkpoint, Read, Site, content_key
from saes.bench_activations import BenchActivations, CaseTexts, ItemActivations
from saes.records import PatchSample

_CHUNK_BYTES = 16 << 20
_PIXELS = "pixel_values"


class PatchActivations(ItemActivations):
    """The states at some places of every image, as many of each as ``sample`` says or as the coarsest site has.

    Rows come image by image, the places of one in ascending order; sites of different grids have their own places.
    AuditError (code 2) for a site twice, one that the model does not have, or a model that reads no images.
    """

    def __init__(
        self, bench: Bench, checkpoint: Checkpoint, texts: CaseTexts, sites: Sequence[Site], sample: PatchSample,
        chunk_bytes: int = _CHUNK_BYTES,
    ) -> None:  # fmt: skip
        super().__init__(bench, checkpoint, texts, sites)
        if _PIXELS not in texts.rows.extra:
            raise AuditError("patches are places of images, and these items are texts", "read every token of them")
        self.patches = sample
        self._reads = tuple(Read(site=site, at="patches") for site in sites)
        shapes = self._shapes()
        self.widths = tuple(d for _, d in shapes)
        self.positions = {name: total for name, (total, _) in zip(self.names, shapes, strict=True)}
        self.per_image = min(sample.count, *self.positions.values())
        images = max(1, chunk_bytes // (4 * sum(total * d for total, d in shapes)))
        self.places = torch.arange(len(texts.items)).split(images)
        self.sizes = tuple(len(place) * self.per_image for place in self.places)
        self.key = content_key(
            "patches", bench.key(checkpoint.key), texts.rows.hash, self.names, sample.model_dump(mode="json")
        )

    def _shapes(self) -> list[tuple[int, int]]:
        """Positions and width of every site, by the states of one image."""
        with self._bench.without_store():
            states = self._bench.run(self._checkpoint, self.texts.rows.take(torch.arange(1)), self._reads)
        return [(states[read].shape[1], states[read].shape[2]) for read in self._reads]

    def chunk(self, n: int) -> Mapping[str, Float[Tensor, "row d"]]:
        place = self.places[n].tolist()
        drawn = self._bench.cached((self.key, place[0], place[-1]), lambda: self._drawn(n))
        return {name: torch.from_numpy(states) for name, states in drawn.items()}

    def _drawn(self, n: int) -> dict[str, np.ndarray]:
        """The states of one chunk at the places that were drawn."""
        with self._bench.without_store():
            states = self._bench.run(self._checkpoint, self.texts.rows.take(self.places[n]), self._reads)
        chosen: dict[str, np.ndarray] = {}
        for name, read in zip(self.names, self._reads, strict=True):
            index = self.spots(n, name).view(-1, self.per_image, 1)
            chosen[name] = states[read].gather(1, index.expand(-1, -1, states[read].shape[2])).flatten(0, 1).numpy()
        return chosen

    def owners(self, n: int) -> Int[Tensor, " row"]:
        """The number of the image to which every row of a chunk belongs."""
        return self.places[n].repeat_interleave(self.per_image)

    def spots(self, n: int, name: str) -> Int[Tensor, " row"]:
        """The place in the grid of a site at which every row of a chunk lies, row by row of the image."""
        total = self.positions[name]
        return torch.from_numpy(np.concatenate([self._spots_of(image, total) for image in self.places[n].tolist()]))

    def _spots_of(self, image: int, total: int) -> np.ndarray:
        """The places of one image, in ascending order: by the seed, the image's number and the size of the grid."""
        assert self.patches is not None
        order = np.random.default_rng([self.patches.seed, total, image]).permutation(total)
        return np.sort(order[: self.per_image])

    def spot_name(self, name: str, spot: int) -> str:
        """Row and column in the grid of places, counted from 1, where the image's sides make one of them."""
        total = self.positions[name]
        height, width = self.texts.rows.extra[_PIXELS].shape[2:]
        rows = round((total * height / width) ** 0.5)
        if rows < 1 or total % rows:
            return f"place {spot + 1} of {total}"
        columns = total // rows
        return f"row {spot // columns + 1} of {rows}, column {spot % columns + 1} of {columns}"


def activations_of(
    bench: Bench, checkpoint: Checkpoint, texts: CaseTexts, sites: Sequence[Site], sample: PatchSample | None
) -> ItemActivations:
    """The states at some places of images where a sample is given, else over the answer spans of the items."""
    if sample is None:
        return BenchActivations(bench, checkpoint, texts, sites)
    return PatchActivations(bench, checkpoint, texts, sites, sample)
