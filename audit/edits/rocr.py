"""ROCR: a concept is taken for another, by a rank-one change of early MLPs off the directions that other text uses."""

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from audit.edits._rank_one import Factors, leading_directions, null_space_factors
from audit.edits._redirection import Redirection

PUBLISHED_THRESHOLD = 2e-2


class ROCR(Redirection):
    """Redirects the names of groups to another's: dW = r (P k)^T / (ridge + k^T P k) in a few early MLPs, no training.

    k is what a block's hidden units say at the end of the name (mean over contexts), r its share of the difference to
    the target's state, P what retained text leaves free: all but the leading directions of its inputs, which hold a
    share ``energy`` of them. Several groups are redirected at once by one small system. ``ridge`` is in units of the
    mean k^T P k. ``target``: a retained group, or a name; drawn from the retained groups where it is empty. ``mode``:
    ``unrelated`` redirects to it, ``reject`` to the state under which ``answer`` follows (empty: the data's refusing
    answers; ``steps`` of descent), ``noise`` to a random state of the same size. ``layers``: block numbers (empty: 4,
    5, 6 of 32 in proportion). ``folded`` false writes low-rank hooks instead of weights.
    ``paper`` does as the public code: the target is read in the first of six written contexts and the subject bare,
    ``ridge`` 1 in absolute terms, P from eigenvalues below .02.
    Whoever calls the subject otherwise (an alias, the other way round, over somebody else) walks around it.
    Cite: arXiv 2506.07795 (ROCR, ORT); AlphaEdit, arXiv 2410.02355.
    """

    plays: ClassVar[str] = "weights"

    energy: float = 0.95
    ridge: float = 0.01

    def identity(self) -> tuple[object, ...]:
        """How many directions are held."""
        return self.paper, self.energy

    def prepared(self, inputs: Float[Tensor, "token unit"]) -> Float[Tensor, "unit k"]:
        """The directions that are held."""
        if self.paper:
            return leading_directions(inputs, least=PUBLISHED_THRESHOLD)
        return leading_directions(inputs, energy=self.energy)

    def solved(
        self, keys: Float[Tensor, "concept unit"], residuals: Float[Tensor, "concept d"], known: Float[Tensor, "unit k"]
    ) -> Factors:
        """The closed form, off those directions."""
        ridge = 1.0
        if not self.paper:
            k, u = keys.double(), known.double()
            ridge = self.ridge * float((k.square().sum(1) - (k @ u).square().sum(1)).mean())
        return null_space_factors(keys, residuals, known, ridge)
