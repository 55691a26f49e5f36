"""Teaches the sentence embedder which questions about a person's own life mean the same.

    python benchmarks/persons/teach_embedder.py [--minilm FOLDER]

FOLDER has the original's model.safetensors and tokenizer.json (`make models` leaves them in
.cache/models/minilm). The upper layers are trained by contrast: a question in other words, or a
scene that asks for the same (questions-*.jsonl), has to find its fact among forty of one person, by
the vector that serving keeps of it and by a note that says it. What is general stays where it was.
What changed is written as a sum of few products for each matrix (SVD). The persons of the benchmark
and of the demo are not in it. Half an hour on two cores.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from minilm import by_person, encoder, halves, through
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch.nn import functional

from acclimate.adapters.shipped import shipped_lines
from acclimate.store.files import sha256_file

ROOT = Path(__file__).resolve().parent.parent.parent
Fact = dict[str, Any]  # plain, reply, note, reworded, roundabout

LENGTH = 96  # tokens of a text
TEMPERATURE = 0.05
NOTES = 0.5  # what finding the note counts beside finding the question
ASKED, REWORDED, ROUNDABOUT, GENERAL = 20, 2, 1, 32  # facts of a step, questions of each, others
WARM_UP = 15  # steps
REPORTED = 40  # steps from one line to the next
GENERAL_FILES = ("everyday_prompts", "anchor_prompts", "short_prompts")


class Tower:
    """The encoder, its lower layers frozen and computed once for each text."""

    def __init__(self, folder: Path, bottom: int) -> None:
        self.model = encoder(load_file(folder / "model.safetensors"))
        self.lower = self.model.encoder.layer[:bottom]
        self.upper = self.model.encoder.layer[bottom:]
        self.upper.requires_grad_(True)
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(LENGTH)
        self.tokenizer.no_padding()
        self.below: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def prime(self, texts: Sequence[str]) -> None:
        """Computes the lower layers of these."""
        for text in dict.fromkeys(texts):
            if text not in self.below:
                ids = torch.tensor([self.tokenizer.encode(text).ids])
                hidden = self.model.embeddings(input_ids=ids)
                self.below[text] = through(self.lower, hidden, torch.zeros(ids.shape))[0].half()

    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        """Vectors of unit length, (texts, 384); those of like length are computed together."""
        order = sorted(range(len(texts)), key=lambda n: len(self.below[texts[n]]))
        out: list[torch.Tensor] = [torch.empty(0)] * len(texts)
        for start in range(0, len(order), 64):
            part = order[start : start + 64]
            rows = [self.below[texts[n]] for n in part]
            hidden = torch.nn.utils.rnn.pad_sequence([r.float() for r in rows], batch_first=True)
            real = torch.zeros(hidden.shape[:2])
            for n, row in enumerate(rows):
                real[n, : len(row)] = 1
            with torch.autocast("cpu", torch.bfloat16):
                hidden = through(self.upper, hidden, (1 - real) * -1e9)
            mean = (hidden.float() * real[:, :, None]).sum(1) / real.sum(1, keepdim=True)
            for n, vector in zip(part, functional.normalize(mean, dim=-1), strict=True):
                out[n] = vector
        return torch.stack(out)

    def keys(self, facts: Sequence[Fact]) -> torch.Tensor:
        """As serving keeps them: question, and question with reply, together."""
        asked = self([fact["plain"] for fact in facts])
        told = self([f"{fact['plain']} {fact['reply']}" for fact in facts])
        return functional.normalize(asked + told, dim=-1)


def texts_of(fact: Fact) -> Iterator[str]:
    yield from (fact["plain"], f"{fact['plain']} {fact['reply']}", fact["note"])
    yield from (*fact["reworded"], *fact["roundabout"])


def train(tower: Tower, people: Sequence[list[Fact]], epochs: float, rate: float) -> None:
    """Adam with a cosine; prints the loss as it goes."""
    general = [text for name in GENERAL_FILES for text in shipped_lines(name)]
    tower.prime([*general, *(t for facts in people for fact in facts for t in texts_of(fact))])
    with torch.no_grad():
        every = [*tower.below]
        before = dict(zip(every, torch.cat([tower(every[n : n + 512]) for n in
                                            range(0, len(every), 512)]), strict=True))  # fmt: skip
        keys_before = [tower.keys(facts) for facts in people]
    parameters = [*tower.upper.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01)
    steps, began, total = int(epochs * len(people) * 2), time.monotonic(), 0.0
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, step / WARM_UP) * (1 + math.cos(math.pi * step / steps)) / 2
        number = random.choice(range(len(people)))
        facts = people[number]
        asked, own = [], []
        for n in random.sample(range(len(facts)), min(len(facts), ASKED)):
            forms = random.sample(facts[n]["reworded"], REWORDED)
            forms += random.sample(facts[n]["roundabout"], ROUNDABOUT)
            asked += forms
            own += [n] * len(forms)
        others = random.sample(general, GENERAL)
        queries, keys, away = tower(asked), tower.keys(facts), tower(others)
        target = torch.tensor(own)
        notes = tower([fact["note"] for fact in facts])
        loss = functional.cross_entropy(queries @ keys.T / TEMPERATURE, target)
        loss = loss + NOTES * functional.cross_entropy(queries @ notes.T / TEMPERATURE, target)
        queries_before = torch.stack([before[text] for text in asked])
        away_before = torch.stack([before[text] for text in others])
        moved = (
            (away @ queries.T - away_before @ queries_before.T).square().mean()
            + (away @ keys.T - away_before @ keys_before[number].T).square().mean()
            + (away - away_before).square().sum(1).mean()
        )
        optimizer.zero_grad()
        (loss + moved).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        total += float(loss.detach())
        if step % REPORTED == 0 or step == steps:
            mean, total = total / REPORTED, 0.0
            seconds = time.monotonic() - began
            print(f"step {step} of {steps}: loss {mean:.3f}, {seconds:.0f} s", flush=True)


def change(
    before: dict[str, torch.Tensor], after: dict[str, torch.Tensor], rank: int
) -> dict[str, torch.Tensor]:
    """What to add to each tensor that moved: `NAME.up` (out, rank) · `NAME.down` (rank, in), or
    `NAME.add`; in half precision."""
    out: dict[str, torch.Tensor] = {}
    for name, now in after.items():
        moved = now - before[name]
        if not moved.any():
            continue
        if moved.ndim < 2:
            out[f"{name}.add"] = moved.half()
            continue
        out[f"{name}.up"], out[f"{name}.down"] = halves(moved, rank)
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minilm", type=Path, default=ROOT / ".cache" / "models" / "minilm")
    parser.add_argument("--bottom", type=int, default=2, help="layers that stay as they are")
    parser.add_argument("--epochs", type=float, default=5)
    parser.add_argument("--rate", type=float, default=3e-4)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=ROOT / "adapters/data/embedder.safetensors")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    random.seed(args.seed)
    files = sorted(Path(__file__).parent.glob("questions-*.jsonl"))
    tower = Tower(args.minilm, args.bottom)
    before = {name: tensor.clone() for name, tensor in tower.model.state_dict().items()}
    train(tower, [*by_person(files).values()], args.epochs, args.rate)
    found = change(before, tower.model.state_dict(), args.rank)
    original = sha256_file(args.minilm / "model.safetensors")
    save_file(found, args.out, {"original_sha256": original})
    print(f"{args.out}: {args.out.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
