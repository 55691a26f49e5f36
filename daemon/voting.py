"""How an adapter would begin a reply by itself: its vote among answers.

One token of the engine, greedy; the state of the prompt is there for the reply afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import structlog

from acclimate.adapters.prompt import Prompt
from acclimate.daemon.cueing import LEAST_VOTE
from acclimate.daemon.engine import Engine
from acclimate.daemon.sampling import Sampling
from acclimate.daemon.stream import Request
from acclimate.store.errors import AcclimateError

log = structlog.get_logger(__name__)

LIKELIEST = 20  # tokens that are looked at; what is not among them has the least vote


def vote(
    engine: Engine,
    prompt: Prompt,
    adapter: str,
    messages: Sequence[Mapping[str, str]],
    answers: Sequence[str],
) -> list[float]:
    """The log probability, in nats, of the first token of each answer, `LEAST_VOTE` where it is not
    among the likeliest. All have the least where the engine does not give it."""
    try:
        request = Request(
            prompt.encode_prompt(messages),
            adapter,
            max_tokens=1,
            sampling=Sampling(temperature=0.0),
            logprobs=LIKELIEST,
        )
        with engine.submit(request) as stream:
            top = {one.token: one.logprob for piece in stream for one in piece.top}
    except AcclimateError as error:
        log.warning("no_vote", adapter=adapter, error=str(error))
        top = {}
    firsts = [prompt.tokenize(answer, special=False)[:1] for answer in answers]
    return [top.get(first[0], LEAST_VOTE) if first else LEAST_VOTE for first in firsts]
