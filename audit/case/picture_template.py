"""A prompt template in which a picture stands, as the checkpoint's processor writes it."""

from audit.schema import Template


class PictureTemplate(Template):
    """A template of prompts that a processor would write, with a picture or without.

    ``marker`` is what a text says in a picture's place, ``expansion`` what the processor makes of it; both are empty
    where there is no picture. A chat is given the picture as a part of the user's turn, and begins as the tokenizer
    begins a text, for that is what processors do.
    """

    marker: str = ""
    expansion: str = ""
