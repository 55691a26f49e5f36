"""Turns token bytes into text that may be shown: whole characters, stop strings held back.

Knows no tokens and no model; one object serves one reply.
"""

import codecs
from collections.abc import Sequence


def held_back(text: str, stops: Sequence[str]) -> int:
    """How many characters at the end of `text` could be the beginning of a stop string."""
    longest = 0
    for stop in stops:
        for size in range(min(len(stop) - 1, len(text)), longest, -1):
            if text.endswith(stop[:size]):
                longest = size
                break
    return longest


class TextStream:
    """Feed it the bytes of each token; it gives the text that is certain.

    A character split across tokens waits for its last byte; text that may begin a stop string
    waits until it does not. `stopped` turns true at the first stop string, which is not given;
    `stop` is that string.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.stopped = False
        self.stop: str | None = None

    def push(self, piece: bytes) -> str:
        return self._release(self._decoder.decode(piece))

    def finish(self) -> str:
        """What was held back, now that nothing follows; broken characters become U+FFFD."""
        text = self._release(self._decoder.decode(b"", final=True))
        if not self.stopped:
            text, self._held = text + self._held, ""
        return text

    def _release(self, text: str) -> str:
        if self.stopped:
            return ""
        if not self._stops:
            return text
        text = self._held + text
        found = [(place, stop) for stop in self._stops if (place := text.find(stop)) >= 0]
        if found:
            place, self.stop = min(found, key=lambda one: one[0])
            self.stopped, self._held = True, ""
            return text[:place]
        keep = len(text) - held_back(text, self._stops)
        self._held = text[keep:]
        return text[:keep]
