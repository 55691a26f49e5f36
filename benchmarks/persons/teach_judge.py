"""Teaches the judge whether words of a passage answer a question, given all three together.

    python benchmarks/persons/teach_judge.py [--minutes 40]

Needs the models of `make models`, the changed embedder among them. The reader (teach_reader.py)
points at words by vectors that know nothing of each other; of its few best answers the judge, a
LoRA on the same encoder that reads question, words and what stands around them at once, says which
is right, or that none is (Nogueira and Cho 2019, arXiv:1901.04085). What it learns from: the right
words among those that answer the nearest other questions of one made-up person. Writes
adapters/data/judge.gguf and judge.safetensors.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Sequence
from pathlib import Path

import gguf
import numpy as np
import torch
from minilm import WIDTH, encoder
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from teach_reader import END, GENERAL_FILES, ROOT, Laid, Person, asked_of, persons
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from acclimate.adapters.embedder import changed, gguf_name
from acclimate.adapters.shipped import shipped_file, shipped_lines
from acclimate.daemon.embed import Embedder
from acclimate.daemon.judge import AFTER, BEFORE, MOST_ASKED

QUESTIONS, ANSWERS = 16, 4  # of a step, and for each
NEAREST = 8  # other facts of which the wrong answers are
HIDDEN = 0.25  # of the questions have no right answer among theirs
NOTED = 0.8  # of the steps: whole notes, lines and chats; the others: lines and chats
WARM_UP = 30  # steps
REPORTED = 60.0  # seconds from one line to the next


class Judge(nn.Module):
    """How surely words answer a question."""

    def __init__(self, minilm: Path, rank: int) -> None:
        super().__init__()
        weights = changed(minilm / "model.safetensors", shipped_file("embedder.safetensors"))
        model = encoder({name: torch.tensor(array) for name, array in weights.items()})
        config = LoraConfig(
            r=rank, lora_alpha=rank, target_modules=["query", "key", "value", "dense"]
        )
        self.model = get_peft_model(model, config)
        self.head = nn.Linear(WIDTH, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Of each row of tokens: (rows,); above 0 where it answers."""
        size = max(map(len, rows))
        tokens = torch.zeros((len(rows), size), dtype=torch.long)
        mask = torch.zeros((len(rows), size))
        for n, row in enumerate(rows):
            tokens[n, : len(row)] = torch.tensor(row)
            mask[n, : len(row)] = 1
        states = self.model(input_ids=tokens, attention_mask=mask).last_hidden_state
        found: Tensor = self.head(states[:, 0])[:, 0]
        return found


def laid(asked: Sequence[int], passage: Laid, first: int, last: int) -> list[int]:
    """Question, words, and what stands around them, as serving lays them out."""
    begin, end = max(0, first - BEFORE), min(len(passage.words) - 1, last + AFTER)
    words = passage.tokens[passage.first[first] : passage.last[last] + 1]
    around = passage.tokens[passage.first[begin] : passage.last[end] + 1]
    return [*asked[: MOST_ASKED - 1], END, *words, END, *around, END]


def step_of(
    person: Person,
    vectors: dict[str, Tensor],
    tokens: dict[str, list[int]],
    others: Sequence[str],
) -> list[tuple[list[list[int]], int | None]]:
    """Some questions: the rows of each one's answers, and which of them is right."""
    passages = random.choice(person.noted) if random.random() < NOTED else person.short
    places: dict[int, list[tuple[int, tuple[int, int]]]] = {}
    for k, (_, found) in enumerate(passages):
        for n, spans in found.items():
            places.setdefault(n, []).extend((k, span) for span in spans)
    said = [*places]
    plain = torch.stack([vectors[person.facts[n]["plain"]] for n in said])

    def row(asked: str, n: int) -> list[int]:
        k, (first, last) = random.choice(places[n])
        return laid(tokens[asked][:-1], passages[k][0], first, last)

    out: list[tuple[list[list[int]], int | None]] = []
    for at, n in enumerate(random.sample(said, min(len(said), QUESTIONS))):
        fact = person.facts[n]
        forms = (
            fact["plain"],
            random.choice(fact["roundabout"]),
            *random.sample(fact["reworded"], 2),
        )
        asked, own = random.choice(forms), {n}
        if at == 0:  # one of somebody else's life or of the world
            asked, own = random.choice(others), set()
        near = (plain @ vectors[asked]).argsort(descending=True).tolist()
        wrong = [said[k] for k in near if said[k] not in own][:NEAREST]
        hide = at == 0 or random.random() < HIDDEN
        picked = random.sample(wrong, min(len(wrong), ANSWERS - (not hide)))
        rows = [row(asked, m) for m in picked]
        right = None
        if not hide:
            right = random.randint(0, len(rows))
            rows.insert(right, row(asked, n))
        out.append((rows, right))
    return out


def teach(
    model: Judge,
    people: Sequence[Person],
    vectors: dict[str, Tensor],
    tokens: dict[str, list[int]],
    rate: float,
    minutes: float,
) -> None:
    """Adam with a cosine over the time; prints loss and the share judged right as it goes."""
    general = [text for name in GENERAL_FILES for text in shipped_lines(name)]
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01)
    began, said, losses, order, step = time.monotonic(), 0.0, [], list[int](), 0
    while (spent := time.monotonic() - began) < 60 * minutes:
        step += 1
        part = spent / (60 * minutes)
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, step / WARM_UP) * (1 + math.cos(math.pi * part)) / 2
        order = order or random.sample(range(len(people)), len(people))
        stranger = random.choice(people)
        other = random.choice(asked_of(random.choice(stranger.facts)))
        person = people[order.pop()]
        if stranger is person or random.random() < 0.5:
            other = random.choice(general)
        asked = step_of(person, vectors, tokens, [other])
        scores = model([row for rows, _ in asked for row in rows])
        total, right, offset = torch.zeros(()), 0, 0
        for rows, wanted in asked:
            fits = torch.cat([scores[offset : offset + len(rows)], torch.zeros(1)])
            target = len(rows) if wanted is None else wanted
            total = total + functional.cross_entropy(fits, torch.tensor(target))
            right += int(fits.argmax()) == target
            offset += len(rows)
        optimizer.zero_grad()
        (total / len(asked)).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        losses.append((float(total.detach()) / len(asked), right / len(asked)))
        if spent - said > REPORTED:
            loss, share = np.mean(losses, axis=0)
            print(f"{spent:.0f} s, step {step}: loss {loss:.3f}, right {share:.0%}", flush=True)
            said, losses = spent, []


def write(model: Judge, adapter: Path, head: Path) -> None:
    """The LoRA for llama.cpp, and the head; in half precision."""
    writer = gguf.GGUFWriter(str(adapter), "bert")
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, 0.0)
    for name, tensor in model.model.state_dict().items():
        if ".lora_" not in name:
            continue
        inner, _, part = name.removeprefix("base_model.model.").partition(".lora_")
        writer.add_tensor(
            f"{gguf_name(inner + '.weight')}.lora_{part[0].lower()}", tensor.half().numpy()
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    save_file(
        {"weight": model.head.weight.detach()[0].half(), "bias": model.head.bias.detach().half()},
        head,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", type=Path, default=ROOT / ".cache" / "models")
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--rate", type=float, default=1e-3)
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
        tokens = {text: embedder.tokens(text) for text in texts}
        vectors = dict(zip(texts, torch.tensor(embedder.embed(texts)), strict=True))
    finally:
        embedder.close()
    model = Judge(args.models / "minilm", args.rank)
    teach(model, people, vectors, tokens, args.rate, args.minutes)
    write(model, args.out / "judge.gguf", args.out / "judge.safetensors")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
