"""What is written of a dictionary beside its weights, and what decides how it is trained. Free of torch."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from audit.schema import Record, Site

Architecture = Literal["topk", "batchtopk", "jumprelu"]
MIN_BASE_FVE = 0.8
"""Below this share of explained variance a dictionary does not describe even the model that it was trained on."""
MIN_FVE_RATIO = 0.9
"""A dictionary is valid on another model where it explains at least this share of what it explains on base."""
_LARGEST_BATCH = 4096
_STEPS_WANTED = 2000
_CHECKPOINTS = 20
_WARM_UP_SHARE, _DECAY_SHARE, _DEAD_WINDOW = 0.02, 0.2, 1000


class TrainingSettings(Record):
    """How a dictionary is trained: everything but the activations that decides its weights.

    ``features`` wide; ``k`` active features a row (TopK), on average (BatchTopK), or aimed at (JumpReLU). ``rows`` is
    how many rows are seen, again and again where there are fewer. A batch of 0 leaves its size to ``rows``;
    ``checkpoint_rows`` 0 makes a twentieth of the rows one checkpoint interval. ``l0_coefficient`` weighs JumpReLU's
    distance from ``k`` against the squared error; ``rate`` is Adam's learning rate. ``draws`` dictionaries a site learn
    from the same rows in the same order, each from first weights of its own.
    """

    architecture: Architecture = "topk"
    features: Annotated[int, Field(ge=2)]
    k: Annotated[int, Field(ge=1)]
    rows: Annotated[int, Field(ge=1)]
    batch: Annotated[int, Field(ge=0)] = 0
    rate: Annotated[float, Field(gt=0)] = 1e-3
    seed: Annotated[int, Field(ge=0)] = 0
    checkpoint_rows: Annotated[int, Field(ge=0)] = 0
    l0_coefficient: Annotated[float, Field(gt=0)] = 1.0
    draws: Annotated[int, Field(ge=1)] = 1

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.k >= self.features:
            raise ValueError(f"k = {self.k} of {self.features} features: a sparse code needs fewer than all")
        return self

    @property
    def batch_rows(self) -> int:
        """Rows of one step: as asked, else a power of two from 32 up that leaves about 2000 steps."""
        if self.batch:
            return min(self.batch, self.rows)
        size = 32
        while size < _LARGEST_BATCH and 2 * size * _STEPS_WANTED <= self.rows:
            size *= 2
        return min(size, self.rows)

    @property
    def steps(self) -> int:
        """How many steps training takes; rows that do not fill a last batch are not seen."""
        return self.rows // self.batch_rows

    @property
    def checkpoint_steps(self) -> int:
        """After how many steps what was learnt is kept on disk."""
        rows = self.checkpoint_rows or self.rows // _CHECKPOINTS
        return max(1, rows // self.batch_rows)

    @property
    def warm_up_steps(self) -> int:
        """Over how many steps the learning rate rises."""
        return int(_WARM_UP_SHARE * self.steps)

    @property
    def decay_steps(self) -> int:
        """Over how many of the last steps it falls to nothing."""
        return int(_DECAY_SHARE * self.steps)

    @property
    def dead_window(self) -> int:
        """A feature that was active on no row of more steps than these is dead."""
        return max(1, min(_DEAD_WINDOW, self.steps // 10))


class PatchSample(Record):
    """So many places of every image at the most (patches of a transformer, positions of a map), drawn by ``seed``."""

    count: Annotated[int, Field(ge=1)]
    seed: Annotated[int, Field(ge=0)] = 0


class Fidelity(Record):
    """How well a dictionary describes the states of one model at one site.

    ``fve``: fraction of variance explained, 1 - sum |x - x'|^2 / sum |x - mean|^2, over ``rows`` states; below 0 where
    the mean alone is closer. ``l0``: active features a row. ``dead``: how many of ``features`` never fired.
    """

    fve: float
    l0: float
    dead: int
    features: int
    rows: int


class Validity(Record):
    """May a dictionary of base's be used on another model? ``because`` says what decided."""

    valid: bool
    because: str
    base: Fidelity
    other: Fidelity


class DictionaryRecord(Record):
    """What a trained dictionary is: of which weights, at which site, on which rows, how, and how well.

    ``checkpoint`` is the key of the weights, ``activations`` of the rows that were read from them (None where they
    came from elsewhere), ``patches`` the places of images that they are (None: the state that the head reads, or
    tokens); ``training`` names the whole training, ``weights_seed`` is that of the first weights. ``held_out`` was
    measured on texts that training did not see. ``sha256`` of the files that lie beside this record, by name.
    """

    version: Literal[1] = 1
    checkpoint: str | None
    site: Site | None
    patches: PatchSample | None = None
    activations: str
    training: str
    settings: TrainingSettings
    weights_seed: int | None = None
    cached_rows: int
    held_out: Fidelity
    sha256: dict[str, str]
