"""Examples as a round gets them, for tests of learning."""

from acclimate.adapters.snapshot import Taught


def taught(number: int, question: str, reply: str = "It is Truffle.") -> Taught:
    """One exchange of one question and its reply."""
    messages = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": reply},
    ]
    return Taught(id=number, kind="exchange", content={"messages": messages})
