"""What each edit does, needs, costs and fits, read from the files without importing them: free of torch."""

from typing import NamedTuple

from audit.plugins import Description, Setting, describe

PACKAGE = "audit.edits"
_IN_WORDS = {
    "forget": "forget items", "retain": "retain items", "refusal": "questions to refuse",
    "relabelled": "other answers to the forget questions", "subjects": "names in the questions",
    "prompts": "questions that a string is put into", "concepts": "what they ask for",
}  # fmt: skip


class ListedEdit(NamedTuple):
    """One edit as a list shows it. ``does`` is its first sentence, ``help`` its whole text."""

    name: str
    does: str
    help: str
    needs: tuple[str, ...]
    cost: str
    fits: str
    plays: str
    settings: tuple[Setting, ...]

    @property
    def needs_in_words(self) -> str:
        """Which data it reads with its default settings."""
        return ", ".join(_IN_WORDS.get(need, need) for need in self.needs) or "no data"

    @property
    def folds(self) -> bool:
        """Can the result be written as plain weights?"""
        return self.plays == "weights"


def listed_edits() -> tuple[ListedEdit, ...]:
    """Every edit of the house, by name."""
    return tuple(_listed(described) for described in describe(PACKAGE))


def _listed(described: Description) -> ListedEdit:
    constants = described.constants
    needs = constants.get("needs", ("forget", "retain"))
    return ListedEdit(
        described.name, " ".join(described.docstring.partition("\n\n")[0].split()), described.docstring,
        tuple(map(str, needs)) if isinstance(needs, tuple) else (), _cost(described), _fits(described),
        str(constants.get("plays", "weights")), described.settings,
    )  # fmt: skip


def _cost(described: Description) -> str:
    """Training steps and rows a step; for an edit that takes none, what it does instead."""
    defaults = {setting.name: setting.default for setting in described.settings}
    if "steps" in defaults and "batch" in defaults:
        return f"trains: {defaults['steps']} steps of {defaults['batch']} rows"
    if "steps" in defaults:
        return f"no training of the model: {defaults['steps']} steps on states that are read once"
    return f"no training: {described.constants.get('work', 'reads the rows once')}"


def _fits(described: Description) -> str:
    if described.constants.get("of_images"):
        return "classifiers of images"
    return "language models" if described.constants.get("of_texts") else "language models, classifiers of images"
