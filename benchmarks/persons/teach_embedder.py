"""Teaches the sentence embedder which questions about a person's own life mean the same.

    python benchmarks/persons/teach_embedder.py [--minilm FOLDER] [--minutes 30]

FOLDER has the original's model.safetensors and tokenizer.json (`make models` leaves them in
.cache/models/minilm). The upper layers are trained by contrast: a question in other words, or a
scene that asks for the same (questions-*.jsonl), has to find its fact among forty of one person, by
the vector that serving keeps of it and by a note that says it. What serving keeps are questions
that study's rules make of notes, too. What is general stays where it was.
What changed is written as a sum of few products for each matrix (SVD). The persons of the benchmark
and of the demo are not in it.
"""

from __future__ import annotations

import argparse
import copy
import random
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from minilm import by_person, encoder, halves, steps, through
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch.nn import functional

from acclimate.adapters.embedder import changed
from acclimate.adapters.questions import ENOUGH, Asked, questions
from acclimate.adapters.shipped import shipped_lines
from acclimate.adapters.study import short_reply
from acclimate.daemon.study import sentence
from acclimate.store.files import sha256_file

ROOT = Path(__file__).resolve().parent.parent.parent
Pair = tuple[str, str]  # a question and its reply
Fact = dict[str, Any]  # plain, reply, note, reworded, roundabout; made: (question, reply) by rules

LENGTH = 96  # tokens of a text
TEMPERATURE = 0.05
STAYS = 2.0  # what staying where it was counts
MADE = 0.5  # of the facts with questions that rules made: one of those is what was taught
NOTES = 0.5  # what finding the note counts beside finding the question
ASKED, REWORDED, ROUNDABOUT, GENERAL = 20, 2, 1, 32  # facts of a step, questions of each, others
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
        self.original = copy.deepcopy(self.upper).requires_grad_(False)
        self.below: dict[str, torch.Tensor] = {}
        self.were: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def _below(self, text: str) -> torch.Tensor:
        """What comes out of the lower layers, (tokens, 384)."""
        if text not in self.below:
            ids = torch.tensor([self.tokenizer.encode(text).ids])
            hidden = self.model.embeddings(input_ids=ids)
            self.below[text] = through(self.lower, hidden, torch.zeros(ids.shape))[0].half()
        return self.below[text]

    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        """Vectors of unit length, (texts, 384)."""
        return self._through(self.upper, texts)

    @torch.no_grad()
    def before(self, texts: Sequence[str]) -> torch.Tensor:
        """The same of the original."""
        new = [text for text in dict.fromkeys(texts) if text not in self.were]
        if new:
            self.were |= zip(new, self._through(self.original, new), strict=True)
        return torch.stack([self.were[text] for text in texts])

    def _through(self, upper: torch.nn.ModuleList, texts: Sequence[str]) -> torch.Tensor:
        """Those of like length are computed together."""
        order = sorted(range(len(texts)), key=lambda n: len(self._below(texts[n])))
        out: list[torch.Tensor] = [torch.empty(0)] * len(texts)
        for start in range(0, len(order), 64):
            part = order[start : start + 64]
            rows = [self._below(texts[n]) for n in part]
            hidden = torch.nn.utils.rnn.pad_sequence([r.float() for r in rows], batch_first=True)
            real = torch.zeros(hidden.shape[:2])
            for n, row in enumerate(rows):
                real[n, : len(row)] = 1
            hidden = through(upper, hidden, (1 - real) * -1e9)
            mean = (hidden.float() * real[:, :, None]).sum(1) / real.sum(1, keepdim=True)
            for n, vector in zip(part, functional.normalize(mean, dim=-1), strict=True):
                out[n] = vector
        return torch.stack(out)

    def keys(self, pairs: Sequence[Pair]) -> torch.Tensor:
        """As serving keeps them: question, and question with reply, together."""
        return _together(self([ask for ask, _ in pairs]), self([" ".join(p) for p in pairs]))


def _together(asked: torch.Tensor, told: torch.Tensor) -> torch.Tensor:
    return functional.normalize(asked + told, dim=-1)


def taught_under(fact: Fact) -> Pair:
    """A question with its reply, the plain one or one that rules made."""
    if fact["made"] and random.random() < MADE:
        return random.choice(fact["made"])
    return fact["plain"], fact["reply"]


def made_of(told: Sequence[tuple[str, str]]) -> list[Pair]:
    """What study's rules ask of texts that say the fact, each with the words that do."""
    found = {}
    for text, answer in told:
        for asked in _asked_of(text):
            if asked.weight >= ENOUGH and _alike(asked.answer, answer):
                found[asked.question] = sentence(asked.answer)
    return [*found.items()]


@cache
def _asked_of(text: str) -> list[Asked]:
    return questions(text)


def _alike(one: str, other: str) -> bool:
    """Whether all words of one answer are in the other."""
    words = [
        {*re.findall(r"\w+", text.casefold())} - {"the", "a", "an", "my"} for text in (one, other)
    ]
    return all(words) and (words[0] <= words[1] or words[1] <= words[0])


def people() -> list[list[Fact]]:
    """The facts of each made-up person."""
    facts, notes = map(by_person, ("questions", "notes"))
    for key, known in facts.items():
        for fact in known:
            told = [(fact["note"], short_reply(fact["plain"], fact["reply"]).rstrip("."))]
            for note in notes.get(key, []):
                said = [f["answer"] for f in note["facts"] if f["plain"] == fact["plain"]]
                told += [(note["note"], answer) for answer in said]
            fact["made"] = made_of(told)
    return [*facts.values()]


def train(
    tower: Tower,
    people: Sequence[list[Fact]],
    minutes: float,
    rate: float,
    start: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Adam, for that long. `start` are weights to go on from, where they are not the original's."""
    general = [text for name in GENERAL_FILES for text in shipped_lines(name)]
    if start is not None:
        tower.model.load_state_dict(start, strict=False)
    parameters = [*tower.upper.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01)
    for told in steps(optimizer, minutes):
        facts = random.choice(people)
        asked, own = [], []
        for n in random.sample(range(len(facts)), min(len(facts), ASKED)):
            forms = random.sample(facts[n]["reworded"], REWORDED)
            forms += random.sample(facts[n]["roundabout"], ROUNDABOUT)
            asked += forms
            own += [n] * len(forms)
        others = random.sample(general, GENERAL)
        pairs = [taught_under(fact) for fact in facts]
        queries, keys, away = tower(asked), tower.keys(pairs), tower(others)
        target = torch.tensor(own)
        notes = tower([fact["note"] for fact in facts])
        loss = functional.cross_entropy(queries @ keys.T / TEMPERATURE, target)
        loss = loss + NOTES * functional.cross_entropy(queries @ notes.T / TEMPERATURE, target)
        queries_before, away_before = tower.before(asked), tower.before(others)
        keys_before = _together(
            tower.before([ask for ask, _ in pairs]), tower.before([" ".join(p) for p in pairs])
        )
        moved = (
            (away @ queries.T - away_before @ queries_before.T).square().mean()
            + (away @ keys.T - away_before @ keys_before.T).square().mean()
            + (away - away_before).square().sum(1).mean()
        )
        optimizer.zero_grad()
        (loss + STAYS * moved).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        told |= {"loss": float(loss.detach()), "moved": float(moved.detach())}


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
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--start", type=Path, help="an earlier result to go on from")
    parser.add_argument("--rate", type=float, default=3e-4)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=ROOT / "adapters/data/embedder.safetensors")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    random.seed(args.seed)
    tower = Tower(args.minilm, args.bottom)
    before = {name: tensor.clone() for name, tensor in tower.model.state_dict().items()}
    start = None
    if args.start is not None:
        arrays = changed(args.minilm / "model.safetensors", args.start)
        start = {name: torch.tensor(array) for name, array in arrays.items()}
    train(tower, people(), args.minutes, args.rate, start)
    found = change(before, tower.model.state_dict(), args.rank)
    original = sha256_file(args.minilm / "model.safetensors")
    save_file(found, args.out, {"original_sha256": original})
    print(f"{args.out}: {args.out.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
