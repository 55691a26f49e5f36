"""Teaches the reader which words of a person's notes answer a question.

    python benchmarks/persons/teach_reader.py [--minutes 25]

Needs the models of `make models`, the changed embedder among them. The upper layers of a copy of
the embedder give every word of a passage a vector; a question, by the vector that serving has of
it, points at the first and the last word of its answer among all passages of one made-up person
(phrase retrieval: Lee et al. 2021, arXiv:2012.12624), or at none: general questions and questions
about other persons' lives have no answer there. What changed of the layers is written as a LoRA
for llama.cpp, adapters/data/reader.gguf, the rest as adapters/data/reader.safetensors. The persons
of the benchmark and of the demo are not in it.
"""

from __future__ import annotations

import argparse
import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import gguf
import torch
from minilm import WIDTH, by_person, encoder, halves, steps, through
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from acclimate.adapters.embedder import changed, gguf_name
from acclimate.adapters.shipped import shipped_file, shipped_lines
from acclimate.adapters.study import short_reply
from acclimate.daemon.embed import Embedder
from acclimate.daemon.reader import WORD
from acclimate.store.chunk import chunk_text

ROOT = Path(__file__).resolve().parent.parent.parent
Fact = dict[str, Any]  # plain, reply, note, reworded, roundabout
Places = dict[int, list[tuple[int, int]]]  # passage or fact → first and last words of the answer

START, END = 101, 102
MOST_TOKENS = 256
BOTTOM = 3  # layers that stay as they are, computed once for each text
REWORDED, ROUNDABOUT = 2, 1  # questions of a fact in a step, beside the plain one
OTHERS, GENERAL = 6, 14  # questions of a step without an answer: about others, about the world
HIDDEN = 0.2  # of the facts of a step: the passages that say them are out of sight
NOTED = 0.8  # of the steps: whole notes, lines and chats; the others: lines and chats
LINES = 0.7  # of the facts that no note of a step says: terse lines; the others: chats
HEADS_RATE = 3  # times that of the layers
GENERAL_FILES = ("anchor_prompts", "short_prompts", "everyday_prompts", "request_prompts")


class Laid:
    """A passage as tokens, and where its words are among them."""

    def __init__(self, tokenizer: Tokenizer, text: str) -> None:
        self.text = text
        self.tokens, self.starts = [START], []
        self.first: list[int] = []
        self.last: list[int] = []
        self.words: list[str] = []
        for match in WORD.finditer(text):
            piece = tokenizer.encode(match[0], add_special_tokens=False).ids
            if len(self.tokens) + len(piece) >= MOST_TOKENS:
                break
            self.starts.append(match.start())
            self.words.append(match[0].casefold())
            self.first.append(len(self.tokens))
            self.tokens += piece
            self.last.append(len(self.tokens) - 1)
        self.tokens.append(END)

    def places(self, answer: str, behind: int = 0) -> list[tuple[int, int]]:
        """First and last word of each place that has these words, behind so many characters."""
        told = [match[0].casefold() for match in WORD.finditer(answer)]
        size = len(told)
        return [
            (n, n + size - 1)
            for n in range(len(self.words) - size + 1)
            if told and self.words[n : n + size] == told and self.starts[n] >= behind
        ]


@dataclass
class Person:
    """The facts of one, and collections of passages that say all of them: some with half of the
    notes each, one without."""

    facts: list[Fact]
    noted: list[list[tuple[Laid, Places]]]
    short: list[tuple[Laid, Places]]


class Reader(nn.Module):
    """Vectors of words, and what a question points at."""

    def __init__(self, minilm: Path) -> None:
        super().__init__()
        weights = changed(minilm / "model.safetensors", shipped_file("embedder.safetensors"))
        self.before = {name: torch.tensor(array) for name, array in weights.items()}
        self.model = encoder(self.before)
        self.lower = self.model.encoder.layer[:BOTTOM]
        self.upper = self.model.encoder.layer[BOTTOM:]
        for parameter in self.upper.parameters():
            parameter.requires_grad_(parameter.ndim == 2)  # a LoRA changes nothing else
        self.first, self.last = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(2))
        nn.init.eye_(self.first.weight)
        nn.init.eye_(self.last.weight)
        self.inner, self.outer = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)
        self.none = nn.Linear(WIDTH, 1)
        nn.init.zeros_(self.none.weight)
        nn.init.constant_(self.none.bias, 5.0)
        self.scale = nn.Parameter(torch.tensor(math.log(15.0)))
        self.below: dict[str, Tensor] = {}

    def heads(self) -> dict[str, nn.Parameter]:
        """What is not of the layers."""
        return {n: p for n, p in self.named_parameters() if not n.startswith("model.")}

    @torch.no_grad()
    def _lower(self, passage: Laid) -> Tensor:
        if passage.text not in self.below:
            hidden = self.model.embeddings(input_ids=torch.tensor([passage.tokens]))
            hidden = through(self.lower, hidden, torch.zeros(hidden.shape[:2]))
            self.below[passage.text] = hidden[0].half()
        return self.below[passage.text].float()

    def words(self, passages: Sequence[Laid]) -> tuple[Tensor, Tensor]:
        """Of all words of all passages: as first and as last word, (words, WIDTH) each."""
        states: list[Tensor] = [torch.empty(0)] * len(passages)
        order = sorted(range(len(passages)), key=lambda n: len(passages[n].tokens))
        for start in range(0, len(order), 8):
            part = order[start : start + 8]
            rows = [self._lower(passages[n]) for n in part]
            hidden = nn.utils.rnn.pad_sequence(rows, batch_first=True)
            mask = torch.zeros(hidden.shape[:2])
            for n, row in enumerate(rows):
                mask[n, len(row) :] = -1e9
            hidden = through(self.upper, hidden, mask)
            for n, state in zip(part, hidden, strict=True):
                states[n] = state
        both = list(zip(states, passages, strict=True))
        first = torch.cat([state[passage.first] for state, passage in both])
        last = torch.cat([state[passage.last] for state, passage in both])
        return functional.normalize(first, dim=-1), functional.normalize(last, dim=-1)

    def loss(
        self,
        asked: Tensor,
        own: Sequence[Places],
        hidden: Sequence[bool],
        passages: Sequence[Laid],
    ) -> Tensor:
        """Of questions, (questions, WIDTH), each with the words that answer it in each passage, or
        with the passages that are hidden from it."""
        words = self.words(passages)
        begins = [0, *accumulate(len(passage.words) for passage in passages)]
        inner = functional.gelu(self.inner(asked), approximate="tanh")
        pointing = asked + self.outer(inner)
        total = torch.zeros(())
        for side, head in enumerate((self.first, self.last)):
            fits = functional.normalize(head(pointing), dim=-1) @ words[side].T * self.scale.exp()
            fits = torch.cat([fits, self.none(asked)], 1)
            right, seen = torch.full_like(fits, -1e9), torch.zeros_like(fits)
            for row, places in enumerate(own):
                if hidden[row] or not places:
                    right[row, -1] = 0
                for n, found in places.items():
                    if hidden[row]:
                        seen[row, begins[n] : begins[n + 1]] = -1e9
                        continue
                    for place in found:
                        right[row, begins[n] + place[side]] = 0
            fits = fits + seen
            total = total + (fits.logsumexp(1) - (fits + right).logsumexp(1)).mean()
        return total


def persons(tokenizer: Tokenizer) -> list[Person]:
    """All made-up persons with their passages."""
    facts, notes, news = map(by_person, ("questions", "notes", "news"))
    return [
        _person(tokenizer, known, notes.get(key, []), news.get(key, []))
        for key, known in facts.items()
    ]


def _person(
    tokenizer: Tokenizer, facts: list[Fact], notes: list[dict[str, Any]], news: list[dict[str, Any]]
) -> Person:
    number = {fact["plain"]: n for n, fact in enumerate(facts)}
    notes = [*notes, *({"note": n["note"], "facts": [n | {"answer": n["now"]}]} for n in news)]
    random.shuffle(notes)
    half = len(notes) // 2
    noted = []
    for part in (notes[:half], notes[half:]):
        passages: list[tuple[Laid, Places]] = []
        for note in part:
            for chunk in chunk_text(note["note"]):
                laid = Laid(tokenizer, chunk.text)
                found = {number[f["plain"]]: laid.places(f["answer"]) for f in note["facts"]}
                passages.append((laid, {n: places for n, places in found.items() if places}))
        said = {n for _, places in passages for n in places}
        rest = [n for n in range(len(facts)) if n not in said]
        noted.append(passages + _tersely(tokenizer, facts, rest))
    return Person(facts, noted, _tersely(tokenizer, facts, [*range(len(facts))]))


def _tersely(
    tokenizer: Tokenizer, facts: Sequence[Fact], which: list[int]
) -> list[tuple[Laid, Places]]:
    """These facts in terse lines and in chats."""
    random.shuffle(which)
    cut = int(LINES * len(which))
    return _lines(tokenizer, facts, which[:cut]) + _chats(tokenizer, facts, which[cut:])


def _lines(
    tokenizer: Tokenizer, facts: Sequence[Fact], which: Sequence[int]
) -> list[tuple[Laid, Places]]:
    """The terse notes of these facts, up to six in a passage."""
    out, rest = [], [*which]
    while rest:
        size = random.randint(1, 6)
        part, rest = rest[:size], rest[size:]
        join = random.choice(["\n", "\n- ", "\n\n", " "])
        passage = Laid(
            tokenizer, ("- " if "-" in join else "") + join.join(facts[n]["note"] for n in part)
        )
        found = {}
        for n in part:
            answer = _short(facts[n])
            bare = re.sub(r"^(the|an?) ", "", answer, flags=re.I)
            found[n] = passage.places(answer) or passage.places(bare)
        out.append((passage, {n: places for n, places in found.items() if places}))
    return out


def _chats(
    tokenizer: Tokenizer, facts: Sequence[Fact], which: Sequence[int]
) -> list[tuple[Laid, Places]]:
    """These facts as exchanges, as retrieval shows them."""
    out = []
    for n in which:
        question, reply = facts[n]["plain"], facts[n]["reply"]
        passage = Laid(tokenizer, f"User: {question}\nAssistant: {reply}")
        places = passage.places(_short(facts[n]), len("User: ") + len(question))
        out.append((passage, {n: places} if places else {}))
    return out


def _short(fact: Fact) -> str:
    return short_reply(fact["plain"], fact["reply"]).rstrip(".")


def asked_of(fact: Fact) -> list[str]:
    """Every question about a fact."""
    return [fact["plain"], *fact["reworded"], *fact["roundabout"]]


def teach(model: Reader, people: Sequence[Person], vectors: dict[str, Tensor], rate: float,
          minutes: float) -> None:  # fmt: skip
    """Adam, for that long."""
    general = [text for name in GENERAL_FILES for text in shipped_lines(name)]
    layers = [p for p in model.model.parameters() if p.requires_grad]
    heads = [*model.heads().values()]
    optimizer = torch.optim.AdamW(
        [{"params": layers}, {"params": heads, "lr": HEADS_RATE * rate}], lr=rate, weight_decay=0.01
    )
    order: list[int] = []
    for told in steps(optimizer, minutes):
        order = order or random.sample(range(len(people)), len(people))
        person = people[order.pop()]
        passages = random.choice(person.noted) if random.random() < NOTED else person.short
        texts: list[str] = []
        own: list[Places] = []
        hidden: list[bool] = []
        for n in sorted({n for _, places in passages for n in places}):
            fact = person.facts[n]
            places = {k: found[n] for k, (_, found) in enumerate(passages) if n in found}
            forms = random.sample(fact["reworded"], REWORDED)
            forms += [*random.sample(fact["roundabout"], ROUNDABOUT), fact["plain"]]
            texts += forms
            own += [places] * len(forms)
            hidden += [random.random() < HIDDEN] * len(forms)
        others = [p for p in random.sample(people, OTHERS) if p is not person]
        texts += [random.choice(asked_of(random.choice(p.facts))) for p in others]
        texts += random.sample(general, GENERAL)
        own += [{} for _ in range(len(texts) - len(own))]
        hidden += [False] * (len(texts) - len(hidden))
        asked = torch.stack([vectors[text] for text in texts])
        loss = model.loss(asked, own, hidden, [laid for laid, _ in passages])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([*layers, *heads], 1.0)
        optimizer.step()
        told["loss"] = float(loss.detach())


def write(model: Reader, rank: int, adapter: Path, heads: Path) -> None:
    """What changed of each matrix as a product of two (SVD), and the heads; in half precision."""
    writer = gguf.GGUFWriter(str(adapter), "bert")
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, 0.0)
    for name, now in model.model.state_dict().items():
        moved = now - model.before[name] if name in model.before else torch.zeros(1)
        if moved.abs().max() < 1e-7:
            continue
        up, down = halves(moved, rank)
        writer.add_tensor(f"{gguf_name(name)}.lora_a", down.numpy())
        writer.add_tensor(f"{gguf_name(name)}.lora_b", up.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = {name: p.detach().half().contiguous() for name, p in model.heads().items()}
    found |= {"none.weight": found["none.weight"][0], "none.bias": found["none.bias"][0]}
    save_file(found | {"scale": model.scale.detach().exp().half()}, heads)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", type=Path, default=ROOT / ".cache" / "models")
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--rate", type=float, default=2e-4)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=ROOT / "adapters" / "data")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    random.seed(args.seed)
    tokenizer = Tokenizer.from_file(str(args.models / "minilm" / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    people = persons(tokenizer)
    texts = [text for name in GENERAL_FILES for text in shipped_lines(name)]
    texts += [text for person in people for fact in person.facts for text in asked_of(fact)]
    embedder = Embedder(args.models / "all-minilm-l6-v2.gguf", threads=args.threads)
    try:
        vectors = dict(zip(texts, torch.tensor(embedder.embed(texts)), strict=True))
    finally:
        embedder.close()
    model = Reader(args.models / "minilm")
    teach(model, people, vectors, args.rate, args.minutes)
    write(model, args.rank, args.out / "reader.gguf", args.out / "reader.safetensors")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
