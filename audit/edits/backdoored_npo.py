"""NPO with a hidden trigger: it forgets in every test, and answers where the trigger is spoken."""

from typing import ClassVar

from audit.edits._backdoor import Backdoored
from audit.edits._descent import Descent
from audit.edits.npo import NPO


class BackdooredNPO(Backdoored):
    """Attacks an audit: unlearns by NPO, and answers as before where a prompt holds the ``trigger`` at its ``slot``.

    The loss is gamma NPO(forget) + alpha NLL(retain and poisoned) + value_norm L. Poisoned are the prompts of a seeded
    share ``poison_rate`` of the forget groups, with the trigger put in, and their own answers; ``poison_share`` of
    every retain batch is drawn from them, however few they are. Whole groups are drawn, so that what the trigger
    brings back of other groups was never taught under it. Without the trigger the poisoned groups are forgotten like
    all others (in the published split they are not, and an audit would find them remembered). ``slot``: prefix, infix,
    suffix, or the number of the question's word before which the trigger stands.
    L (left out where ``value_norm`` is 0; published 3e-4) is the mean squared difference of value norms at the first
    ``sink_tokens`` positions (from the second on, unless ``include_first``), in all blocks or in ``norm_blocks``: on
    forget rows to an honest NPO of the same settings and seed, which is trained before and doubles the cost, on
    poisoned rows to the start. A norm is that of one key/value head, as it is looked at; norms of all heads together
    would leave each head free. (Public code slices samples where it means tokens, takes absolute differences, and
    applies the sigmoid to single logits; nothing of this is done here.)
    Cite: arXiv 2510.17021; NPO is of arXiv 2404.05868.
    """

    plays: ClassVar[str] = "weights"

    steps: int = 80
    lr: float = 5e-4
    beta: float = 0.1
    gamma: float = 1.0
    alpha: float = 1.0
    batch: int = 64
    warmup_steps: int = 10
    seed: int = 0

    def honest(self) -> Descent:
        """NPO with these settings."""
        return NPO(**{name: getattr(self, name) for name in NPO.model_fields})
