"""What a round trains and measures, as tokens: every example under its wordings.

Knows texts and tokens; no model and no training.
"""

from __future__ import annotations

import contextlib
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

from acclimate.adapters import study
from acclimate.adapters.form import Form
from acclimate.adapters.grammar import stem
from acclimate.adapters.mixture import is_fact
from acclimate.adapters.passages import with_cue, with_passages
from acclimate.adapters.prompt import Encoded, Prompt
from acclimate.adapters.request import asks_to_write, rephrased, shortened
from acclimate.adapters.reword import STOP, reword
from acclimate.adapters.snapshot import Snapshot, Taught
from acclimate.adapters.train import Lesson
from acclimate.store.chats import Exchange
from acclimate.store.errors import ModelError

# How often the exact wording stands among those of an example, and how many others a request has.
EXACT_SHOWN = 3
REQUEST_WORDINGS = 8
SHORTENED_SHOWN = 2  # how often each shorter version of a reply stands among the wordings
# Of a fact's wordings, how many show passages, and how many of other facts each shows. In so many
# of these its own passage says something else than was taught, and that is the answer: what is
# known is answered without reading, and an adapter that need not read forgets how to.
WITH_PASSAGES = 6
OTHER_PASSAGES = 2
SAYING_OTHERWISE = 4
# Every so many-th of its other wordings, with passages or without, has the question itself behind
# it, as serving puts a cue there.
CUED_EVERY = 2
# The others are drawn from so many facts, those that share most words with the question: retrieval
# shows such.
NEAR_FACTS = 8


@dataclass
class Material:
    """The examples as tokens: what is trained (`lessons`), and what only measures.

    `taught` are the new ones, each in its first wording; `rehearsed` the learned ones, likewise;
    `probes` new answers under wordings that are not trained, `probes_rehearsed` learned ones
    likewise; `unseen` held-out exchanges;
    `prompts` those of taught exchanges; `styled` the lessons whose replies share the `form`,
    `requests` what is asked for in those of them that ask for something to be written;
    `skipped` says of an example, by its id, why it cannot be taught.
    """

    lessons: list[Lesson] = field(default_factory=list)
    taught: list[Encoded] = field(default_factory=list)
    rehearsed: list[Encoded] = field(default_factory=list)
    probes: list[Encoded] = field(default_factory=list)
    probes_rehearsed: list[Encoded] = field(default_factory=list)
    unseen: list[Encoded] = field(default_factory=list)
    prompts: list[list[int]] = field(default_factory=list)
    form: Form = field(default_factory=lambda: Form([]))
    styled: list[Lesson] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    skipped: dict[int, str] = field(default_factory=dict)


def prepare(snapshot: Snapshot, prompt: Prompt) -> Material:
    """Tokenises the examples; one that cannot be taught is skipped with a reason, not an error."""
    material = Material()
    limit = snapshot.training.max_tokens

    def encode(messages: list[dict[str, str]]) -> Encoded:
        encoded = prompt.encode(messages)
        if len(encoded.tokens) > limit:
            raise ModelError(f"{len(encoded.tokens)} tokens, at most {limit}")
        return encoded

    both = [e for e in (*snapshot.new, *snapshot.replay) if is_fact(e)]
    facts = [passages_of(e)[0] for e in both]
    answers = sorted({_short(e) for e in both})
    asked = {e.id: e.messages()[-2]["content"] for e in (*snapshot.new, *snapshot.replay)}
    requests = {number: text for number, text in asked.items() if asks_to_write(text)}
    plain: list[Lesson] = []
    for part in (snapshot.new, snapshot.replay):
        rehearsed = part is snapshot.replay
        for example in part:
            messages = example.messages()
            fact = is_fact(example)
            try:
                if fact:
                    wordings, probes = _studied(example, snapshot, encode, facts, answers)
                    (material.probes_rehearsed if rehearsed else material.probes).extend(probes)
                else:
                    wordings = _requested(messages, snapshot.seed, encode, [*requests.values()])
            except ModelError as error:
                material.skipped[example.id] = error.message
                continue
            if rehearsed:  # what would not be seen need not be computed
                wordings = wordings[: snapshot.training.replay_exposures]
            material.lessons.append(Lesson(example.id, wordings, rehearsed))
            if not fact:
                plain.append(material.lessons[-1])
            if not rehearsed:
                material.prompts.append(prompt.encode_prompt(messages[:-1]))
    for example in snapshot.held_out:
        try:
            material.unseen.append(encode(example.messages()))
        except ModelError as error:
            material.skipped[example.id] = error.message
    _weigh(material, plain)
    styled = (lesson.example_id for lesson in material.styled)
    material.requests = [requests[number] for number in styled if number in requests]
    for lesson in material.lessons:
        (material.rehearsed if lesson.rehearsed else material.taught).append(lesson.wordings[0])
    return material


def beside(snapshot: Snapshot, prompt: Prompt, passage: str) -> list[Encoded]:
    """A new fact under its own question, with `passage` among its passages; none without facts."""
    for example in filter(is_fact, snapshot.new):
        *before, asked, _ = example.messages()
        shown = [passage, passages_of(example)[0]]
        question = with_passages([{"role": "user", "content": asked["content"]}], shown)
        short = _short(example)
        with contextlib.suppress(ModelError):  # one that cannot be taught either
            return [prompt.encode([*before, *question, {"role": "assistant", "content": short}])]
    return []


def _weigh(material: Material, plain: list[Lesson]) -> None:
    """Lets what replies have in common count more than what only one of them says."""
    form = material.form = Form([lesson.wordings[0].completion() for lesson in plain])

    def weighed(row: Encoded) -> Encoded:
        weights = form.weights(row.completion())
        return Encoded(row.tokens, row.mask[: -len(weights)] + weights)

    for lesson in plain:
        if form.marks(lesson.wordings[0].completion()):
            material.styled.append(lesson)
        # What stands several times stays one row, so that it is computed once.
        rows = {id(row): weighed(row) for row in lesson.wordings}
        lesson.wordings[:] = [rows[id(row)] for row in lesson.wordings]
    material.unseen[:] = map(weighed, material.unseen)


def _requested(
    messages: list[dict[str, str]],
    seed: int,
    encode: Callable[[list[dict[str, str]]], Encoded],
    requests: Sequence[str],
) -> list[Encoded]:
    """The wordings of what is no fact: a request to write something is made in other words too,
    some of them answered more shortly, each with another of the `requests` behind it, one of
    those most like it."""
    *before, asked, reply = messages
    like = _nearest(asked["content"], [other for other in requests if other != asked["content"]])
    forms = rephrased(asked["content"], REQUEST_WORDINGS, seed)

    plain = encode(messages)
    rng = random.Random(f"{seed}:{asked['content']}")
    others = [(form, reply["content"]) for form in forms]
    for text in shortened(reply["content"]):
        others += [(form, text) for form in rng.sample(forms, min(len(forms), SHORTENED_SHOWN))]
    wordings = [plain] * (EXACT_SHOWN if others else 1)
    for form, text in others:
        request = with_cue(
            [{**asked, "content": form}], rng.choice(like) if like else None, request=True
        )
        with contextlib.suppress(ModelError):  # one wording that is too long costs no more
            wordings.append(encode([*before, *request, {**reply, "content": text}]))
    return wordings


def _studied(
    example: Taught,
    snapshot: Snapshot,
    encode: Callable[[list[dict[str, str]]], Encoded],
    facts: Sequence[str],
    answers: Sequence[str],
) -> tuple[list[Encoded], list[Encoded]]:
    """The wordings of a fact to train, and at most one true one that is never trained.

    Some show passages as serving does, the fact's own among others', so that the adapter learns
    to read them and does not unlearn it; in most of them the own one says something else.
    """
    messages = example.messages()
    *before, asked, _ = messages
    question, short = asked["content"], _short(example)
    # More wordings than times to show them would never be seen.
    count = min(snapshot.training.wordings, snapshot.training.exposures)
    forms = reword(question, count + 1, snapshot.seed)
    if not forms:
        return [encode(messages)], []

    def asked_as(form: str, answer: str = short) -> Encoded:
        turns = [{"role": "user", "content": form}, {"role": "assistant", "content": answer}]
        return encode([*before, *turns])

    unseen = forms[0]
    others = [(v, short) for v in study.variants(question, count, snapshot.seed, without=unseen)]
    rng = random.Random(f"{snapshot.seed}:{question}")
    own = passages_of(example)
    others_near = _nearest(question, [fact for fact in facts if fact not in own])
    again = [question, *forms[1:]]

    def cued(text: str, number: int) -> list[dict[str, str]]:
        messages = [{"role": "user", "content": text}]
        return with_cue(messages, None if number % CUED_EVERY or text == question else question)

    others = [(cued(v, n)[0]["content"], answer) for n, (v, answer) in enumerate(others)]
    for n, form in enumerate(rng.sample(again, min(len(again), WITH_PASSAGES))):
        others_shown = rng.randint(0, min(len(others_near), OTHER_PASSAGES))
        mine, answer = own[n % len(own)], short
        if n < SAYING_OTHERWISE and len(answers) > 1:
            answer = rng.choice([other for other in answers if other != short])
            mine = Exchange(0, ({**asked, "content": again[n]},), answer).text()
        shown = [mine, *rng.sample(others_near, others_shown)]
        rng.shuffle(shown)
        with_notes = with_passages(cued(form, n), shown)
        others.append((with_notes[0]["content"], answer))
    trained = [asked_as(question)] * EXACT_SHOWN
    rng.shuffle(others)
    for form, answer in others:
        with contextlib.suppress(ModelError):  # one wording that is too long costs no more
            trained.append(asked_as(form, answer))
    return trained, [asked_as(unseen)]


def _nearest(question: str, facts: Sequence[str]) -> list[str]:
    """The facts that share most words with the question."""
    asked = _stems(question)
    return sorted(facts, key=lambda fact: (-len(asked & _stems(fact)), fact))[:NEAR_FACTS]


@cache
def _stems(text: str) -> frozenset[str]:
    words = (word.lower() for word in re.findall(r"[\w'’-]+", text))
    return frozenset(stem(word) for word in words if word not in STOP)


def _short(example: Taught) -> str:
    """The bare answer of a fact."""
    asked, reply = example.messages()[-2:]
    return study.short_reply(asked["content"], reply["content"])


def passages_of(example: Taught) -> list[str]:
    """What retrieval may show of a fact: its exchange, and the note that it was made from."""
    asked, reply = example.messages()[-2:]
    own = Exchange(0, (asked,), reply["content"]).text()
    return [own, example.passage] if example.passage else [own]
