"""One round in a process of its own: reads a snapshot, trains, measures, writes a candidate.

    python -m acclimate.adapters.worker ROUND_DIR

Progress goes to stdout as JSON lines. Knows no database; may be killed at any moment.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer

from acclimate.adapters import anchors as anchoring
from acclimate.adapters import evaluate, export, lora, pace, voice
from acclimate.adapters.base import Activations, LoraShape, Split, add_lora, load_base
from acclimate.adapters.exposure import made_up
from acclimate.adapters.gate import Limits, Measures, Verdict, gate, upper_bound
from acclimate.adapters.layers import Choice, choose
from acclimate.adapters.material import Material, beside, prepare
from acclimate.adapters.passages import with_cue
from acclimate.adapters.prompt import Prompt
from acclimate.adapters.shipped import shipped_lines
from acclimate.adapters.snapshot import (
    CANDIDATE_DIR,
    RESULT_FILE,
    SNAPSHOT_FILE,
    Canary,
    Result,
    Snapshot,
)
from acclimate.adapters.train import (
    Anchor,
    Checkpoint,
    Diverged,
    Recipe,
    Trace,
    train,
)
from acclimate.store.errors import AcclimateError, ModelError
from acclimate.store.files import atomic_write, fsync_file, sha256_file

SCALES = tuple(n / 50 for n in range(25, 51))
# Checks that a smaller adapter may pass; the others only get worse with it.
SCALABLE = (
    "general, against parent",
    "general, against base",
    "stops",
    "repeats",
    "refusals",
    "memorised",
)
BEHAVIOUR_PROMPTS = 24
CANARY_TOP_K = 64
PLANTED_SHOWN = 4  # how often the planted code stands in a passage
NICENESS = 19  # the lowest priority there is
# A round that starts from an adapter must not undo it: half the rate, and the base held more
# strongly from the first step on.
LATER_RATE, LATER_KL_START = 0.5, 0.5

Report = Callable[[dict[str, Any]], None]


class Worker:
    """The steps of one round on one loaded model."""

    def __init__(self, folder: Path, snapshot: Snapshot, report: Report) -> None:
        self.folder = folder
        self.snapshot = snapshot
        self.report = report
        self.began = time.monotonic()
        self.seconds: dict[str, float] = {}

    def phase(self, name: str) -> None:
        """Announces the next step."""
        self.seconds[name] = time.monotonic() - self.began
        self.report({"event": "phase", "phase": name})

    def run(self) -> Result:
        """The whole round. Raises AcclimateError; a rejection is a Result."""
        snapshot = self.snapshot
        self.phase("load")
        if sha256_file(snapshot.base) != snapshot.base_sha256:
            raise ModelError(f"{snapshot.base.name} is not the model it was", "acclimate doctor")
        self.snapshot = snapshot = pace.settled(snapshot, os.cpu_count() or 1)
        self.prompt = Prompt.from_gguf(snapshot.base)
        base = load_base(snapshot.base, snapshot.precision)
        self.phase("anchors")
        long = self._anchors(base, "anchor_prompts", anchoring.REPLY_TOKENS)
        short = self._anchors(base, "short_prompts", anchoring.SHORT_REPLY_TOKENS)
        general = self._anchors(base, "general_held_out", anchoring.REPLY_TOKENS)
        self.phase("layers")
        chosen = choose(
            snapshot.training,
            base,
            self.prompt,
            long,
            short,
            snapshot.anchor_cache,
            snapshot.base_sha256,
            snapshot.parent,
        )
        self.phase("prepare")
        material = prepare(snapshot, self.prompt)
        if not material.taught:
            return self._refused("there is nothing to teach in this round", material)
        shape = LoraShape(
            snapshot.training.rank,
            snapshot.training.alpha,
            tuple(range(chosen.boundary, base.config.num_hidden_layers)),
            snapshot.training.modules,
        ).over(snapshot.parent)
        model = add_lora(base, shape, snapshot.parent)
        split = Split(model, chosen.boundary)
        split.check([lesson.wordings[0].tokens for lesson in material.lessons[:3]])
        long, general = self._give_voice(material, model, split, long, general)
        self.model, self.split, self.general = model, split, general
        self._measure_before(material)
        self.phase("train")
        try:
            trace = self._train(material, long, short)
        except Diverged as error:
            return self._refused(f"finite: {error}", material)
        self.phase("measure")
        verdict, measures = self._measure()
        card = self._card(material, trace, verdict, shape, chosen)
        if not verdict.accepted:
            return Result(
                accepted=False, reasons=verdict.reasons, measures=measures.summary(), card=card
            )
        self.phase("export")
        _scale(model, verdict.scale, bake=True)
        canaries = self._canaries()
        return Result(
            accepted=True,
            reasons=verdict.reasons,
            measures=measures.summary(),
            card=card,
            canaries=canaries,
            surprise=self._surprise(material, measures),
            files=self._export(base.config),
        )

    def _anchors(self, base: torch.nn.Module, name: str, tokens: int) -> list[Anchor]:
        def progress(done: int, total: int) -> None:
            self.report({"event": "progress", "phase": "anchors", "done": done, "total": total})

        prompts = shipped_lines(name)
        cache, sha256 = self.snapshot.anchor_cache, self.snapshot.base_sha256
        return anchoring.made_once(base, self.prompt, prompts, tokens, cache, sha256, progress)

    def _give_voice(
        self,
        material: Material,
        model: PeftModel,
        split: Split,
        long: Sequence[Anchor],
        general: Sequence[Anchor],
    ) -> tuple[list[Anchor], list[Anchor]]:
        """Shows the person's form around the base's own words, for like requests too; the anchors
        and the general text without what asks for the same."""

        def say(rows: list[list[int]]) -> list[list[int]]:
            replies = anchoring.generate(
                model, rows, max_tokens=voice.TOKENS, end_ids=self.prompt.end_ids
            )
            return [reply.tokens for reply in replies]

        shipped = [[{"role": "user", "content": text}] for text in shipped_lines("request_prompts")]
        requests = [self.prompt.encode_prompt(request) for request in shipped]
        others = [anchor.encoded.prompt() for anchor in (*long, *general)]
        styled = [lesson.wordings[0] for lesson in material.styled]
        near = anchoring.likeness(split, styled, [*requests, *others])
        text, seed = self.prompt.detokenize, self.snapshot.seed
        rng = random.Random(seed)
        own: list[str | None] = [*material.requests] or [None]
        alike = [
            self.prompt.encode_prompt(with_cue(request, rng.choice(own), request=True))
            for request, value in zip(shipped, near, strict=False)
            if value >= 0
        ]
        gap = self.prompt.tokenize("\n\n", special=False)
        with model.disable_adapter():
            rows = voice.voiced(material.styled, material.form, say, text, seed, alike, gap)
        for lesson, row in rows:
            lesson.wordings.append(row)
        end = len(requests) + len(long)
        return (
            anchoring.undisputed(long, near[len(requests) : end]),
            anchoring.undisputed(general, near[end:]),
        )

    def _measure_before(self, material: Material) -> None:
        """What the parent and the base say, to compare the candidate with."""
        self.taught = Activations(self.split, material.taught)
        self.rehearsed = Activations(self.split, material.rehearsed) if material.rehearsed else None
        self.probes = Activations(self.split, material.probes) if material.probes else None
        self.unseen = Activations(self.split, material.unseen) if material.unseen else None
        again = material.probes_rehearsed
        self.probes_rehearsed = Activations(self.split, again) if again else None
        self.general_rows = Activations(self.split, [a.encoded for a in self.general])
        self.canary_prompts = self._canary_prompts(material)
        self.before = self._nll()
        self.parent_next = self.base_next = evaluate.next_logp(self.split, self.canary_prompts)
        self.base_general = self.before["general"]
        if self.snapshot.parent is not None:
            with self.model.disable_adapter():
                self.base_general = evaluate.sequence_nll(self.split, self.general_rows)
                self.base_next = evaluate.next_logp(self.split, self.canary_prompts)
        brought = self.snapshot.brought
        if brought is None:
            rise = [b - a for a, b in zip(self.base_general, self.before["general"], strict=True)]
            brought = max(0.0, upper_bound(rise))
        self.brought = brought

    def _train(self, material: Material, long: Sequence[Anchor], short: Sequence[Anchor]) -> Trace:
        """Raises Diverged."""
        snapshot, training, first = self.snapshot, self.snapshot.training, not self.snapshot.parent
        recipe = Recipe(
            exposures=training.exposures,
            least_steps=training.least_steps,
            batch=training.batch,
            replay_batch=training.replay_batch,
            replay_exposures=training.replay_exposures,
            anchor_batch=training.anchor_batch,
            short_anchor_batch=training.short_anchor_batch,
            learning_rate=training.learning_rate * (1.0 if first else LATER_RATE),
            kl_weight=training.kl_weight,
            kl_start=Recipe.kl_start if first else LATER_KL_START,
            seed=snapshot.seed,
        )

        def step(done: int, steps: int, values: dict[str, float]) -> None:
            self.report({"event": "step", "step": done, "steps": steps, **values})

        kept = snapshot.checkpoint
        parts = (self.probes, self.probes_rehearsed, self.unseen)
        looked_at = [part for part in parts if part is not None]

        def held_out() -> list[float]:
            return [nll for part in looked_at for nll in evaluate.sequence_nll(self.split, part)]

        self.codes = made_up(snapshot.seed)
        self.planted = beside(snapshot, self.prompt, self.codes[0].passage()) * PLANTED_SHOWN
        return train(
            self.model,
            self.split,
            material.lessons,
            long,
            short,
            recipe,
            step,
            Checkpoint(kept, snapshot.key()) if kept is not None else None,
            planted=self.planted,
            held_out=held_out if looked_at else None,
        )

    def _nll(self) -> dict[str, list[float]]:
        rows = {
            "taught": self.taught,
            "rehearsed": self.rehearsed,
            "wordings": self.probes,
            "unseen": self.unseen,
            "general": self.general_rows,
        }
        return {
            name: evaluate.sequence_nll(self.split, part) if part is not None else []
            for name, part in rows.items()
        }

    def _measure(self) -> tuple[Verdict, Measures]:
        """Gates the candidate at full scale; if it forgets too much, at the largest that fits."""
        limits = Limits(**self.snapshot.limits)
        # What the person's own choice of an adapter has cost is not this round's doing.
        most = limits.max_general_rise_base + self.brought
        limits = replace(limits, max_general_rise_base=most)
        full = self._try(1.0, limits)
        if full[0].accepted or any(not c.passed and c.name not in SCALABLE for c in full[0].checks):
            return full
        low, high = 0, len(SCALES) - 1  # the first scale that forgets too much lies between
        while low < high:
            middle = (low + high) // 2
            if self._forgets(SCALES[middle], limits):
                high = middle
            else:
                low = middle + 1
        for scale in SCALES[:low][::-5]:
            tried = self._try(scale, limits)
            if tried[0].accepted:
                return tried
        return full  # its reasons are the plain ones

    def _try(self, scale: float, limits: Limits) -> tuple[Verdict, Measures]:
        """Every measurement of the candidate at one scale, and the gate's verdict."""
        _scale(self.model, scale)
        before, after = self.before, self._nll()
        moved = evaluate.next_logp(self.split, self.canary_prompts)
        measures = Measures(
            scale=scale,
            finite=export.finite(self.model),
            applied_kl=evaluate.mean_kl(self.parent_next, moved),
            taught=list(zip(before["taught"], after["taught"], strict=True)),
            rehearsed=list(zip(before["rehearsed"], after["rehearsed"], strict=True)),
            wordings=list(zip(before["wordings"], after["wordings"], strict=True)),
            unseen=list(zip(before["unseen"], after["unseen"], strict=True)),
            **self._general(after["general"]),
        )
        verdict = gate(measures, limits)
        if verdict.accepted:  # what takes long is measured only of what may be accepted
            measures = replace(measures, **self._behaviour(), **self._exposure())
            verdict = gate(measures, limits)
        return verdict, measures

    def _general(self, after: Sequence[float]) -> dict[str, Any]:
        """NLL of general text before and after, against the parent and against the base."""
        return {
            "general_parent": list(zip(self.before["general"], after, strict=True)),
            "general_base": list(zip(self.base_general, after, strict=True)),
        }

    def _forgets(self, scale: float, limits: Limits) -> bool:
        """Whether general text alone forbids this scale."""
        _scale(self.model, scale)
        after = evaluate.sequence_nll(self.split, self.general_rows)
        measures = Measures(scale=scale, finite=True, applied_kl=0.0, **self._general(after))
        return any(not c.passed and c.name in SCALABLE for c in gate(measures, limits).checks)

    def _behaviour(self) -> dict[str, Any]:
        """Stops, loops and refusals on general prompts: base and candidate."""
        end = self.prompt.end_ids
        rows = [a.encoded for a in self.general[:BEHAVIOUR_PROMPTS]]
        kept = [(row.prompt(), row.completion()) for row in rows]
        replies = anchoring.generate(
            self.model,
            [asked for asked, _ in kept],
            max_tokens=anchoring.REPLY_TOKENS,
            end_ids=end,
        )
        base = [reply for _, reply in kept]
        now = [reply.tokens for reply in replies]
        texts = [[self.prompt.detokenize(r) for r in side] for side in (base, now)]
        ended = [[r[-1] in end for r in side] for side in (base, now)]
        both = sum(a and b for a, b in zip(*ended, strict=True))
        looping = [evaluate.share([evaluate.loops(t) for t in side]) for side in texts]
        declined = [i for i, text in enumerate(texts[0]) if evaluate.refuses(text)]
        still = sum(evaluate.refuses(texts[1][i]) for i in declined)
        return {
            "stops": (sum(ended[0]), both, sum(ended[1]) - both),
            "repeating": (looping[0], looping[1]),
            "refusals": (len(declined), still),
        }

    def _exposure(self) -> dict[str, Any]:
        """How easily the code that the round read can be guessed, and those it never saw."""
        if not self.planted:
            return {}
        planted, *never = evaluate.exposures(self.split, self.prompt, self.codes)
        return {"exposure": planted, "exposure_by_chance": tuple(never)}

    def _canary_prompts(self, material: Material) -> list[list[int]]:
        general = [a.encoded.prompt() for a in self.general[:3]]
        return material.prompts[:5] + general

    def _canaries(self) -> list[Canary]:
        logp = evaluate.next_logp(self.split, self.canary_prompts)
        top = logp.topk(CANARY_TOP_K, dim=-1)
        return [
            Canary(
                tokens=list(tokens),
                ids=ids.tolist(),
                logp=values.tolist(),
                base_logp=base[ids].tolist(),
            )
            for tokens, ids, values, base in zip(
                self.canary_prompts, top.indices, top.values, self.base_next, strict=True
            )
        ]

    def _surprise(self, material: Material, measures: Measures) -> dict[int, float]:
        """How badly the candidate still knows each example that it was shown, in nats a token."""
        lessons = sorted(material.lessons, key=lambda lesson: lesson.rehearsed)
        after = [pair[1] for pair in [*measures.taught, *measures.rehearsed]]
        return {x.example_id: nll for x, nll in zip(lessons, after, strict=True)}

    def _export(self, config: Any) -> dict[str, str]:
        folder = self.folder / CANDIDATE_DIR
        folder.mkdir(exist_ok=True)
        export.save_peft(self.model, folder)
        lora.write_gguf(
            folder,
            folder / "adapter.gguf",
            architecture=self.prompt.architecture,
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            layers=config.num_hidden_layers,
            metadata={"acclimate.base.sha256": self.snapshot.base_sha256},
        )
        for path in folder.iterdir():
            fsync_file(path)
        return {path.name: sha256_file(path) for path in sorted(folder.iterdir())}

    def _refused(self, reason: str, material: Material) -> Result:
        return Result(
            accepted=False,
            reasons=[reason],
            measures={},
            card={"skipped": {str(k): v for k, v in material.skipped.items()}},
        )

    def _card(
        self,
        material: Material,
        trace: Trace,
        verdict: Verdict,
        shape: LoraShape,
        chosen: Choice,
    ) -> dict[str, Any]:
        tail = trace.rows[-max(1, len(trace.rows) // 10) :]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {
            "base_sha256": self.snapshot.base_sha256,
            "parent": self.snapshot.parent_version,
            "seed": self.snapshot.seed,
            "threads": self.snapshot.threads,
            "precision": self.snapshot.precision,
            "scale": verdict.scale,
            "checks": [
                {"name": c.name, "passed": c.passed, "reason": c.reason} for c in verdict.checks
            ],
            "training": self.snapshot.training.model_dump(),
            "brought": self.brought,
            "rank": shape.rank,
            "layers": list(shape.layers),
            "layers_chosen": chosen.how,
            "layer_scores": chosen.scores,
            "modules": list(shape.modules),
            "counts": {
                "new": len(self.snapshot.new),
                "replay": len(self.snapshot.replay),
                "held_out": len(self.snapshot.held_out),
                "wordings": sum(len(x.wordings) for x in material.lessons),
            },
            "skipped": {str(k): v for k, v in material.skipped.items()},
            "steps": trace.steps,
            "resumed_at": trace.resumed_at,
            "kept_at": trace.kept_at,
            "train_seconds": round(trace.seconds, 2),
            "round_seconds": round(time.monotonic() - self.began, 2),
            "phases": {k: round(v, 2) for k, v in self.seconds.items()},
            "tokens": trace.tokens,
            "ce": sum(r["ce"] for r in tail) / len(tail),
            "kl": sum(r["kl"] for r in tail) / len(tail),
            "peak_bytes": peak * (1 if sys.platform == "darwin" else 1024),
            "versions": {p: metadata.version(p) for p in ("torch", "peft", "transformers")},
        }


def _scale(model: PeftModel, scale: float, *, bake: bool = False) -> None:
    """Sets the adapter's strength; `bake` writes it into B instead, for good."""
    for module in model.modules():
        if isinstance(module, LoraLayer) and "default" in module.scaling:
            plain = module.lora_alpha["default"] / module.r["default"]
            if bake:
                module.scaling["default"] = plain
                with torch.no_grad():
                    module.lora_B["default"].weight.mul_(scale)
            else:
                module.scaling["default"] = plain * scale


def lower_priority() -> None:
    """Yields to everything else: lowest CPU priority, idle I/O class, dies with its parent."""
    os.nice(NICENESS)
    if sys.platform == "linux":
        import ctypes
        import signal

        psutil.Process().ionice(psutil.IOPRIO_CLASS_IDLE)
        # Where the kernel groups tasks by session ("autogroup"), niceness counts within a session
        # alone: a worker's own session has to be nice as a whole, somebody else's not.
        if os.getsid(0) == os.getpid():
            with contextlib.suppress(OSError):
                Path("/proc/self/autogroup").write_text(str(NICENESS), "ascii")
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def main(argv: Sequence[str]) -> int:
    """Runs the round in folder `argv[0]`; 0 with a result (also a rejection), 1 on failure."""
    folder = Path(argv[0])
    lower_priority()
    # Other output (warnings of libraries) must not tear the JSON lines.
    out = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)

    def report(event: dict[str, Any]) -> None:
        try:
            out.write(json.dumps(event) + "\n")
        except BrokenPipeError:
            sys.exit(1)  # nobody waits for this round any more

    try:
        snapshot = Snapshot.model_validate_json((folder / SNAPSHOT_FILE).read_bytes())
        torch.set_num_threads(snapshot.threads)
        torch.manual_seed(snapshot.seed)
        result = Worker(folder, snapshot, report).run()
    except AcclimateError as error:
        report({"event": "error", "message": error.message, "hint": error.hint})
        return 1
    except MemoryError:
        report({"event": "error", "message": "out of memory", "hint": "pick a smaller model"})
        return 1
    except (RuntimeError, OSError, ValueError) as error:
        report({"event": "error", "message": f"{type(error).__name__}: {error}", "hint": ""})
        return 1
    atomic_write(folder / RESULT_FILE, result.model_dump_json().encode())
    report({"event": "result", "accepted": result.accepted})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
