"""How well a question's meaning can be read off the model at the place where it begins to answer.

    python benchmarks/readout.py [--persona development]

A fact that was taught under some wordings is answered under another one only as far as the model
represents both alike. For every layer: how often the nearest question (`streams/paraphrases.txt`)
is another wording of the same one; and of a persona's reworded questions, how many get the right
answer from the nearest taught wording, and from a linear classifier trained on all of them. The
sentence embedder stands beside it. Prints a table and writes JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from continual import streams  # noqa: E402
from continual.home import BASE, EMBEDDER, PersonHome  # noqa: E402

from acclimate.adapters import study  # noqa: E402
from acclimate.adapters.base import Activations, Split, load_base  # noqa: E402
from acclimate.adapters.mixture import is_fact  # noqa: E402
from acclimate.adapters.prompt import Encoded, Prompt  # noqa: E402
from acclimate.daemon.embed import Embedder  # noqa: E402

WORDINGS = 18


def taught(persona: streams.Stream, models: Path) -> tuple[list[str], list[str]]:
    """All wordings that rounds would teach of a persona's facts, and the answer of each."""
    asked, answers = [], []
    with tempfile.TemporaryDirectory() as root:
        person = PersonHome(Path(root), models)
        try:
            for folder in persona.rounds:
                person.feed(folder)
            waiting = person.waiting()
        finally:
            person.close()
    for example in waiting:
        if is_fact(example):
            question, reply = (m["content"] for m in example.messages()[-2:])
            forms = [question, *study.variants(question, WORDINGS, seed=1)]
            asked += forms
            answers += [study.short_reply(question, reply)] * len(forms)
    return asked, answers


def centred(vectors: Tensor, by: Tensor) -> Tensor:
    """Unit vectors (n, D) around the mean of `by`."""
    return functional.normalize(vectors - by.mean(0), dim=-1)


def same_family(vectors: Tensor, family: Sequence[int]) -> float:
    """Share of questions whose nearest other one is of the same family."""
    unit = centred(vectors, vectors)
    nearest = (unit @ unit.T).fill_diagonal_(-2.0).argmax(1)
    of = torch.tensor(family)
    return float((of[nearest] == of).float().mean())


def linear(vectors: Tensor, labels: Tensor, decay: float = 1e-2) -> Tensor:
    """Weights (D, answers) of a softmax classifier, by L-BFGS."""
    weights = torch.zeros(vectors.shape[1], int(labels.max()) + 1, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=150)

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = functional.cross_entropy(vectors @ weights, labels) + decay * weights.square().sum()
        value.backward()
        return value

    optimiser.step(loss)  # type: ignore[arg-type,no-untyped-call]
    return weights.detach()


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--persona", default="development", help="a folder of benchmarks/streams")
    parser.add_argument("--models", type=Path, default=ROOT / ".cache" / "models")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "out" / "readout.json")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    persona = streams.load(args.persona)
    lines = (streams.ROOT / "paraphrases.txt").read_text("utf-8").splitlines()
    families = [(n, text) for n, line in enumerate(lines) for text in line.split(" | ")]
    asked, answers = taught(persona, args.models)
    known = sorted(set(answers))
    labels = torch.tensor([known.index(a) for a in answers])
    last = len(persona.rounds)
    probes = [(text, f.answers_after(last)) for f in persona.facts for text in f.reworded]
    texts = [*asked, *(text for text, _ in probes), *(text for _, text in families)]

    def measured(vectors: Tensor) -> dict[str, float]:
        mine, theirs, others = vectors.split([len(asked), len(probes), len(families)])
        theirs, mine = centred(theirs, mine), centred(mine, mine)
        wide = mine.shape[1] ** 0.5
        picked = {
            "nearest": labels[(theirs @ mine.T).argmax(1)],
            "linear": (theirs * wide @ linear(mine * wide, labels)).argmax(1),
        }
        right = {
            name: sum(
                streams.right(known[i], accepted)
                for i, (_, accepted) in zip(found.tolist(), probes, strict=True)
            )
            / len(probes)
            for name, found in picked.items()
        }
        return {"families": same_family(others, [n for n, _ in families]), **right}

    rows: list[dict[str, Any]] = []

    def row(name: str, vectors: Tensor) -> None:
        measured_by = measured(vectors)
        rows.append({"representation": name, **measured_by})
        shares = (f"{key} {value:.0%}" for key, value in measured_by.items())
        print(f"{name:24} {'  '.join(shares)}", flush=True)

    embedder = Embedder(args.models / EMBEDDER, threads=torch.get_num_threads())
    row("sentence embedder", torch.tensor(embedder.embed(texts)))
    embedder.close()
    prompt, base = Prompt.from_gguf(args.models / BASE), load_base(args.models / BASE)
    prompts = [prompt.encode_prompt([{"role": "user", "content": text}]) for text in texts]
    encoded = [Encoded(tokens, [0.0] * len(tokens)) for tokens in prompts]
    layers = base.config.num_hidden_layers
    for layer in (layers // 3, layers // 2, layers * 2 // 3, layers * 5 // 6, layers - 1):
        hidden = Activations(Split(base, layer), encoded).hidden
        row(f"last token, layer {layer}", torch.stack([h[-1] for h in hidden]))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"persona": args.persona, "rows": rows}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
