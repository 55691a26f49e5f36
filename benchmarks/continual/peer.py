"""The speed peer: how long peft and transformers' Trainer take to learn what our round learned.

    python benchmarks/continual/peer.py [--persona report] [--round 1] [--target 0.8 | --ours FILE]

The plain recipe of their documentation: LoRA on all linear layers, AdamW with a linear schedule,
padded batches of 8, labels masked to the completions. Stops at the epoch whose recall on exact and
reworded questions reaches the target; the time of asking is not counted.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import transformers  # noqa: E402
from peft import LoraConfig, get_peft_model  # noqa: E402

from acclimate.adapters.base import load_base  # noqa: E402
from acclimate.adapters.evaluate import share  # noqa: E402
from acclimate.adapters.prompt import Encoded, Prompt  # noqa: E402
from acclimate.adapters.train import rows_of  # noqa: E402
from acclimate.daemon.config import LearnConfig  # noqa: E402
from continual import streams  # noqa: E402
from continual.home import BASE  # noqa: E402
from continual.material import rounds  # noqa: E402
from continual.probe import REPLY_TOKENS, Probe  # noqa: E402

IGNORED = -100  # the label of tokens that are not learned, in transformers


@dataclass(frozen=True)
class Reached:
    """What the peer came to: `seconds` without asking, and the recall after every epoch."""

    reached: bool
    seconds: float
    epochs: int
    steps: int
    recall: list[float]


def train(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Encoded],
    recall: Callable[[torch.nn.Module], float],
    *,
    target: float,
    epochs: int,
    learning_rate: float = 1e-3,
    rank: int = 8,
    seed: int = 0,
) -> Reached:
    """Trains on the rows until `recall` of the model reaches `target`, or for so many epochs."""
    # transformers takes a model from a GGUF for a packed one, although its weights are float32 now.
    model.is_quantized = False
    adapted = get_peft_model(
        model,
        LoraConfig(
            r=rank,
            lora_alpha=32,
            lora_dropout=0.1,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        ),
    )
    clock = _Clock(adapted, recall, target)
    with tempfile.TemporaryDirectory() as folder:
        trainer = transformers.Trainer(
            model=adapted,
            args=transformers.TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=8,
                num_train_epochs=epochs,
                learning_rate=learning_rate,
                weight_decay=0.01,
                bf16=False,
                use_cpu=True,
                dataloader_pin_memory=False,
                save_strategy="no",
                logging_strategy="no",
                report_to="none",
                disable_tqdm=True,
                seed=seed,
            ),
            train_dataset=[_features(row) for row in rows],
            data_collator=transformers.DataCollatorForSeq2Seq(
                tokenizer, label_pad_token_id=IGNORED
            ),
            callbacks=[clock],
        )
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
    steps = int(trainer.state.global_step)
    return Reached(clock.reached, clock.seconds, len(clock.recall), steps, clock.recall)


class _Clock(transformers.TrainerCallback):  # type: ignore[misc]
    """Asks after every epoch and stops the clock meanwhile."""

    def __init__(
        self, model: Any, recall: Callable[[torch.nn.Module], float], target: float
    ) -> None:
        self.model = model
        self.ask = recall
        self.target = target
        self.recall: list[float] = []
        self.seconds = 0.0
        self.reached = False
        self._since = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._since = time.monotonic()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        del args
        self.seconds += time.monotonic() - self._since
        self.model.eval()
        with torch.no_grad():
            self.recall.append(self.ask(self.model))
        self.model.train()
        self.reached = self.recall[-1] >= self.target
        control.should_training_stop = self.reached
        print(
            f"epoch {len(self.recall)} step {state.global_step} {self.seconds:.0f} s"
            f" recall {self.recall[-1]:.2f}",
            flush=True,
        )
        self._since = time.monotonic()


def _features(row: Encoded) -> dict[str, list[int]]:
    labels = [t if taught else IGNORED for t, taught in zip(row.tokens, row.mask, strict=True)]
    return {
        "input_ids": row.tokens,
        "attention_mask": [1] * len(row.tokens),
        "labels": labels,
    }


def asked(stream: streams.Stream, number: int) -> list[tuple[str, tuple[str, ...]]]:
    """The exact and reworded questions about the facts of one round, with what is right."""
    facts = [f for f in stream.facts if f.round == number]
    return [(q, f.answers_after(number)) for f in facts for q in (f.exact, *f.reworded)]


def our_recall(path: Path, persona_facts: set[str], number: int, row: str = "ours") -> float:
    """What ours reached on the same questions, from what learning.py wrote."""
    done = next(r for r in json.loads(path.read_text("utf-8"))[row] if r["round"] == number)
    flags = [
        reply["ok"]
        for reply in done["replies"]
        if reply["kind"] in ("exact", "reworded") and reply["fact"] in persona_facts
    ]
    return share(flags)


def main() -> int:
    """Trains the peer on one round and prints its time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--persona", default="development")
    parser.add_argument("--round", type=int, default=1)
    parser.add_argument("--target", type=float, help="recall to reach; else that of --ours")
    parser.add_argument("--ours", type=Path, default=ROOT / "benchmarks" / "out" / "learning.json")
    parser.add_argument("--epochs", type=int, default=20, help="the cap")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--models", type=Path, default=ROOT / ".cache" / "models")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "out" / "peer.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    stream = streams.load(args.persona)
    target = args.target
    if target is None:
        ids = {f.id for f in stream.facts if f.round == args.round}
        target = our_recall(args.ours, ids, args.round)
    path = args.models / BASE
    prompt = Prompt.from_gguf(path)
    probe = Probe(prompt, stream)
    questions = asked(stream, args.round)

    def recall(model: torch.nn.Module) -> float:
        said = probe.say(model, [q for q, _ in questions], REPLY_TOKENS, None)
        right = [streams.right(s, a) for s, (_, a) in zip(said, questions, strict=True)]
        return share(right)

    part = rounds(stream.rounds[: args.round], prompt, LearnConfig())[-1]
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
    done = train(
        load_base(path),
        tokenizer,
        rows_of(part.new.lessons),
        recall,
        target=target,
        epochs=args.epochs,
        learning_rate=args.learning_rate,
    )
    print(
        f"{'reached' if done.reached else 'did not reach'} {target:.2f}"
        f" in {done.seconds:.0f} s, {done.epochs} epochs, {done.steps} steps"
    )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"target": target, **vars_of(args), **asdict(done)}))
    return 0


def vars_of(args: argparse.Namespace) -> dict[str, Any]:
    """The run's arguments that are not paths."""
    return {k: v for k, v in vars(args).items() if not isinstance(v, Path) and k != "target"}


if __name__ == "__main__":
    sys.exit(main())
