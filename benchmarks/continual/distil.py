"""Context distillation: the base with a passage teaches the adapter to do without it.

Snell et al. 2022 (arXiv:2209.15189), Padmanabhan et al. 2023 (arXiv:2306.09306): forward KL from
the base that reads the passage to the adapted model that does not. No replay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from acclimate.adapters import anchors
from acclimate.adapters.base import Activations, Batch, Split
from acclimate.adapters.losses import Part, Teacher, kl_to_teacher
from acclimate.adapters.passages import with_passages
from acclimate.adapters.prompt import Encoded, Prompt
from acclimate.adapters.train import Lesson
from acclimate.store.errors import ModelError
from continual import flops
from continual.sequential import Sequential

REPLY_TOKENS = 32
TAUGHT_AT_ONCE = 12
_MARKS = ("first-mark", "second-mark", "third-mark")


class ContextDistillation(Sequential):
    """Trains on the teacher's own replies, or on its view of the taught completions.

    A wording that shows its passage already teaches nothing here and is left out; a lesson without
    a context too.
    """

    name = "context-distillation"

    def __init__(
        self, *args: Any, targets: Literal["reply", "taught"] = "reply", **own: Any
    ) -> None:
        super().__init__(*args, **own)
        self.targets = targets
        self.questions = Questions(self.prompt)
        self.teachers: dict[int, Teacher] = {}  # by id of the sequence

    def begin(self, lessons: Sequence[Lesson], contexts: Sequence[str]) -> list[Lesson]:
        """Asks the teacher once for every wording."""
        self.teachers = {}
        pairs = [
            (n, row, seen)
            for n, (lesson, context) in enumerate(zip(lessons, contexts, strict=True))
            for row in {id(w): w for w in lesson.wordings}.values()
            if (seen := self.questions.with_context(row, context)) is not None
        ]
        if not pairs:
            return []
        rows = self._replies(pairs) if self.targets == "reply" else self._taught(pairs)
        made = [Lesson(lesson.example_id, []) for lesson in lessons]
        for (n, _, _), row in zip(pairs, rows, strict=True):
            made[n].wordings.append(row)
        return [lesson for lesson in made if lesson.wordings]

    def needed(self, rows: Sequence[Encoded]) -> Tensor:
        """The tokens that the teacher expects."""
        return self._teacher(rows).ids.flatten().long()

    def distance(self, logits: Tensor, batch: Batch, rows: Sequence[Encoded], part: Part) -> Tensor:
        """KL(teacher ‖ student)."""
        del batch
        teacher = self._teacher(rows)
        return kl_to_teacher(logits, replace(teacher, ids=part.place(teacher.ids)))

    def _teacher(self, rows: Sequence[Encoded]) -> Teacher:
        return Teacher.joined([self.teachers[id(row)] for row in rows])

    def _replies(self, pairs: Sequence[tuple[int, Encoded, list[int]]]) -> list[Encoded]:
        """The student's sequences with the teacher's greedy replies."""
        with self.model.disable_adapter():
            said = anchors.generate(
                self.model,
                [seen for _, _, seen in pairs],
                max_tokens=REPLY_TOKENS,
                end_ids=self.prompt.end_ids,
                top_k=anchors.TOP_K,
            )
        out = []
        for (_, row, seen), reply in zip(pairs, said, strict=True):
            asked = asked_of(row)
            length = len(reply.tokens)
            made = Encoded(asked + reply.tokens, [0.0] * len(asked) + [1.0] * length)
            self.teachers[id(made)] = reply.teacher
            self._count_teacher(len(seen) + length, length)
            out.append(made)
        return out

    @torch.no_grad()
    def _taught(self, pairs: Sequence[tuple[int, Encoded, list[int]]]) -> list[Encoded]:
        """The taught sequences; what the teacher expects at each completion token is kept."""
        split = Split(self.model, 0)
        for start in range(0, len(pairs), TAUGHT_AT_ONCE):
            part = pairs[start : start + TAUGHT_AT_ONCE]
            rows = []
            for _, row, seen in part:
                reply = row.completion()
                rows.append(Encoded(seen + reply, [0.0] * len(seen) + row.mask[-len(reply) :]))
                self._count_teacher(len(rows[-1].tokens), len(reply))
            with self.model.disable_adapter():
                batch = Activations(split, rows).batch(range(len(rows)))
                expected = Teacher.from_logits(batch.logits(split), anchors.TOP_K)
            for n, (_, row, _) in enumerate(part):
                own = batch.owner == n
                self.teachers[id(row)] = Teacher(expected.ids[own], expected.logp[own])
        return [row for _, row, _ in pairs]

    def _count_teacher(self, tokens: int, predicted: int) -> None:
        self._counted += flops.forward(self.sizes, self.sizes.layers, flops.Row.plain(tokens))
        self._counted += flops.logits(self.sizes, predicted)


def asked_of(row: Encoded) -> list[int]:
    """The tokens of the prompt."""
    return row.tokens[: len(row.tokens) - len(row.completion())]


class Questions:
    """Finds the last question in a tokenised prompt and puts a passage in front of it."""

    def __init__(self, prompt: Prompt) -> None:
        self.prompt = prompt
        first, second, third = _MARKS
        turns = [
            {"role": "user", "content": first},
            {"role": "assistant", "content": second},
            {"role": "user", "content": third},
        ]
        single = prompt.render(turns[:1])
        before, after = single.split(first)
        between = prompt.render(turns).split(second)[1].split(third)[0]
        # What every user turn begins with, the first one of a conversation and later ones.
        same = 0
        while same < min(len(before), len(between)) and before[-1 - same] == between[-1 - same]:
            same += 1
        if not same:
            raise ModelError("the chat template opens its turns in different ways")
        self.opening = prompt.tokenize(before[-same:])
        self.closing = prompt.tokenize(after)

    def with_context(self, row: Encoded, context: str) -> list[int] | None:
        """The row's prompt with the passage, as serving writes it; None where it adds nothing."""
        asked = asked_of(row)
        end = len(asked) - len(self.closing)
        size = len(self.opening)
        starts = [n for n in range(end - size + 1) if asked[n : n + size] == self.opening]
        if not context.strip() or asked[end:] != self.closing or not starts:
            return None
        head = asked[: starts[-1] + size]
        question = self.prompt.detokenize(asked[len(head) : end])
        if context.strip() in question:
            return None
        shown = with_passages([{"role": "user", "content": question}], [context])
        return head + self._inner(shown[0]["content"]) + self.closing

    def _inner(self, content: str) -> list[int]:
        """The tokens of a user message's content, without its turn's borders."""
        tokens = self.prompt.encode_prompt([{"role": "user", "content": content}])
        size = len(self.opening)
        start = next(n for n in range(len(tokens)) if tokens[n : n + size] == self.opening)
        return tokens[start + size : len(tokens) - len(self.closing)]
