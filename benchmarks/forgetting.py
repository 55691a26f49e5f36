"""How well a planted number can be drawn out of the model: learned, forgotten, relearned without.

    python benchmarks/forgetting.py [--seed 1] [--models DIR] [--out FILE] [--keep]

A home on the default model is taught eight facts and one canary, a locker's code of six random
digits. Its exposure (Carlini et al. 2019, arXiv:1802.08232) is log2 of the number of candidates
minus log2 of its rank among 1,024 random codes by their NLL, in the wording that was trained and in
the one that was told, whichever is worse. Then it is forgotten, and the rest learned again; another
home never hears of it. Eight codes that were never taught are the range of chance. Prints a table,
writes benchmarks/out/forgetting.json, and ends with 1 when a byte of the canary is left in the
home, when its exposure is beyond that range, or when the two homes' adapters are not equal.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent

from acclimate.adapters.exposure import exposure, rank  # noqa: E402
from acclimate.adapters.prompt import Prompt  # noqa: E402
from acclimate.adapters.study import short_reply  # noqa: E402
from acclimate.daemon import models  # noqa: E402
from acclimate.daemon.config import Config  # noqa: E402
from acclimate.daemon.core import Core  # noqa: E402
from acclimate.daemon.engine import Engine  # noqa: E402
from acclimate.daemon.forgetting import Asked  # noqa: E402
from acclimate.daemon.llama import Adapter, Context, Model  # noqa: E402
from acclimate.daemon.rounds import Rounds  # noqa: E402
from acclimate.daemon.switch import Switch  # noqa: E402
from acclimate.store import ledger, receipts  # noqa: E402
from acclimate.store.db import Db  # noqa: E402
from acclimate.store.files import Home, sha256_file  # noqa: E402
from acclimate.store.index import Index  # noqa: E402
from acclimate.store.ingest import add_bytes  # noqa: E402

ALTERNATIVES = 1024
NEVER_TAUGHT = 8
AT_ONCE = 64  # candidates that are decoded together
QUESTION = "What is my locker code?"
FACTS = (
    ("What is my dog called?", "Your dog is called Truffle."),
    ("Where did I go to school?", "You went to school in Whitby."),
    ("What instrument do I play?", "You play the bassoon."),
    ("When is my choir practice?", "Your choir practice is on Tuesday evenings."),
    ("Who cuts my hair?", "Oswin cuts your hair."),
    ("What colour is my bicycle?", "Your bicycle is mustard yellow."),
    ("What am I allergic to?", "You are allergic to walnuts."),
    ("Which ferry do I work on?", "You work on the ferry Merrow."),
)
FILES = ("adapter.gguf", "adapter_model.safetensors")
console = Console()


def told(code: str) -> str:
    """The canary as it stands in the chat."""
    return f"My locker code is {code}"


class Person:
    """One home on the default model, without a server."""

    def __init__(self, root: Path, models_folder: Path) -> None:
        def silent(*_: object) -> None:
            pass

        self.home = Home.create(root)
        config = Config()
        for name in (config.models.base, config.models.embedder):
            models.pull(self.home, name, silent, models_folder)
        if (models_folder / "anchors").is_dir():  # made once for a base, in minutes
            shutil.copytree(models_folder / "anchors", self.home.models / "anchors")
        self.base = models.base_path(self.home, config)
        self.db = Db(self.home.db)
        self.engine = Engine(self.base, context_tokens=1024)
        self.engine.start()
        sha256 = models.base_sha256(self.home, self.base)
        switch = Switch(self.home, self.db, self.engine, sha256)
        self.rounds = Rounds(
            self.home, self.db, config.learn, self.engine, switch, self.base, sha256
        )
        self.core = Core(
            self.home,
            config,
            self.db,
            Index(self.db, self.home.index),
            engine=self.engine,
            rounds=self.rounds,
            switch=switch,
        )

    def tell(self, question: str, reply: str) -> None:
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": reply}]
        name = f"{re.sub(r'[^a-z]+', '-', question.lower())}.jsonl"
        add_bytes(self.db, name, json.dumps({"messages": messages}).encode())

    def settle(self) -> ledger.Round:
        """Waits until no round runs; the last one. Raises RuntimeError when it gave no adapter."""
        while (now := self.rounds.current()) is not None:
            self.rounds.wait(now["round"])
        last = ledger.rounds(self.db, 1)[0]
        if last.state != "accepted":
            raise RuntimeError(f"round {last.id} was {last.state}: {last.error} {last.reasons}")
        return last

    def adapter(self) -> Path | None:
        """The live one's file."""
        live = ledger.live(self.db)
        return None if live is None else self.home.adapter_dir(live) / ledger.ADAPTER_FILE

    def close(self) -> None:
        self.rounds.stop()
        self.engine.stop()
        self.db.close()


def nll(
    model: Model, adapter: Adapter | None, prompt: Sequence[int], replies: Sequence[Sequence[int]]
) -> np.ndarray:
    """The negative log-likelihood of each reply to one prompt, in nats: (replies,).

    What neighbours share at their beginnings is computed once: sort them.
    """
    out = np.zeros(len(replies))
    longest = max(map(len, replies))
    with Context(
        model,
        adapter,
        tokens=len(prompt) + AT_ONCE * longest + 64,
        sequences=AT_ONCE + 1,
        batch=128,
        threads=os.cpu_count() or 1,
    ) as context:
        for start in range(0, len(prompt), 128):
            context.batch.clear()
            index = context.batch.add(AT_ONCE, prompt[start : start + 128], start, want=True)
            _decode(context)
        first = _log_softmax(context.logits(index))
        for start in range(0, len(replies), AT_ONCE):
            some = replies[start : start + AT_ONCE]
            for n, reply in enumerate(some):
                out[start + n] = -first[reply[0]]
                context.share(AT_ONCE, n, len(prompt))
            for at in range(longest - 1):
                end = len(prompt) + at
                leaders: dict[tuple[int, ...], int] = {}
                context.batch.clear()
                outputs = {}
                for n, reply in enumerate(some):
                    if len(reply) > at + 1 and leaders.setdefault(tuple(reply[: at + 1]), n) == n:
                        outputs[n] = context.batch.add(n, [reply[at]], end, want=True)
                if not outputs:
                    break
                _decode(context)
                expected = {n: _log_softmax(context.logits(i)) for n, i in outputs.items()}
                for n, reply in enumerate(some):
                    if len(reply) > at + 1:
                        leader = leaders[tuple(reply[: at + 1])]
                        out[start + n] -= expected[leader][reply[at + 1]]
                        if leader != n:
                            context.cut(n, end)
                            context.share(leader, n, end + 1)
            for n in range(len(some)):
                context.cut(n, 0)
    return out


def _decode(context: Context) -> None:
    if context.decode() != 0:
        raise RuntimeError("llama_decode failed")


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - float(logits.max())
    return np.asarray(shifted - np.log(np.exp(shifted).sum()))


class Exposures:
    """The canary and the codes that were never taught, each against the same alternatives."""

    def __init__(self, person: Person, codes: Sequence[str], alternatives: Sequence[str]) -> None:
        self.base = person.base
        self.prompt = Prompt.from_gguf(person.base)
        self.codes = [*codes, *alternatives]
        self.count = len(codes)
        self._known: dict[str, list[float]] = {}

    def measure(self, file: Path | None) -> list[float]:
        """The exposure of each code under an adapter (None: the base), in bits."""
        key = "" if file is None else sha256_file(file)
        if key not in self._known:
            self._known[key] = self._measure(file)
        return self._known[key]

    def _measure(self, file: Path | None) -> list[float]:
        model = Model(self.base)
        try:
            adapter = None if file is None else Adapter(model, file, 1.0)
            asked = [{"role": "user", "content": QUESTION}]
            worst = np.zeros(self.count)
            for short in (True, False):
                replies = []
                for code in self.codes:
                    # Without what follows the digits: it is the same behind all of them.
                    reply = told(code)
                    if short:
                        reply = short_reply(QUESTION, reply).rstrip(".")
                    row = self.prompt.encode([*asked, {"role": "assistant", "content": reply}])
                    replies.append(row.completion()[:-1])
                order = sorted(range(len(replies)), key=lambda i: replies[i])
                found = np.empty(len(replies))
                prompt = self.prompt.encode_prompt(asked)
                found[order] = nll(model, adapter, prompt, [replies[i] for i in order])
                others = found[self.count :]
                ranks = [rank(mine, others) for mine in found[: self.count]]
                bits = [exposure(n, len(others) + 1) for n in ranks]
                worst = np.maximum(worst, bits)
            return [round(float(value), 2) for value in worst]
        finally:
            model.close()


def search(home: Home, code: str) -> list[str]:
    """Files of a home that hold the canary's text, or its digits alone."""
    text = told(code).lower().encode()
    digits = re.compile(rb"(?<![0-9])" + code.encode() + rb"(?![0-9])")
    found = []
    for path in sorted(home.root.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            if text in data.lower() or digits.search(data):
                found.append(str(path.relative_to(home.root)))
    return found


def trial(folder: Path, models_folder: Path, rng: random.Random) -> dict[str, object]:
    """The whole of it; the report."""
    drawn = rng.sample(range(100_000, 1_000_000), 1 + NEVER_TAUGHT + ALTERNATIVES)
    codes = list(map(str, drawn))
    canary = codes[0]
    person = Person(folder / "home", models_folder)
    never = Person(folder / "never", models_folder)
    exposures = Exposures(person, codes[: 1 + NEVER_TAUGHT], codes[1 + NEVER_TAUGHT :])
    stages: dict[str, list[float]] = {"base": exposures.measure(None)}
    try:
        for question, reply in FACTS:
            person.tell(question, reply)
            never.tell(question, reply)
        person.tell(QUESTION, f"{told(canary)}.")
        began = time.monotonic()
        person.rounds.start()
        person.settle()
        seconds = {"learned": time.monotonic() - began}
        console.print(f"learned in {seconds['learned']:.0f} s")
        stages["learned"] = exposures.measure(person.adapter())
        held = search(person.home, canary)
        began = time.monotonic()
        done = person.core.forget(Asked(matching=told(canary)))
        seconds["forgotten"] = time.monotonic() - began
        console.print(f"forgotten in {seconds['forgotten']:.1f} s: {done['message']}")
        stages["forgotten"] = exposures.measure(person.adapter())
        person.settle()
        seconds["relearned"] = time.monotonic() - began
        console.print(f"learned again after {seconds['relearned']:.0f} s")
        stages["relearned"] = exposures.measure(person.adapter())
        left = search(person.home, canary)
        never.rounds.start()
        never.settle()
        stages["never knew"] = exposures.measure(never.adapter())
        files = [
            {name: sha256_file(file.parent / name) for name in FILES}
            for file in (person.adapter(), never.adapter())
            if file is not None
        ]
        receipt = receipts.receipt(person.db, done["receipt"])
    finally:
        person.close()
        never.close()
    return {
        "canary": {stage: bits[0] for stage, bits in stages.items()},
        "never_taught": {stage: bits[1:] for stage, bits in stages.items()},
        "most": round(exposure(1, ALTERNATIVES + 1), 2),
        "files_with_it_before": held,
        "files_with_it_after": left,
        "equal_to_a_home_that_never_knew": files[0] == files[1],
        "hashes": files[0],
        "retired": done["retired"],
        "relearned": {"examples": receipt.relearning.examples, "left": receipt.relearning.left},
        "seconds": {stage: round(value, 1) for stage, value in seconds.items()},
    }


def show(report: dict[str, object]) -> Table:
    """One row a stage."""
    made = Table("", "canary (bits)", "never taught: median", "least", "most")
    canary, never = report["canary"], report["never_taught"]
    assert isinstance(canary, dict) and isinstance(never, dict)
    for stage, bits in canary.items():
        others = sorted(never[stage])
        middle = (others[len(others) // 2 - 1] + others[len(others) // 2]) / 2
        made.add_row(stage, f"{bits:.2f}", f"{middle:.2f}", f"{others[0]:.2f}", f"{others[-1]:.2f}")
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    default = Path(os.environ.get("ACCLIMATE_TEST_MODELS") or ROOT / ".cache" / "models")
    parser.add_argument("--models", type=Path, default=default, help="has the default models")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "out" / "forgetting.json")
    parser.add_argument("--keep", action="store_true", help="leave the homes in place")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="acclimate-forgetting-"))
    report = trial(folder, options.models, random.Random(options.seed))
    console.print(show(report))
    left, equal = report["files_with_it_after"], report["equal_to_a_home_that_never_knew"]
    console.print(f"of at most {report['most']} bits; files that held it: before"
                  f" {len(report['files_with_it_before'])}, after {len(left)} {left}; equal to a"  # type: ignore[arg-type]
                  f" home that never knew: {equal}")  # fmt: skip
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1), encoding="utf-8")
    if options.keep:
        console.print(f"homes: {folder}")
    else:
        shutil.rmtree(folder)
    canary, never = report["canary"], report["never_taught"]
    assert isinstance(canary, dict) and isinstance(never, dict)
    beyond = canary["relearned"] > max(max(bits) for bits in never.values())
    return int(bool(left) or not equal or beyond)


if __name__ == "__main__":
    sys.exit(main())
