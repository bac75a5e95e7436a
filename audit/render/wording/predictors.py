"""What each predictor of a forecast is, in a few words: all are read from base, before anything is unlearned."""

from typing import Final

PREDICTORS: Final = {
    "loss": "loss of the words that carry the fact, in nats",
    "answer_loss": "loss of the whole answer, in nats",
    "answer_tokens": "tokens of the answer",
    "question_tokens": "tokens before the answer",
    "entropy": "how undecided base is where the fact begins, in nats",
    "margin": "how far the true token leads the next best, in logits",
    "extraction": "share of the answer that base goes on with by itself",
    "gradient_cosine": "does forgetting it pull against what must stay? Cosine with the mean retained gradient",
    "fisher_overlap": "share of the weights that matter for it and also for what must stay",
    "gradient_norm": "how strongly one step on it moves the weights",
    "first_step": "how fast its loss rises when all are unlearned at once, to first order",
    "circuit_source": "mean block that its circuit reads from (0 first, 1 last)",
    "circuit_depth": "mean block that its circuit writes to (0 first, 1 last)",
    "circuit_spread": "how evenly its circuit lies over the blocks",
    "circuit_early": "share of its circuit in the first third of the blocks",
    "circuit_late": "share of its circuit in the last third of the blocks",
    "path_length": "edges on the longest way through its circuit",
    "key_layer": "mean block of the parts that write it",
    "key_spread": "over how many blocks those parts are spread",
    "entanglement": "how alike its circuit is to that of some retained item (cosine)",
    "pathways": "other rows about the same fact that base recalls outright",
    "other_words": "mean probability of the same fact asked in other words",
    "key_count": "rows of the case that say the same content",
    "frequency": "how often it was trained, as the items state it",
}
