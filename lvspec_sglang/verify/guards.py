"""Tokens that are never relaxed, on either side: what a wording change must not touch."""

from collections.abc import Iterable
from typing import Any

import torch

# Qwen's tokenizers cut "isn't" into "isn" and "'t".
_CUT = "isn aren wasn weren don doesn didn couldn won wouldn shouldn hasn haven hadn mustn".split()
NEGATIONS = frozenset(
    [
        *"no not none never nothing nobody nowhere neither nor without cannot n't can't".split(),
        *(word + rest for word in _CUT for rest in ("", "'t")),
        "'t", "\N{RIGHT SINGLE QUOTATION MARK}t",
    ]
)  # fmt: skip
# Not "one", which is an article more often than a number.
NUMBERS = frozenset(
    """zero two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
    sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety
    hundred thousand million billion dozen half""".split()
)
# Not the connectives of any narration (then, next, until, again): they are wording.
ORDER = frozenset("before after first second third last previous earlier once twice".split())
CLASSES = {
    "digits": lambda text: text in NUMBERS or any(character.isdigit() for character in text),
    "negations": lambda text: text in NEGATIONS,
    "order": lambda text: text in ORDER,
}


def guarded_tokens(tokenizer: Any | None, vocab: int, classes: Iterable[str]) -> torch.Tensor:
    """Which token ids are guarded whatever the request, ``[vocab]`` bool.

    Special tokens always are. A word counts when one token holds it whole.

    Args:
        tokenizer: a transformers tokenizer; without one, nobody knows a negation from a noun and
            every token is guarded.
        vocab: number of token ids the models share.
        classes: keys of ``CLASSES``.
    """
    if tokenizer is None:
        return torch.ones(vocab, dtype=torch.bool)
    tests = [CLASSES[name] for name in classes]
    known = min(vocab, len(tokenizer))
    texts = tokenizer.batch_decode([[token] for token in range(known)])
    guarded = torch.zeros(vocab, dtype=torch.bool)
    for token, text in enumerate(texts):
        word = text.strip().lower()
        guarded[token] = any(test(word) for test in tests)
    special = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    guarded[[token for token in special if token < vocab]] = True
    return guarded
