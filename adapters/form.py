"""What several replies have in common, token by token: the form to learn, apart from content.

Pure lists of tokens. A style is how replies begin, end and are laid out; what only one of them
says cannot be foretold, and to memorise it pulls general text along and spoils unseen replies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

GRAM = 3
FROM_REPLIES = 3  # what so many replies share is form
CONTENT_WEIGHT = 0.4
ENTRY = 2  # tokens of the contents behind an opening that count in full
_EDGE = -1


class Form:
    """The runs of tokens that a set of replies share."""

    def __init__(self, replies: Sequence[Sequence[int]]) -> None:
        counts = Counter(gram for reply in replies for gram in set(_grams(reply)))
        self._shared = {gram for gram, count in counts.items() if count >= FROM_REPLIES}

    def marks(self, reply: Sequence[int]) -> bool:
        """Whether this reply has any of it."""
        return not self._shared.isdisjoint(_grams(reply))

    def frame(self, reply: Sequence[int]) -> tuple[int, int]:
        """How many tokens at its beginning and at its end are of the form."""
        of_form = self._of_form(reply)
        return _run(of_form), _run(of_form[::-1])

    def weights(self, reply: Sequence[int]) -> list[float]:
        """How much each token is to count: 1 where it is of the form, less where it is content.

        All 1 in a reply that shares nothing.
        """
        of_form = self._of_form(reply)
        if True not in of_form:
            return [1.0] * len(reply)
        out = [1.0 if shared else CONTENT_WEIGHT for shared in of_form]
        begins = _run(of_form)
        if begins > 0:
            # Behind an opening it is decided whether there are any contents at all.
            out[begins : begins + ENTRY] = [1.0] * len(out[begins : begins + ENTRY])
        return out

    def _of_form(self, reply: Sequence[int]) -> list[bool]:
        """Of each token, whether it stands in a run that is shared."""
        out = [False] * len(reply)
        for start, gram in enumerate(_grams(reply)):
            if gram in self._shared:
                # Grams begin before the reply's first token, see `_grams`.
                first = start - (GRAM - 1)
                for at in range(max(0, first), min(len(reply), first + GRAM)):
                    out[at] = True
        return out


def _run(of_form: Sequence[bool]) -> int:
    """How many tokens at the beginning are of the form."""
    return next((n for n, shared in enumerate(of_form) if not shared), len(of_form))


def _grams(reply: Sequence[int]) -> list[tuple[int, ...]]:
    """Runs of tokens; the first ones reach over the reply's beginning, so that it counts too."""
    edge = [_EDGE] * (GRAM - 1)
    row = [*edge, *reply]
    return [tuple(row[n : n + GRAM]) for n in range(len(row) - GRAM + 1)]
