"""Guesses a reply's next tokens from what stands in its prompt and in itself.

Prompt lookup (Saxena 2023, https://github.com/apoorvumang/prompt-lookup-decoding): where the last
tokens stood before, what followed them there is likely to follow again. All guesses are computed in
one step with the token before them; which of them hold is for the sampler to say, so that a reply
is the same with and without. Knows token numbers only.
"""

from collections.abc import Sequence

LONGEST, SHORTEST = 3, 2  # how many last tokens are looked up, the more first
MOST = 16  # guesses in a step
FIRST = 4


class Lookup:
    """The guesses for one reply, and how many of them held."""

    def __init__(self) -> None:
        self.guessed = 0
        self.held = 0
        self._length = FIRST
        self._read = 0
        self._after: dict[tuple[int, ...], int] = {}  # some tokens → where it went on, the latest

    @property
    def rate(self) -> float:
        """The share of guesses that will hold, a half before there are any."""
        return (self.held + FIRST / 2) / (self.guessed + FIRST)

    def guess(self, tokens: Sequence[int], most: int) -> list[int]:
        """Up to `most` tokens that may follow all of these, prompt and reply so far."""
        found = self._found(tokens)
        return list(tokens[found : found + min(most, self._length)]) if found else []

    def took(self, guessed: int, held: int) -> None:
        """So many of the guesses were what the sampler chose."""
        self.guessed += guessed
        self.held += held
        self._length = min(MOST, 2 * self._length) if held == guessed else max(2, held + 1)

    def _found(self, tokens: Sequence[int]) -> int:
        found = 0
        for size in range(LONGEST, SHORTEST - 1, -1):
            if not found:
                # Not noted yet: the last tokens themselves, which nothing follows.
                found = self._after.get(tuple(tokens[-size:]), 0)
        for end in range(max(SHORTEST, self._read), len(tokens) + 1):
            for size in range(SHORTEST, min(LONGEST, end) + 1):
                self._after[tuple(tokens[end - size : end])] = end
        self._read = len(tokens) + 1
        return found
