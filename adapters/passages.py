"""How passages of the person's documents, and cues, stand in a prompt; the same in training and
serving.

Pure text; knows no index. Passages are data: `Prompt` breaks up control tokens in them as in
everything else.
"""

from collections.abc import Mapping, Sequence


def with_passages(
    messages: Sequence[Mapping[str, str]], passages: Sequence[str]
) -> list[dict[str, str]]:
    """The messages with the passages before the last question, as plain text."""
    composed = [dict(message) for message in messages]
    if passages and composed and composed[-1]["role"] == "user":
        notes = "\n\n".join(passage.strip() for passage in passages)
        composed[-1]["content"] = f"Notes:\n{notes}\n\nQuestion: {composed[-1]['content']}"
    return composed


def with_cue(
    messages: Sequence[Mapping[str, str]],
    cue: str | None,
    *,
    request: bool = False,
    in_place: bool = False,
) -> list[dict[str, str]]:
    """The messages with a taught question behind the last one, which means nearly the same, or
    `in_place` of it; or with a taught `request` like it behind it."""
    composed = [dict(message) for message in messages]
    if cue and composed and composed[-1]["role"] == "user":
        asked, how = composed[-1]["content"].rstrip(), "Like" if request else "In other words"
        composed[-1]["content"] = cue if in_place else f"{asked}\n\n{how}: {cue}"
    return composed
