"""A word-level tokenizer for the invented world, as an ordinary Hugging Face tokenizer.

One token a word or punctuation mark, ``<bos>`` before every text, and the full stop as end of sequence: an answer is
one sentence, so that generation ends by itself.
"""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPECIAL = ("<pad>", "<bos>", "<unk>")


def make_tokenizer(texts: Iterable[str]) -> "PreTrainedTokenizerFast":
    """A tokenizer whose vocabulary is every word of ``texts`` (braced slots left out), sorted."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = {w for text in texts for w in re.findall(r"\w+|[^\w\s]+", re.sub(r"\{\w+\}", " ", text))}
    order = [*SPECIAL, *sorted(words | {"."})]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(order)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()  # pyright: ignore[reportAttributeAccessIssue]
    inner.post_processor = processors.TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<bos>", unk_token="<unk>", eos_token=".",
        model_max_length=64, clean_up_tokenization_spaces=False,
    )  # fmt: skip
