"""Which layers to train: measured once for each base by gradients, and kept beside the anchors.

    python -m acclimate.adapters.layers MODEL.gguf

A step that teaches a fact in one wording should reach the same fact in another wording, and
neither other facts nor general text. How far it does, layer by layer, the gradients tell: their
cosines are transfer and interference to first order (Lopez-Paz & Ranzato 2017, arXiv:1706.08840;
Riemer et al. 2019, arXiv:1810.11910; "stiffness": Fort et al. 2019, arXiv:1901.09491). Knows a base
and its anchors, nothing of a person.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from acclimate.adapters import anchors as anchoring
from acclimate.adapters.base import Activations, Split, decoder, load_base
from acclimate.adapters.losses import completion_nll
from acclimate.adapters.prompt import Encoded, Prompt
from acclimate.adapters.shipped import shipped_lines
from acclimate.adapters.train import Anchor
from acclimate.adapters.training import Training
from acclimate.store.errors import ModelError
from acclimate.store.files import atomic_write, sha256_file

FORMAT = 1
FALLBACK = 1 / 3  # of the layers, from the top
GENERAL = 12  # of the long anchors, and as many of the short ones
ROW_TOKENS = 256  # in one packed row: the backward pass keeps what every layer did with them
SIDE = 64  # a weight's gradient is sketched as a matrix of SIDE × SIDE


@dataclass(frozen=True)
class Layer:
    """What gradients say of one layer's trained modules.

    `same`, `other`: mean cosine of a fact's gradient with that of the same fact in another wording,
    and of other facts; `general`: root mean square of its cosines with those of general text, so
    that its square is the general Fisher information along the fact's gradient. `fisher` is shown
    only: the facts' mean squared gradient over the general one, as in relative-norm criteria
    (Lee et al. 2022, arXiv:2210.11466).
    """

    same: float
    other: float
    general: float
    fisher: float

    @property
    def score(self) -> float:
        """How much of a step reaches just the fact that it teaches; at most 1."""
        return self.same - self.other - self.general


@dataclass(frozen=True)
class Choice:
    """The layers from `boundary` to the top are trained; `how` says who chose.

    `scores` has one number a layer, nothing where nothing was measured.
    """

    boundary: int
    how: str
    scores: list[float]


def choose(
    training: Training,
    base: nn.Module,
    prompt: Prompt,
    long: Sequence[Anchor],
    short: Sequence[Anchor],
    folder: Path,
    base_sha256: str,
    parent: Path | None = None,
) -> Choice:
    """Where the adapter begins: as set by hand, else as measured, else a third of the layers.

    Never above where its parent (a PEFT folder) begins. `long` and `short` are the base's anchors,
    `folder` is their cache. Where measuring fails nothing is raised: `how` says why.
    """
    layers = len(decoder(base).layers)
    if training.top_layers is not None:
        own = Choice(_top(layers, training.top_layers), "set by hand", [])
    else:
        general = [anchor.encoded for anchor in (*long[:GENERAL], *short[:GENERAL])]
        what = base, prompt, general, training.modules, folder, base_sha256
        own = _by_scores(layers, lambda: measured_once(*what))
    if parent is not None:
        config = json.loads((parent / "adapter_config.json").read_bytes())
        begins = min(config["layers_to_transform"])
        if begins < own.boundary:
            return replace(own, boundary=begins, how=f"as its parent, not from {own.boundary}")
    return own


def _by_scores(layers: int, measured: Callable[[], list[Layer]]) -> Choice:
    try:
        found = measured()
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError, ModelError) as error:
        return Choice(_top(layers, FALLBACK), f"a third, not measured: {error}", [])
    scores = [round(layer.score, 3) for layer in found]
    boundary = change([layer.score for layer in found])
    if boundary is None:
        return Choice(_top(layers, FALLBACK), "a third, no top block stands out", scores)
    return Choice(boundary, "measured", scores)


def change(scores: Sequence[float]) -> int | None:
    """The layer from which on the scores are higher: where they exceed their mean by most in sum.

    That is the usual estimate of one change point (CUSUM: Page 1954). None where no top block's
    scores are above the mean.
    """
    mean = fmean(scores)
    excess, best, found = 0.0, 1e-9, None
    for layer in range(len(scores) - 1, 0, -1):
        excess += scores[layer] - mean
        if excess > best:
            best, found = excess, layer
    return found


def measured_once(
    base: nn.Module,
    prompt: Prompt,
    general: Sequence[Encoded],
    modules: Sequence[str],
    folder: Path,
    base_sha256: str,
) -> list[Layer]:
    """As `measure`, from `folder` where it is there already."""
    facts = shipped_lines("person_facts")
    what = [FORMAT, base_sha256, facts, list(modules), [row.tokens for row in general]]
    key = hashlib.sha256(json.dumps(what).encode()).hexdigest()
    path = folder / f"layers-{key[:16]}.json"
    found = _load(path, key)
    if found is None:
        found = measure(base, prompt, general, modules)
        content = {"key": key, "layers": [asdict(layer) for layer in found]}
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, json.dumps(content).encode())
    return found


def measure(
    base: nn.Module, prompt: Prompt, general: Sequence[Encoded], modules: Sequence[str]
) -> list[Layer]:
    """One `Layer` for each of the base's, from the shipped facts and the base's general replies.

    Raises ValueError where the architecture has no such modules in each layer, or a gradient is
    not finite.
    """
    split = Split(base, 0)
    taught, again = shipped_facts(prompt)
    a, b = (gradients(split, rows, modules) for rows in (taught, again))  # (F, L, S)
    g = gradients(split, general, modules, drawn=True)  # (G, L, S)
    sizes = [x.square().sum(-1).mean(0) for x in (a, g)]
    fisher = (sizes[0] / sizes[1].clamp_min(torch.finfo(torch.float32).tiny)).tolist()
    a, b, g = (functional.normalize(x, dim=-1).movedim(1, 0) for x in (a, b, g))  # (L, …, S)
    pairs = a @ b.mT  # (L, F, F)
    same = pairs.diagonal(dim1=1, dim2=2).mean(1)
    facts = len(taught)
    other = (pairs.sum((1, 2)) - facts * same) / (facts * (facts - 1))
    aside = (a @ g.mT).square().mean((1, 2)).sqrt()
    rows = zip(same.tolist(), other.tolist(), aside.tolist(), fisher, strict=True)
    found = [Layer(*values) for values in rows]
    if not all(math.isfinite(value) for layer in found for value in asdict(layer).values()):
        raise ValueError("a gradient is not finite")
    return found


def shipped_facts(prompt: Prompt) -> tuple[list[Encoded], list[Encoded]]:
    """Facts about made-up persons: each in one wording, and in another with the same answer."""
    wordings: tuple[list[Encoded], list[Encoded]] = ([], [])
    for line in shipped_lines("person_facts"):
        *questions, answer = (part.strip() for part in line.split("|"))
        for rows, question in zip(wordings, questions, strict=True):
            turns = [
                {"role": "user", "content": question},
                {"role": "assistant", "content": answer},
            ]
            rows.append(prompt.encode(turns))
    return wordings


def gradients(
    split: Split, rows: Sequence[Encoded], modules: Sequence[str], *, drawn: bool = False
) -> Tensor:
    """What a LoRA on each layer's modules would be given by each sequence: (N, L, S).

    With B = 0 a LoRA's gradient is ∂loss/∂W · Aᵀ with a random A; here both sides of ∂loss/∂W are
    projected at random, which keeps cosines (Johnson & Lindenstrauss 1984; for gradients: Park et
    al. 2023, arXiv:2303.14186). What all sequences begin with is left out: it is the same in all.
    With `drawn`, targets are drawn from the model's own predictions, as Fisher information asks for
    (Kunstner et al. 2019, arXiv:1905.12558), instead of being those of the sequences.
    """
    known = Activations(split, rows)
    layers = decoder(split.model).layers
    generator = torch.Generator().manual_seed(0)
    out = torch.zeros(len(rows), len(layers), len(modules), SIDE, SIDE)
    for picked in _packs([len(hidden) for hidden in known.hidden], ROW_TOKENS):
        batch = known.batch(picked)
        batch.hidden.requires_grad_()
        lengths = [known.prefix, *(len(known.hidden[i]) for i in picked)]
        with _sketched(layers, modules, lengths, out[picked.start : picked.stop]):
            logits = batch.logits(split)
            target = batch.target
            if drawn:
                target = torch.multinomial(logits.detach().softmax(-1), 1, generator=generator)[
                    :, 0
                ]
            completion_nll(logits, target).sum().backward()
    return out.flatten(2)


def _packs(sizes: Sequence[int], most: int) -> Iterator[range]:
    """Indices in order, as many at a time as hold `most` together, one at least."""
    start = total = 0
    for n, size in enumerate(sizes):
        if n > start and total + size > most:
            yield range(start, n)
            start, total = n, 0
        total += size
    yield range(start, len(sizes))


@contextmanager
def _sketched(
    layers: nn.ModuleList, modules: Sequence[str], lengths: Sequence[int], out: Tensor
) -> Iterator[None]:
    """While it lasts, a backward pass writes the sketches of its packed sequences into `out`.

    `lengths`: of the prefix, then of each sequence; `out` (N, L, modules, SIDE, SIDE).
    """
    ends = list(torch.tensor(lengths).cumsum(0))

    def forward(place: tuple[int, int], _: Any, given: tuple[Tensor, ...], y: Tensor) -> None:
        x = given[0].detach()[0]  # (tokens, in)
        if y.shape[:2] != (1, sum(lengths)):
            raise ValueError("a layer's modules do not see every token")
        y.register_hook(partial(backward, place, x @ _random(x.shape[1]) / x.shape[1] ** 0.5))

    def backward(place: tuple[int, int], x: Tensor, gradient: Tensor) -> None:
        y = gradient[0] @ _random(gradient.shape[2])
        for n, (start, end) in enumerate(pairwise(ends)):
            out[n, place[0], place[1]] = y[start:end].T @ x[start:end]

    hooks = []
    try:
        for at, layer in enumerate(layers):
            named = {name.rpartition(".")[2]: part for name, part in layer.named_modules()}
            for k, name in enumerate(modules):
                if name not in named:
                    raise ValueError(f"layer {at} has no {name}")
                hooks.append(named[name].register_forward_hook(partial(forward, (at, k))))
        yield
    finally:
        for hook in hooks:
            hook.remove()


@cache
def _random(size: int) -> Tensor:
    """The fixed projection of `size` features: (size, SIDE)."""
    generator = torch.Generator().manual_seed(size)
    found: Tensor = torch.randn(size, SIDE, generator=generator) / SIDE**0.5
    return found


def _top(layers: int, share: float) -> int:
    return layers - max(1, round(layers * share))


def _load(path: Path, key: str) -> list[Layer] | None:
    try:
        content = json.loads(path.read_bytes())
        return [Layer(**row) for row in content["layers"]] if content["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def main(argv: Sequence[str]) -> int:
    """Prints a row a layer of the model `argv[0]`; keeps its anchors in a folder beside it."""
    path = Path(argv[0])
    folder, sha256 = path.parent / "anchors", sha256_file(path)
    base, prompt, training = load_base(path), Prompt.from_gguf(path), Training()
    long, short = (
        anchoring.made_once(base, prompt, shipped_lines(name), tokens, folder, sha256)
        for name, tokens in (
            ("anchor_prompts", anchoring.REPLY_TOKENS),
            ("short_prompts", anchoring.SHORT_REPLY_TOKENS),
        )
    )
    general = [anchor.encoded for anchor in (*long[:GENERAL], *short[:GENERAL])]
    began = time.monotonic()
    found = measure(base, prompt, general, training.modules)
    seconds = time.monotonic() - began
    print("| layer | same fact | other facts | general | score | Fisher |")
    print("|---|---|---|---|---|---|")
    for at, x in enumerate(found):
        values = (x.same, x.other, x.general, x.score, x.fisher)
        print(f"| {at} | " + " | ".join(f"{value:.2f}" for value in values) + " |")
    boundary = change([x.score for x in found])
    print(f"trained from layer {boundary}, measured in {seconds:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
