"""How many keys a sample has, and what it proves; pure.

Keys are drawn without replacement, each equally likely. If a share p of all keys were wrong, n draws would all be
right with a probability of at most (1 - p)^n (less than that without replacement); so where all n are right, p is
below 1 - (1 - confidence)^(1/n) at that confidence (the exact binomial bound of Clopper and Pearson for no failure).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction

CONFIDENCE = 0.999
"""At which bounds are stated."""
KEYS_MIN = 1000
"""A share of all keys is never fewer than these, where there are as many: 1000 right keys prove 0.7 %."""
KEYS_MAX = 1_000_000
"""No sample has more keys, since they are kept in memory: that many right ones prove 7 in a million."""

_PERCENT = re.compile(r"(\d{1,3}(?:\.\d{1,6})?) ?%")


@dataclass(frozen=True, slots=True)
class SampleSize:
    """How much is to be drawn: a share of all keys, or a number of them; every key where both are None."""

    share: Fraction | None = None
    keys: int | None = None

    def drawn(self, of: int) -> int:
        """Return how many of `of` keys are drawn; a sample of all of them is none, and has no largest size."""
        if self.share is not None:
            wanted = max(KEYS_MIN, math.ceil(of * self.share))
        else:
            wanted = of if self.keys is None else self.keys
        return of if wanted >= of else min(KEYS_MAX, wanted)


EVERY_KEY = SampleSize()
DEFAULT_SAMPLE = SampleSize(share=Fraction(1, 1000))


def parse_sample(text: str) -> SampleSize:
    """Return what `--sample` asks for.

    Raises:
        ValueError: neither "0.1%", nor a number of keys, nor "all".
    """
    if text == "all":
        return EVERY_KEY
    percent = _PERCENT.fullmatch(text)
    if percent is not None and 0 < Fraction(percent[1]) <= 100:
        return SampleSize(share=Fraction(percent[1]) / 100)
    if re.fullmatch(r"[1-9]\d{0,11}", text):
        return SampleSize(keys=int(text))
    raise ValueError(f'found "{text}"; expected a share such as "0.1%", a number of keys, or "all"')


def mismatch_bound(keys: int, of: int, confidence: float = CONFIDENCE) -> float:
    """Return below which share of `of` keys the wrong ones lie, since `keys` drawn ones were all right.

    0 where every key was looked at; 1 where none was.
    """
    if keys >= of:
        return 0.0
    return 1.0 if keys == 0 else -math.expm1(math.log1p(-confidence) / keys)
