"""What the words of the texts alone say of their cohort: the baseline that no model takes part in."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

MOST_FOLDS = 5


def blind_scores(
    texts: Sequence[str], member: Bool[ndarray, " item"], group: Int[ndarray, " item"], seed: int
) -> Float[ndarray, " item"] | None:
    """Log-odds of membership by the words of each text, from a logistic regression fitted on the texts of other groups.

    Counts of words and pairs of words, at most 4,096 of them. None with fewer than two groups on either side, or where
    the texts hold no word. Source: Das, Zhang and Tramer 2024 (arXiv 2406.16201).
    """
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold

    fewest = min(len(np.unique(group[member])), len(np.unique(group[~member])))
    if fewest < 2:
        return None
    scores = np.zeros(len(member))
    folds = StratifiedGroupKFold(min(MOST_FOLDS, fewest), shuffle=True, random_state=seed % 2**32)
    for train, held in folds.split(scores, member, group):
        words = CountVectorizer(ngram_range=(1, 2), max_features=4096, token_pattern=r"\S+")
        try:
            counts = words.fit_transform([texts[i] for i in train])
        except ValueError:  # an empty vocabulary
            return None
        if len(np.unique(member[train])) < 2:
            return None
        fitted = LogisticRegression(max_iter=2000, class_weight="balanced").fit(counts, member[train])
        scores[held] = fitted.decision_function(words.transform([texts[i] for i in held]))
    return scores
