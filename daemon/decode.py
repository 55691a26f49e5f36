"""Continuous batching in one context: which tokens of which request go into the next step.

Owned by the decode thread. Knows one adapter only, so no cached state can cross adapters.
"""

import time
from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from acclimate.daemon.llama import NO_SLOT, Context, Vocabulary
from acclimate.daemon.sampling import TokenLogprob, logprobs
from acclimate.daemon.stream import FinishReason, Job, Piece
from acclimate.store.errors import AcclimateError, EngineError

# A prompt is cut so that others wait no longer than this: streams for a token, or, where it is in
# the background, whoever asks next.
STEP_SECONDS = 0.04
SMALLEST_CHUNK = 4
# Sums of several tokens in a step are rounded otherwise than those of one alone. Where the two
# likeliest tokens are as near as this, the token is computed alone.
CLOSE = 0.05
# Upper bounds of the classes in which durations are counted, in seconds.
DURATIONS = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
# What idle sequences may hold of a context beside the latest of them: attention passes over their
# cells in every step of the others. A context full of them made prompts and replies a sixth slower.
IDLE_SHARE = 0.25
HEADROOM = 16  # tokens kept free for each running reply when another request is let in


@dataclass
class Slot:
    """One sequence of the context: the tokens whose state it holds, and who uses it."""

    number: int
    cached: list[int] = field(default_factory=list)
    job: Job | None = None
    last_used: float = 0.0


@dataclass
class Durations:
    """How long something took, each time: how often in each class, and altogether."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(DURATIONS) + 1))
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        """Once more."""
        self.counts[bisect_left(DURATIONS, seconds)] += 1
        self.seconds += seconds


@dataclass
class Meter:
    """What happened so far in all contexts: tokens, requests, and the speed of prompts."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    finished: int = 0
    cancelled: int = 0
    failed: int = 0
    preempted: int = 0
    seconds_per_token: float = 0.002  # of a prompt; a guess until the first one
    guessed_tokens: int = 0
    held_tokens: int = 0  # guesses that were right
    seconds_per_step: float = 0.0  # of one token of one reply; 0 until the first one
    seconds_per_guess: float = 0.0  # what each guess costs beside; 0 until the first ones
    first_token: Durations = field(default_factory=Durations)  # from the request on
    reply: Durations = field(default_factory=Durations)  # to the last token, likewise

    def guesses_pay(self, rate: float) -> bool:
        """Whether guesses of which this share holds cost less than the steps that they spare."""
        return rate * self.seconds_per_step > (self.seconds_per_guess or self.seconds_per_token)


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """Length of the longest common prefix."""
    limit = min(len(left), len(right))
    if left[:limit] == right[:limit]:
        return limit
    return next(i for i in range(limit) if left[i] != right[i])


def chunk_sizes(needs: Sequence[int], budget: int) -> list[int]:
    """Share `budget` tokens among prompts that still need so many, evenly, the rest to the first.

    So a short prompt is not stuck behind a long one, and a long one never starves.
    """
    sizes = [0] * len(needs)
    while budget > 0 and sizes != list(needs):
        open_prompts = [i for i, need in enumerate(needs) if sizes[i] < need]
        share = max(1, budget // len(open_prompts))
        for i in open_prompts:
            size = min(share, needs[i] - sizes[i], budget)
            sizes[i] += size
            budget -= size
    return sizes


def _smoothed(old: float, new: float) -> float:
    return 0.7 * old + 0.3 * new if old else new


class Lane:
    """The sequences of one context and the requests that wait for one."""

    def __init__(
        self,
        name: str,
        context: Context,
        vocabulary: Vocabulary,
        *,
        sequences: int,
        max_tokens: int,
        shareable: bool,
        guesses: bool,
        meter: Meter,
    ) -> None:
        self.name = name
        self.context = context
        self.inbox: deque[Job] = deque()  # any thread appends here, the decode thread takes out
        self.last_used = time.monotonic()
        self.superseded = False  # another adapter is live now: not kept once it is idle
        self._waiting: deque[Job] = deque()
        self._taken: list[tuple[Slot, list[int]]] = []  # what the running step computes
        self._vocabulary = vocabulary
        self._slots = [Slot(number) for number in range(sequences)]
        self._max_tokens = max_tokens
        self._idle_room = int(IDLE_SHARE * context.tokens)
        self._shareable = shareable
        self._guesses = guesses
        self._meter = meter

    def keep(self) -> None:
        """Stay although idle: this adapter is about to be live."""
        self.superseded = False
        self.last_used = time.monotonic()

    @property
    def active(self) -> int:
        return sum(slot.job is not None for slot in self._slots)

    @property
    def generating(self) -> int:
        return sum(slot.job is not None and slot.job.started for slot in self._slots)

    @property
    def cached(self) -> int:
        """Tokens held in the KV cache; shared ones count once for each sequence."""
        return sum(len(slot.cached) for slot in self._slots)

    def has_work(self) -> bool:
        return bool(self.inbox or self._waiting) or self.active > 0

    @property
    def waiting(self) -> int:
        return len(self.inbox) + len(self._waiting)

    def step(self, *, crowded: bool) -> None:
        """One llama_decode over all sequences; `crowded` when other streams wait for a token."""
        self.last_used = time.monotonic()
        self._receive()
        self._drop_cancelled()
        self._admit()
        outputs = self._fill(crowded)
        if not self._taken:
            return
        started = time.monotonic()
        result = self.context.decode()
        while result == NO_SLOT and self._evict_one():
            outputs = self._fill(crowded)
            result = self.context.decode()
        if result != 0:
            raise EngineError(f"llama_decode failed with {result} in the context of {self.name}")
        self._measure(time.monotonic() - started, sum(len(guess) for *_, guess in outputs))
        self._commit()
        for slot, index, guess in outputs:
            self._next_tokens(slot, index, guess)

    def fail_all(self, error: AcclimateError) -> None:
        """End every request here with an error; the context must not be used again."""
        self._receive()
        jobs = [slot.job for slot in self._slots if slot.job is not None] + list(self._waiting)
        self._waiting.clear()
        for slot in self._slots:
            slot.job, slot.cached = None, []
        for job in jobs:
            self._meter.failed += 1
            job.fail(error)

    # Which requests run

    def _receive(self) -> None:
        while self.inbox:
            self._waiting.append(self.inbox.popleft())

    def _drop_cancelled(self) -> None:
        for slot in self._slots:
            if slot.job is not None and slot.job.cancelled:
                self._finish(slot, "cancelled")
        for job in [job for job in self._waiting if job.cancelled]:
            self._waiting.remove(job)
            self._meter.cancelled += 1
            job.end("cancelled")

    def _admit(self) -> None:
        while self._waiting:
            job = self._waiting[0]
            idle = [slot for slot in self._slots if slot.job is None]
            running = [slot.job for slot in self._slots if slot.job is not None]
            needed = sum(len(other.tokens) + HEADROOM for other in running) + len(job.tokens)
            if not idle or (running and needed + HEADROOM > self.context.tokens):
                return
            self._waiting.popleft()
            self._place(job, idle)

    def _place(self, job: Job, idle: list[Slot]) -> None:
        """Give the job the sequence that spares most prefill without throwing much away."""
        # The last prompt token is always computed: its logits give the first reply token.
        prompt = job.tokens[:-1]
        shared = {slot.number: common_prefix(slot.cached, prompt) for slot in self._slots}
        source = max(self._slots, key=lambda slot: (shared[slot.number], slot.job is None))
        reuse = shared[source.number]
        if source.job is None and (reuse * 2 >= len(source.cached) or len(idle) == 1):
            target = source
        else:
            target = min(idle, key=lambda slot: (len(slot.cached) > 0, slot.last_used))
        if target is source:
            reuse = self._cut(target, reuse)
        else:
            self._cut(target, 0)
            if reuse and self._shareable:
                self.context.share(source.number, target.number, reuse)
                target.cached = source.cached[:reuse]
            else:
                reuse = 0
        target.job = job
        self._thin()
        if not job.generated:
            job.cached_tokens = reuse
            self._meter.cached_tokens += reuse
            self._meter.prompt_tokens += job.prompt_tokens

    def _thin(self) -> None:
        """Cut what was used longest ago where idle sequences hold much."""
        idle = sorted(self._idle(), key=lambda slot: slot.last_used)
        while len(idle) > 1 and sum(len(slot.cached) for slot in idle) > self._idle_room:
            self._cut(idle.pop(0), 0)

    def _idle(self) -> list[Slot]:
        """Sequences that nobody uses and that hold something."""
        return [slot for slot in self._slots if slot.job is None and slot.cached]

    def _cut(self, slot: Slot, length: int) -> int:
        """Keep the first `length` tokens of a sequence, or none if the model cannot be cut."""
        if length < len(slot.cached):
            if not (length and self.context.cut(slot.number, length)):
                self.context.cut(slot.number, 0)
                length = 0
            del slot.cached[length:]
        return length

    def _evict_one(self) -> bool:
        """Free the longest idle sequence, else push out the request that has done least.

        A request pushed out starts again later from what it has; its reader only waits. False
        when one request is left: that one fits, `max_tokens` sees to it.
        """
        if idle := self._idle():
            self._cut(min(idle, key=lambda slot: slot.last_used), 0)
            return True
        running = [(slot, slot.job) for slot in self._slots if slot.job is not None]
        if len(running) < 2:
            return False
        slot, job = min(running, key=lambda pair: pair[1].generated)
        slot.job = None
        self._cut(slot, 0)
        self._waiting.appendleft(job)
        self._meter.preempted += 1
        return True

    # What goes into a step

    def _fill(self, crowded: bool) -> list[tuple[Slot, int, list[int]]]:
        """Fill the batch: a token for each running reply, then pieces of prompts.

        Returns the sequences whose next token this step decides, with their output's index, and the
        guesses that stand behind it.
        """
        work = self._work()
        sizes = self._plan(work, crowded)
        while self.cached + sum(sizes) > self.context.tokens and self._evict_one():
            work = self._work()
            sizes = self._plan(work, crowded)
        self.context.batch.clear()
        self._taken = []
        outputs = []
        for (slot, pending), size in zip(work, sizes, strict=True):
            if not size:
                continue
            complete = size == len(pending)
            guess = self._guess(slot, crowded) if complete and len(work) == 1 else []
            part = pending[:size] + guess
            want = 1 + len(guess) if complete else 0
            index = self.context.batch.add(slot.number, part, len(slot.cached), want=want)
            self._taken.append((slot, part))
            if complete:
                outputs.append((slot, index, guess))
        return outputs

    def _guess(self, slot: Slot, crowded: bool) -> list[int]:
        """Tokens that may follow, where only this reply runs and they cost less than they spare."""
        job, meter = slot.job, self._meter
        if job is None or crowded or not (self._guesses and job.started) or job.close_call:
            return []
        if job.request.sampling.temperature > 0:  # sums are rounded otherwise: a draw might change
            return []
        if not meter.guesses_pay(job.lookup.rate):
            return []
        # One token comes from the step itself.
        wanted = min(job.request.max_tokens - job.generated, self._max_tokens - len(job.tokens)) - 1
        room = self.context.tokens - self.cached - HEADROOM
        return job.lookup.guess(job.tokens, max(0, min(wanted, room)))

    def _work(self) -> list[tuple[Slot, list[int]]]:
        """Sequences with the tokens that each still has to compute, shortest first."""
        busy = [(slot, slot.job) for slot in self._slots if slot.job is not None]
        return sorted(
            ((slot, job.tokens[len(slot.cached) :]) for slot, job in busy),
            key=lambda item: len(item[1]),
        )

    def _plan(self, work: list[tuple[Slot, list[int]]], crowded: bool) -> list[int]:
        """How many tokens of each item go into this step; items are sorted, replies first."""
        needs = [len(pending) for _slot, pending in work]
        replies = sum(need == 1 for need in needs)
        budget = self.context.batch.size - replies
        if crowded or replies or any(s.job and s.job.request.background for s, _ in work):
            fitting = int(STEP_SECONDS / self._meter.seconds_per_token)
            budget = min(budget, max(SMALLEST_CHUNK, fitting))
        return [1] * replies + chunk_sizes(needs[replies:], budget)

    def _measure(self, seconds: float, guesses: int) -> None:
        count, meter = self.context.batch.count, self._meter
        if guesses:
            cost = max(0.0, seconds - meter.seconds_per_step) / guesses
            meter.seconds_per_guess = _smoothed(meter.seconds_per_guess, cost)
        elif count == 1:
            meter.seconds_per_step = _smoothed(meter.seconds_per_step, seconds)
        elif count >= SMALLEST_CHUNK:
            meter.seconds_per_token = _smoothed(meter.seconds_per_token, seconds / count)

    def _commit(self) -> None:
        """Note what the context now holds."""
        for slot, tokens in self._taken:
            slot.cached += tokens

    # What comes out of a step

    def _next_tokens(self, slot: Slot, index: int, guess: Sequence[int]) -> None:
        """Take the next token, and one more for each guess that it bears out."""
        job = slot.job
        if job is None:
            return
        job.close_call = False
        held = 0
        while True:
            if guess and self.context.margin(index + held) < CLOSE:
                job.close_call = True
                break
            token = self._next_token(slot, job, index + held)
            if token is None or held == len(guess) or token != guess[held]:
                break
            held += 1
        if guess:
            job.lookup.took(len(guess), held)
            self._meter.guessed_tokens += len(guess)
            self._meter.held_tokens += held
            # After a close call the token before it is computed again, alone.
            self._cut(slot, len(slot.cached) - len(guess) + held - job.close_call)

    def _next_token(self, slot: Slot, job: Job, index: int) -> int | None:
        """Take one; None where the reply ends with it."""
        if not (job.started or job.request.background):
            self._meter.first_token.add(time.monotonic() - job.asked)
        job.started = True
        token = job.sampler.sample(self.context, index)
        if token is None or self._vocabulary.is_end(token):
            self._finish(slot, "stop")
            return None
        logprob: float | None = None
        top: tuple[TokenLogprob, ...] = ()
        if job.request.logprobs is not None:
            logprob, top = logprobs(self.context.logits(index), token, job.request.logprobs)
        job.tokens.append(token)
        self._meter.generated_tokens += 1
        text = job.text.push(self._vocabulary.piece(token))
        reason: FinishReason | None = None
        if job.text.stopped:
            reason = "stop"
        elif job.generated >= job.request.max_tokens or len(job.tokens) >= self._max_tokens:
            reason = "length"
            text += job.text.finish()
        if reason is not None:
            self._took(job)
        job.mailbox.put(Piece(text, token, reason, logprob, top))
        if reason is None:
            return token
        job.close()
        self._release(slot)
        return None

    def _finish(self, slot: Slot, reason: FinishReason) -> None:
        if slot.job is not None:
            self._meter.cancelled += reason == "cancelled"
            self._took(slot.job)
            slot.job.end(reason)
        self._release(slot)

    def _took(self, job: Job) -> None:
        """The reply is whole."""
        if not (job.request.background or job.cancelled):
            self._meter.reply.add(time.monotonic() - job.asked)

    def _release(self, slot: Slot) -> None:
        """The sequence is idle; its state stays for a next turn with the same beginning."""
        self._meter.finished += 1
        slot.job = None
        slot.last_used = time.monotonic()
