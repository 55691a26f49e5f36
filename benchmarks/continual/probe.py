"""What a model in torch knows, says and has forgotten: all columns of the benchmark but time.

Closed book unless passages are given. Greedy, as plain chats of one question.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import torch
from peft import PeftModel

from acclimate.adapters import anchors, evaluate
from acclimate.adapters.base import Activations, Split
from acclimate.adapters.losses import Teacher, completion_nll, kl_to_teacher
from acclimate.adapters.passages import with_passages
from acclimate.adapters.prompt import Encoded, Prompt
from acclimate.adapters.train import Anchor
from acclimate.daemon.cueing import Cue, agreeing, surer
from acclimate.daemon.study import sentence
from continual.home import Passages
from continual.streams import Fact, Question, Stream, right

REPLY_TOKENS = 20
STYLE_TOKENS = 80
GENERAL_TOKENS = 24
DRIFT_TOKENS = 48
BATCH = 80

PassagesOf = Callable[[str], Passages]
Inside = Callable[[str], bool]
CuesOf = Callable[[str], Sequence[Cue]]


@dataclass
class Base:
    """What the base itself says to general questions and prompts, made once."""

    general: list[Question]
    known: list[bool]  # which of the questions it answers
    said: list[str]
    prompts: list[str]
    replies: list[Anchor]  # to the prompts, with its own distribution
    nll: list[float]


class Probe:
    """Asks one model again and again while it learns. `model` may have an adapter or none.

    Where `inside` is given, what it says no to is answered by the base; what the adapter answers
    has one of its `cues` behind it or in its place, if there are any.
    """

    def __init__(self, prompt: Prompt, stream: Stream) -> None:
        self.prompt = prompt
        self.stream = stream
        self.inside: Inside | None = None
        self.cues: CuesOf | None = None

    def say(
        self, model: torch.nn.Module, asked: Sequence[str], tokens: int, passages: PassagesOf | None
    ) -> list[str]:
        """Replies to single questions."""
        if self.inside is None or not isinstance(model, PeftModel):
            return self._say(model, asked, tokens, passages)
        ours = [text for text in asked if self.inside(text)]
        others = [text for text in asked if not self.inside(text)]
        said = dict(zip(ours, self._say(model, ours, tokens, passages, self.cues), strict=True))
        with model.disable_adapter():
            said |= zip(others, self._say(model, others, tokens, passages), strict=True)
        return [said[text] for text in asked]

    def _say(
        self,
        model: torch.nn.Module,
        asked: Sequence[str],
        tokens: int,
        passages: PassagesOf | None,
        cues: CuesOf | None = None,
    ) -> list[str]:
        rows: list[list[int]] = []
        said: dict[int, str] = {}
        for at, text in enumerate(asked):
            read = Passages([], []) if passages is None else passages(text)
            known = [] if cues is None else cues(text)
            shown, cue = agreeing(known, read.near, read.wider, read.wider)
            if quote := surer(lambda found=read.quote: found, cue, borne_out=bool(shown)):
                said[at] = sentence(quote.text)
                continue
            messages = [{"role": "user", "content": text}]
            if cue is not None:
                messages = cue.within(messages)
            messages = with_passages(messages, shown)
            rows.append(self.prompt.encode_prompt(messages))
        replies = rows and anchors.generate(
            model,
            rows,
            max_tokens=tokens,
            end_ids=self.prompt.end_ids,
            batch=BATCH if passages is None else BATCH // 4,
        )
        written = iter(self.prompt.detokenize(reply.tokens) for reply in replies)
        return [said[at] if at in said else next(written) for at in range(len(asked))]

    def base(self, model: torch.nn.Module, general: list[Question], prompts: list[str]) -> Base:
        """What to compare with; `model` is the base without an adapter."""
        said = self.say(model, [q.question for q in general], GENERAL_TOKENS, None)
        known = [right(reply, q.answers) for reply, q in zip(said, general, strict=True)]
        replies = anchors.make(model, self.prompt, prompts, DRIFT_TOKENS)
        nll, _ = drift(Split(model, 0), replies)
        return Base(general, known, said, prompts, replies, nll)

    def measure(self, model: torch.nn.Module, round_number: int, base: Base) -> dict[str, Any]:
        """Every column after this round, as shares, nats and lists by round."""
        styled = self.say(model, self.stream.style.prompts, STYLE_TOKENS, None)
        return {
            **self.facts(model, round_number),
            **self.general(model, base),
            "style": evaluate.share([self.stream.style.adhered(r) for r in styled]),
            "styled": styled,
        }

    def alone(self, model: torch.nn.Module, round_number: int) -> dict[str, Any]:
        """What the person said, asked of the adapter without its scope and its cues."""
        inside, self.inside = self.inside, None
        try:
            found = self.facts(model, round_number)
        finally:
            self.inside = inside
        return {key: found[key] for key in ("exact", "reworded", "roundabout", "by_round")}

    def facts(
        self, model: torch.nn.Module, round_number: int, passages: PassagesOf | None = None
    ) -> dict[str, Any]:
        """The columns that ask what the person said, with passages if there are any."""
        facts = [f for f in self.stream.facts if f.round <= round_number]
        asked = [(f, kind, text) for f in facts for kind, text in questions(f)]
        said = self.say(model, [text for _, _, text in asked], REPLY_TOKENS, passages)
        got: dict[str, list[bool]] = defaultdict(list)
        by_round: dict[int, list[bool]] = defaultdict(list)
        by_origin: dict[str, list[bool]] = defaultdict(list)
        lasting: dict[int, list[bool]] = defaultdict(list)
        changes: list[bool] = []
        stale: list[bool] = []
        replies = []
        for (fact, kind, text), reply in zip(asked, said, strict=True):
            ok = right(reply, fact.answers_after(round_number))
            replies.append({"fact": fact.id, "kind": kind, "asked": text, "said": reply, "ok": ok})
            got[kind].append(ok)
            if kind == "reworded":
                by_round[fact.round].append(ok)
                by_origin[fact.origin].append(ok)
                if fact.change is None:
                    lasting[fact.round].append(ok)
            changed = fact.change is not None and fact.change.round <= round_number
            if changed and kind in ("exact", "reworded"):
                stale.append(right(reply, fact.answers) and not ok)
                changes.append(ok)
        out: dict[str, Any] = {kind: evaluate.share(flags) for kind, flags in got.items()}
        out["by_round"] = {n: evaluate.share(flags) for n, flags in sorted(by_round.items())}
        out["by_origin"] = {n: evaluate.share(flags) for n, flags in sorted(by_origin.items())}
        out["lasting"] = {n: evaluate.share(flags) for n, flags in sorted(lasting.items())}
        out["changed"] = evaluate.share(changes)
        out["stale"] = evaluate.share(stale)
        out["replies"] = replies
        return out

    def general(self, model: torch.nn.Module, base: Base) -> dict[str, Any]:
        """The columns that know nothing of the person; `alone`: were the adapter to answer all."""
        asked = [q.question for q in base.general]
        said = self._say(model, asked, GENERAL_TOKENS, None)
        nll, kl = drift(Split(model, 0), base.replies)
        rises = [a - b for a, b in zip(nll, base.nll, strict=True)]
        alone = _general(base, said, rises, kl)
        if self.inside is None:
            return alone
        said = self.say(model, asked, GENERAL_TOKENS, None)
        ours = [self.inside(text) for text in base.prompts]
        cued = [self._cued(*each) for each in zip(base.prompts, base.replies, ours, strict=True)]
        nll, kl = drift(Split(model, 0), cued)
        rises = [a - b for a, b in zip(nll, base.nll, strict=True)]
        rises = [rise if own else 0.0 for rise, own in zip(rises, ours, strict=True)]
        kl = [part if own else 0.0 * part for part, own in zip(kl, ours, strict=True)]
        short = ("kept", "general_nll", "kl")
        return {
            **_general(base, said, rises, kl),
            "inside": evaluate.share(ours),
            "cued": sum(a is not b for a, b in zip(cued, base.replies, strict=True)),
            "alone": {name: alone[name] for name in short},
        }

    def _cued(self, asked: str, reply: Anchor, inside: bool) -> Anchor:
        """The base's reply as the adapter is asked for it, behind a cue where it has one."""
        cues = self.cues(asked) if self.cues is not None and inside else ()
        _, cue = agreeing(cues, (), (), ())
        if cue is None or cue.words is None:
            return reply
        messages = cue.within([{"role": "user", "content": asked}])
        prompt = self.prompt.encode_prompt(messages)
        said = reply.encoded.completion()
        encoded = Encoded(prompt + said, [0.0] * len(prompt) + [1.0] * len(said))
        return replace(reply, encoded=encoded)


def _general(
    base: Base, said: Sequence[str], rises: Sequence[float], kl: Sequence[torch.Tensor]
) -> dict[str, Any]:
    answered = zip(said, base.general, base.known, strict=True)
    return {
        "kept": evaluate.share([right(reply, q.answers) for reply, q, known in answered if known]),
        "general_replies": list(said),
        "general_nll": fmean(rises),
        "general_rises": list(rises),
        "kl": float(torch.cat(list(kl)).mean()),
    }


@torch.no_grad()
def drift(
    split: Split, replies: Sequence[Anchor], at_once: int = 12
) -> tuple[list[float], list[torch.Tensor]]:
    """NLL of each of the base's replies, and KL(base ‖ model) at each of its tokens, in nats."""
    rows = Activations(split, [a.encoded for a in replies])
    nll, kl = [], []
    for start in range(0, len(replies), at_once):
        part = range(start, min(start + at_once, len(replies)))
        batch = rows.batch(part)
        logits = batch.logits(split)
        losses = completion_nll(logits, batch.target)
        nll += [float(losses[batch.owner == n].mean()) for n in range(len(part))]
        found = kl_to_teacher(logits, Teacher.joined([replies[i].teacher for i in part]))
        kl += [found[batch.owner == n] for n in range(len(part))]
    return nll, kl


def questions(fact: Fact) -> list[tuple[str, str]]:
    """What is asked about a fact: the kind of question and its text."""
    return [
        ("exact", fact.exact),
        *(("reworded", text) for text in fact.reworded),
        ("roundabout", fact.roundabout),
    ]
