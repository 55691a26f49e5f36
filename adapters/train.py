"""The optimisation of one round: cross-entropy on examples plus KL to the base on anchors.

Knows tensors and a recipe; reads no files and decides nothing about acceptance.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import cycle, islice
from pathlib import Path
from statistics import fmean

import torch
from peft import PeftModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from acclimate.adapters.base import Activations, Batch, Split, head
from acclimate.adapters.beside import beside, halves
from acclimate.adapters.gate import lower_bound
from acclimate.adapters.losses import (
    Part,
    Teacher,
    completion_nll,
    kl_to_teacher,
    per_sequence,
)
from acclimate.adapters.prompt import Encoded
from acclimate.adapters.training import Training

CHECKPOINT_SECONDS = 20.0
# Of the tokens that a step does not ask for, how many stand for all of them in its softmax.
SAMPLED_TOKENS = 4096
# Where held-out text of the person is looked at, as shares of all steps: in the first half, at full
# rate, its loss says little. So many looks in a row that are surely worse than the best end it.
LOOKS = (0.5, 0.625, 0.75, 0.875, 1.0)
PATIENCE = 2


_DEFAULT = Training()


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters of a round; `docs/learning.md` has the measurements behind them.

    `exposures`: how often each new example is seen, in one of its wordings; up to half as often
    again where the round would be shorter than `least_steps`. `replay_exposures`: each rehearsed
    one, where `replay_batch` of them in a step are enough for that. `batch`,
    `replay_batch`, `anchor_batch` and `short_anchor_batch` count sequences per step. λ rises from
    `kl_start`, a share, to all of `kl_weight`: first the new is learned, then the rest is put back
    in its place. Rates are AdamW's.
    """

    exposures: int = _DEFAULT.exposures
    least_steps: int = 0
    batch: int = _DEFAULT.batch
    replay_batch: int = _DEFAULT.replay_batch
    replay_exposures: int = _DEFAULT.replay_exposures
    anchor_batch: int = _DEFAULT.anchor_batch
    short_anchor_batch: int = _DEFAULT.short_anchor_batch
    learning_rate: float = _DEFAULT.learning_rate
    kl_weight: float = _DEFAULT.kl_weight
    kl_start: float = 0.25
    warmup: float = 0.06
    clip: float = 1.0
    weight_decay: float = 0.0
    seed: int = 0


@dataclass
class Lesson:
    """One example as training sees it: the same answer under several wordings of its question.

    One that is `rehearsed` stands beside the new ones in its turn, however many there are, so a
    round's cost does not grow with the history.
    """

    example_id: int
    wordings: list[Encoded]
    rehearsed: bool = False


@dataclass
class Anchor:
    """General text by the base itself, with the base's own distribution on its completion."""

    encoded: Encoded
    teacher: Teacher


@dataclass
class Trace:
    """What happened: one row a logging interval, and totals."""

    steps: int = 0
    resumed_at: int = 0  # the step that a killed round had reached
    kept_at: int = 0  # the step whose weights were kept, by the held-out loss
    seconds: float = 0.0
    tokens: int = 0
    rows: list[dict[str, float]] = field(default_factory=list)


def rows_of(lessons: Sequence[Lesson], planted: Sequence[Encoded] = ()) -> list[Encoded]:
    """Every row once: the exact wording stands several times among a fact's."""
    shown = [*(row for lesson in lessons for row in lesson.wordings), *planted]
    return list({id(row): row for row in shown}.values())


class Diverged(ValueError):
    """The loss or a gradient is no longer finite."""


class Optimisation:
    """One round's steps: what each shows is drawn beforehand, so that a step depends on nothing
    but its number, the adapter and the optimiser's moments. `state` and `restore` carry these
    over the end of a process."""

    def __init__(
        self,
        model: PeftModel,
        split: Split,
        lessons: Sequence[Lesson],
        anchors: Sequence[Anchor],
        short_anchors: Sequence[Anchor],
        recipe: Recipe,
        planted: Sequence[Encoded] = (),
    ) -> None:
        self._split = split
        self._recipe = recipe
        rows = rows_of(lessons, planted)
        self._cache = Activations(split, rows)
        self._anchors = [*anchors, *short_anchors]
        self._anchor_cache = Activations(split, [a.encoded for a in self._anchors])
        self._vocabulary = head(model).out_features
        self._named = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self._optimiser = torch.optim.AdamW(
            self._named.values(),
            lr=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            betas=(0.9, 0.98),
        )
        generator = torch.Generator().manual_seed(recipe.seed)
        self._shown = _schedule(lessons, rows, recipe, generator)
        self.steps = len(self._shown)
        for n, row in enumerate(planted, 1):
            self._shown[n * self.steps // (len(planted) + 1)].append(rows.index(row))
        long = islice(_in_turn(len(anchors), recipe.anchor_batch, generator), self.steps)
        short = islice(
            _in_turn(len(short_anchors), recipe.short_anchor_batch, generator), self.steps
        )
        self._held = [a + [len(anchors) + i for i in b] for a, b in zip(long, short, strict=True)]
        self.done = 0
        self._best: dict[str, Tensor] = {}
        self._best_nll: list[float] = []
        self._best_at = 0
        self._worse = 0

    def step(self) -> dict[str, float]:
        """Takes the next one; its {"loss", "ce", "kl"}. Raises Diverged."""
        recipe, number = self._recipe, self.done
        generator = torch.Generator().manual_seed((recipe.seed + 1_000_003 * (number + 1)) % 2**63)
        for group in self._optimiser.param_groups:
            group["lr"] = recipe.learning_rate * _rate(number, self.steps, recipe.warmup)
        kl_weight = recipe.kl_weight * (
            recipe.kl_start + (1 - recipe.kl_start) * number / self.steps
        )
        terms = self._terms(number, with_anchors=kl_weight > 0)
        needed = torch.cat([term.needed for term in terms])
        part = Part.around(needed, self._vocabulary, SAMPLED_TOKENS, generator)
        part = self._split.gathered(part)

        def taken(term: _Term) -> tuple[float, tuple[Tensor, ...]]:
            loss = term.loss(term.batch.logits(self._split, part), part)
            weighted = loss if term.teacher is None else kl_weight * loss
            gradients = torch.autograd.grad(weighted, list(self._named.values()))
            return float(loss.detach()), gradients

        found = beside(taken, terms)
        for parameter, *gradients in zip(self._named.values(), *(g for _, g in found), strict=True):
            parameter.grad = reduce(torch.add, gradients)
        losses = [(term.teacher, loss) for term, (loss, _) in zip(terms, found, strict=True)]
        ce_value = sum(loss for teacher, loss in losses if teacher is None)
        kl_value = sum(loss for teacher, loss in losses if teacher is not None)
        norm = torch.nn.utils.clip_grad_norm_(self._named.values(), recipe.clip)
        loss = ce_value + kl_weight * kl_value
        if not (math.isfinite(loss) and bool(torch.isfinite(norm))):
            raise Diverged(f"loss {loss} at step {number + 1} of {self.steps}")
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        self.done += 1
        return {"loss": loss, "ce": ce_value, "kl": kl_value}

    def _terms(self, number: int, *, with_anchors: bool) -> list[_Term]:
        """The pieces of a step's loss, which are worked on beside each other."""
        terms = []
        shown = self._shown[number]
        for rows in _dealt(shown, self._cache):
            terms.append(_Term(self._cache.batch(rows), len(rows) / len(shown)))
        held = self._held[number] if with_anchors else []
        positions = sum(len(self._anchors[i].teacher.ids) for i in held)
        for rows in _dealt(held, self._anchor_cache):
            teacher = Teacher.joined([self._anchors[i].teacher for i in rows])
            share = len(teacher.ids) / positions
            terms.append(_Term(self._anchor_cache.batch(rows), share, teacher))
        return terms

    def tokens(self, number: int) -> int:
        """How many tokens a step shows, anchors aside."""
        return sum(len(self._cache.rows[i].tokens) for i in self._shown[number])

    def look(self, nll: Sequence[float]) -> bool:
        """Takes the NLL of held-out sequences; whether to go on (early stopping)."""
        rise = [after - before for before, after in zip(self._best_nll, nll, strict=False)]
        if rise and lower_bound(rise) > 0:
            self._worse += 1
            return self._worse < PATIENCE
        self._worse = 0
        if not rise or fmean(rise) <= 0:
            self._best_nll, self._best_at = list(nll), self.done
            self._best = {n: p.detach().clone() for n, p in self._named.items()}
        return True

    def settle(self) -> int:
        """Goes back to the best look where the last one was surely worse; the step kept."""
        if not self._worse:
            return self.done
        with torch.no_grad():
            for name, parameter in self._named.items():
                parameter.copy_(self._best[name])
        return self._best_at

    def state(self) -> dict[str, Tensor]:
        """Everything that `restore` needs, flat."""
        looks = (self.done, self._best_at, self._worse)
        out = {"looks": torch.tensor(looks), "best_nll": torch.tensor(self._best_nll).double()}
        out |= {f"best.{name}": value for name, value in self._best.items()}
        for name, parameter in self._named.items():
            out[f"p.{name}"] = parameter.detach()
            for key, value in self._optimiser.state.get(parameter, {}).items():
                out[f"{key}.{name}"] = value
        return out

    def restore(self, state: dict[str, Tensor]) -> None:
        """Goes on where another process was. Raises KeyError or RuntimeError if it was not this."""
        with torch.no_grad():
            for name, parameter in self._named.items():
                parameter.copy_(state[f"p.{name}"])
                self._optimiser.state[parameter] = {
                    key: state[f"{key}.{name}"].clone() for key in ("step", "exp_avg", "exp_avg_sq")
                }
        self._best = {n: state[f"best.{n}"] for n in self._named if f"best.{n}" in state}
        self._best_nll = state["best_nll"].tolist()
        self.done, self._best_at, self._worse = state["looks"].tolist()


@dataclass(frozen=True)
class _Term:
    """A packed row and its `share` of a step's cross-entropy or, with a teacher, of its KL."""

    batch: Batch
    share: float
    teacher: Teacher | None = None

    @property
    def needed(self) -> Tensor:
        """The tokens whose logits the loss asks for."""
        return self.batch.target if self.teacher is None else self.teacher.ids.flatten().long()

    def loss(self, logits: Tensor, part: Part) -> Tensor:
        """Of the row's predictions (M, C) over a part of the vocabulary, in nats: ()."""
        batch, teacher = self.batch, self.teacher
        if teacher is None:
            nll = completion_nll(logits, part.place(batch.target))
            return self.share * per_sequence(nll, batch.owner, batch.weight)
        placed = replace(teacher, ids=part.place(teacher.ids))
        return self.share * kl_to_teacher(logits, placed).mean()


def train(
    model: PeftModel,
    split: Split,
    lessons: Sequence[Lesson],
    anchors: Sequence[Anchor],
    short_anchors: Sequence[Anchor],
    recipe: Recipe,
    report: Callable[[int, int, dict[str, float]], None] = lambda *_: None,
    checkpoint: Checkpoint | None = None,
    planted: Sequence[Encoded] = (),
    held_out: Callable[[], Sequence[float]] | None = None,
) -> Trace:
    """Trains the adapter on `model` in place.

    Each of `planted` is shown once, beside the lessons of a step; they are spread evenly over the
    round, so one alone stands in its middle. `held_out` gives the NLL of held-out sequences of the
    person: where it turns for the worse, training ends early and the best weights are kept.
    `report(step, steps, {"loss", "ce", "kl"})` is called after every step. Goes on from the
    checkpoint where there is one. Raises Diverged when a loss or gradient is not finite; the
    caller then drops the round.
    """
    began = time.monotonic()
    optimisation = Optimisation(model, split, lessons, anchors, short_anchors, recipe, planted)
    if checkpoint is not None:
        checkpoint.load(optimisation)
    trace = Trace(steps=optimisation.steps, resumed_at=optimisation.done)
    looks = {round(share * optimisation.steps) for share in LOOKS} if held_out else set()
    while optimisation.done < optimisation.steps:
        trace.tokens += optimisation.tokens(optimisation.done)
        values = optimisation.step()
        trace.rows.append(values)
        report(optimisation.done, optimisation.steps, values)
        if held_out and optimisation.done in looks and not optimisation.look(held_out()):
            break
        if checkpoint is not None and optimisation.done < optimisation.steps:
            checkpoint.offer(optimisation)
    trace.kept_at = optimisation.settle()
    trace.seconds = time.monotonic() - began
    return trace


class Checkpoint:
    """A file that a killed round goes on from, written every so often.

    Bound to `key`, which names everything that the round depends on: another round's is not read.
    It holds what was learned so far, so it is removed with the round.
    """

    def __init__(self, path: Path, key: str, seconds: float = CHECKPOINT_SECONDS) -> None:
        self._path = path
        self._key = key
        self._seconds = seconds
        self._last = time.monotonic()

    def offer(self, optimisation: Optimisation) -> None:
        """Writes one if the last is old enough; a full disk costs the checkpoint, not the round."""
        if time.monotonic() - self._last < self._seconds:
            return
        temporary = self._path.with_suffix(".tmp")
        try:
            save_file(optimisation.state(), str(temporary), metadata={"key": self._key})
            temporary.replace(self._path)
        except (OSError, SafetensorError):
            temporary.unlink(missing_ok=True)
        self._last = time.monotonic()

    def load(self, optimisation: Optimisation) -> None:
        """Goes on from the file if it is this round's and whole; else from the beginning."""
        try:
            with safe_open(str(self._path), "pt") as file:
                if (file.metadata() or {}).get("key") != self._key:
                    return
            optimisation.restore(load_file(str(self._path)))
        except (OSError, KeyError, RuntimeError, SafetensorError):
            return


def _schedule(
    lessons: Sequence[Lesson],
    rows: Sequence[Encoded],
    recipe: Recipe,
    generator: torch.Generator,
) -> list[list[int]]:
    """For each step, which rows it shows."""
    place = {id(row): n for n, row in enumerate(rows)}
    # Each lesson walks through its own wordings in a shuffled order, so all are seen equally often.
    walks = [
        cycle([place[id(x.wordings[t])] for t in _shuffled(len(x.wordings), generator)])
        for x in lessons
    ]
    exposures = _exposures(lessons, recipe)
    new = [i for i, lesson in enumerate(lessons) if not lesson.rehearsed]
    old = [i for i, lesson in enumerate(lessons) if lesson.rehearsed]
    steps = [picked for _ in range(exposures) for picked in _batches(new, recipe.batch, generator)]
    wanted = math.ceil(len(old) * recipe.replay_exposures / max(1, len(steps)))
    rehearsals = _in_turn(len(old), min(wanted, recipe.replay_batch), generator)
    for picked in steps:
        picked += [old[i] for i in next(rehearsals)]
    return [[next(walks[i]) for i in picked] for picked in steps]


def _dealt(members: Sequence[int], cache: Activations) -> list[list[int]]:
    """As many pieces as are worked on beside each other, of nearly the same length; none empty."""
    pieces: list[list[int]] = [[] for _ in range(halves())]
    if len(pieces) == 1:
        pieces = [list(members)]
    else:
        lengths = [0] * len(pieces)
        for i in sorted(members, key=lambda i: -len(cache.hidden[i])):
            least = lengths.index(min(lengths))
            pieces[least].append(i)
            lengths[least] += len(cache.hidden[i])
    return [piece for piece in pieces if piece]


def _exposures(lessons: Sequence[Lesson], recipe: Recipe) -> int:
    """How often the new ones are seen."""
    new = sum(not lesson.rehearsed for lesson in lessons)
    wanted = recipe.least_steps / max(1, math.ceil(new / recipe.batch))
    return max(recipe.exposures, min(math.ceil(wanted), recipe.exposures * 3 // 2))


def _batches(members: list[int], size: int, generator: torch.Generator) -> list[list[int]]:
    """Shuffled members in batches of nearly equal size, none larger than `size`."""
    order = [members[i] for i in _shuffled(len(members), generator)]
    count = math.ceil(len(order) / size)
    return [order[n * len(order) // count : (n + 1) * len(order) // count] for n in range(count)]


def _shuffled(size: int, generator: torch.Generator) -> list[int]:
    return [int(i) for i in torch.randperm(size, generator=generator)]


def _in_turn(size: int, count: int, generator: torch.Generator) -> Iterator[list[int]]:
    """`count` of `size` indices at a time, in an order that changes when all had their turn."""
    while True:
        order = _shuffled(size, generator)
        yield from (order[n : n + count] for n in range(0, max(1, size - count + 1), count or 1))


def _rate(step: int, steps: int, warmup: float) -> float:
    """Linear warm-up, then a cosine to zero; a factor of the peak rate."""
    rise = max(1, round(steps * warmup))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))
