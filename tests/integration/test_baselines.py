"""The benchmark's baselines on the tiny model: each learns, and each does what its paper says."""

import copy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
import transformers
from lessons import taught
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from acclimate.adapters import anchors
from acclimate.adapters.base import (
    ALL_LINEAR,
    MLP,
    Activations,
    LoraShape,
    Split,
    add_lora,
)
from acclimate.adapters.prompt import Encoded, Prompt
from acclimate.adapters.train import Lesson, Recipe, train
from acclimate.daemon.config import LearnConfig

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from continual import flops, methods, peer, sweep
from continual.cost import our_round
from continual.distil import ContextDistillation, Questions, asked_of
from continual.ewc import Ewc, trained
from continual.material import rounds
from continual.methods import METHODS, Replay, Setting, lora_shape
from continual.olora import FROZEN, TRAINED, OLora, overlap
from continual.sequential import Joint, Sequential, our_tokens, plan

FACTS = [
    ("What is my dog called?", "Truffle."),
    ("Where do I work?", "On the ferry."),
    ("When does my choir meet?", "On Tuesdays."),
    ("Who is my sister?", "Jana."),
]
CONTEXTS = [f"User: {question}\nAssistant: {reply}" for question, reply in FACTS]
SHAPE = LoraShape(4, 8.0, (0, 1), ALL_LINEAR)
TOP = LoraShape(4, 8.0, (1,), MLP)


def tokens_of(lessons: list[Lesson]) -> int:
    """Of each lesson's first wording."""
    return sum(len(lesson.wordings[0].tokens) for lesson in lessons)


@pytest.fixture
def lessons(prompt: Prompt) -> list[Lesson]:
    return [
        Lesson(n, [prompt.encode(taught(n, form, reply).messages()) for form in (q, f"{q[:-1]}!")])
        for n, (q, reply) in enumerate(FACTS)
    ]


@pytest.fixture
def make(base: Any, prompt: Prompt) -> Callable[..., Any]:
    def made(method: type[Sequential], shape: LoraShape = SHAPE, **own: Any) -> Any:
        own = {"learning_rate": 5e-3, **own}
        if method is Replay:
            messages = [{"role": "user", "content": "Sky?"}, {"role": "assistant", "content": "Up"}]
            own["general"] = [prompt.encode(messages)] * 6
        return method(base, prompt, shape, 3, own.pop("learning_rate"), **own)

    return made


@pytest.mark.parametrize("shape", [SHAPE, TOP], ids=["all", "top"])
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_every_method_lowers_its_loss_round_after_round(
    method: type[Sequential], shape: LoraShape, make: Callable[..., Any], lessons: list[Lesson]
) -> None:
    # Random weights have a Fisher matrix far larger than a real model's.
    learner = make(method, shape, **({"weight": 1.0} if method is Ewc else {}))
    for part, seen in ((lessons[:2], CONTEXTS[:2]), (lessons[2:], CONTEXTS[2:])):
        spent = learner.learn(part, seen, budget_tokens=40 * tokens_of(part))
        assert fmean(learner.losses[-4:]) < 0.6 * learner.losses[0]
        assert spent.steps == len(learner.losses)
        assert spent.tokens >= 40 * tokens_of(part)
        assert spent.flops is not None and spent.flops > 0
    assert learner.adapter_bytes() >= 4 * sum(p.numel() for p in trained(learner.model).values())
    assert all("lora_" in name for name in trained(learner.model))


def test_a_closed_method_leaves_the_base_as_it_was(
    make: Callable[..., Any], base: Any, loaded: Any, lessons: list[Lesson]
) -> None:
    learner = make(OLora)
    for part, seen in ((lessons[:2], CONTEXTS[:2]), (lessons[2:], CONTEXTS[2:])):
        learner.learn(part, seen, 2_000)
    learner.close()
    before = loaded.state_dict()
    assert base.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())


def test_the_budget_bounds_what_is_trained(lessons: list[Lesson]) -> None:
    longest = max(len(row.tokens) for lesson in lessons for row in lesson.wordings)
    steps = plan(lessons, 500, 2, torch.Generator().manual_seed(0))
    total = sum(len(row.tokens) for step in steps for row in step)
    assert 500 <= total < 500 + 2 * longest
    assert plan([], 500, 2, torch.Generator()) == []
    shown = [row for step in steps for row in step]
    assert {id(row) for row in shown} <= {id(w) for x in lessons for w in x.wordings}


def test_our_tokens_are_what_a_round_of_ours_takes(
    loaded: Any, prompt: Prompt, lessons: list[Lesson]
) -> None:
    lessons[1].rehearsed = True
    model = add_lora(copy.deepcopy(loaded), TOP)
    general = anchors.make(loaded, prompt, ["Sky?"], 3)
    recipe = Recipe(exposures=5, batch=2)
    trace = train(model, Split(model, 1), lessons, general, general, recipe)
    assert our_tokens(lessons, recipe) == trace.tokens


def test_replay_mixes_general_replies_into_every_batch(
    make: Callable[..., Any], lessons: list[Lesson]
) -> None:
    learner = make(Replay, batch=4, share=0.5)
    spent = learner.learn(lessons, CONTEXTS, tokens_of(lessons))
    general = len(learner.general[0].tokens)
    assert [len(learner.beside()) for _ in range(3)] == [4, 4, 4]
    assert spent.tokens > tokens_of(lessons) + 3 * general
    with pytest.raises(ValueError, match="leaves nothing"):
        make(Replay, share=1.0)


def test_joint_training_starts_over_and_sequential_goes_on(
    make: Callable[..., Any], lessons: list[Lesson]
) -> None:
    started = {}
    for method in (Sequential, Joint):
        learner = make(method)
        learner.learn(lessons, CONTEXTS, 4_000)
        learner.learn(lessons, CONTEXTS, 4_000)
        started[method] = learner.losses[0]
        learner.close()
    assert started[Sequential] < 0.5 * started[Joint]


def test_the_fisher_is_the_mean_of_squared_gradients_of_each_example(
    make: Callable[..., Any], lessons: list[Lesson]
) -> None:
    learner = make(Ewc)
    learner.learn(lessons, CONTEXTS, 1_000)  # B is no longer zero, so A has gradients, too
    rows = [lesson.wordings[0] for lesson in lessons]
    found = learner.diagonal(rows)
    naive = {name: torch.zeros_like(p) for name, p in trained(learner.model).items()}
    for row in rows:
        learner.model.zero_grad()
        output = learner.model(input_ids=torch.tensor([row.tokens])).logits[0]
        start = len(row.tokens) - len(row.completion())
        target = torch.tensor(row.tokens[start:])
        cross_entropy(output[start - 1 : -1], target, reduction="sum").backward()
        for name, p in trained(learner.model).items():
            naive[name] += p.grad.square() / len(rows)
    for name, expected in naive.items():
        torch.testing.assert_close(found[name], expected, rtol=1e-3, atol=1e-7)
    assert max(float(f.max()) for f in found.values()) > 0


def test_ewc_holds_back_in_proportion_to_its_weight(
    make: Callable[..., Any], lessons: list[Lesson]
) -> None:
    moved = []
    for weight in (0.0, 1e5):
        learner = make(Ewc, weight=weight)
        learner.learn(lessons[:2], CONTEXTS[:2], 2_000)
        assert learner.penalty().item() == 0.0
        kept, fisher = learner.before, learner.fisher
        learner.learn(lessons[2:], CONTEXTS[2:], 2_000)
        now = trained(learner.model)
        moved.append(sum(float((fisher[n] * (now[n] - kept[n]) ** 2).sum()) for n in now))
        # Online: what the first round's Fisher said is still in the sum.
        assert all(bool((learner.fisher[n] >= 0.95 * fisher[n]).all()) for n in fisher)
        learner.close()
    assert moved[1] < 0.1 * moved[0]


def test_o_lora_freezes_earlier_adapters_and_goes_on_adding_them(
    make: Callable[..., Any], lessons: list[Lesson]
) -> None:
    learner = make(OLora)
    learner.learn(lessons[:2], CONTEXTS[:2], 1_000)
    row = torch.tensor([lessons[0].wordings[0].tokens])
    with torch.no_grad():
        one = learner.model(input_ids=row).logits
        size = learner.adapter_bytes()
        learner.begin(lessons[2:], CONTEXTS[2:])
        two = learner.model(input_ids=row).logits
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-3)  # the new one adds nothing yet
    assert learner.adapter_bytes() == 2 * size
    assert all(f".{TRAINED}." in name for name in trained(learner.model))
    frozen = {n: p.clone() for n, p in learner.model.named_parameters() if f".{FROZEN}." in n}
    learner._fit(plan(lessons[2:], 1_000, 2, learner.generator))
    after = dict(learner.model.named_parameters())
    assert all(torch.equal(after[name], value) for name, value in frozen.items())


def test_the_penalty_of_o_lora_is_zero_for_orthogonal_adapters(
    make: Callable[..., Any], lessons: list[Lesson]
) -> None:
    learner = make(OLora)
    assert learner.penalty() is None
    learner.learn(lessons[:2], CONTEXTS[:2], 500)
    learner.learn(lessons[2:], CONTEXTS[2:], 500)
    layers = [m for m in learner.model.modules() if hasattr(m, "lora_A") and FROZEN in m.lora_A]
    assert len(layers) == 2 * len(ALL_LINEAR)
    with torch.no_grad():
        for layer in layers:
            rows = torch.eye(layer.in_features)
            layer.lora_A[FROZEN].weight.copy_(rows[:4])
            layer.lora_A[TRAINED].weight.copy_(rows[4:8])
        assert learner.penalty().item() == 0.0
        layers[0].lora_A[TRAINED].weight[1, 2] = -3.0
        assert float(overlap(learner.model)) == pytest.approx(3.0)
        assert float(learner.penalty()) == pytest.approx(0.5 * 3.0)


def test_o_lora_makes_the_new_adapter_more_orthogonal(
    make: Callable[..., Any], lessons: list[Lesson]
) -> None:
    left = []
    for weight in (0.0, 0.5):
        learner = make(OLora, weight=weight)
        learner.learn(lessons[:2], CONTEXTS[:2], 2_000)
        learner.learn(lessons[2:], CONTEXTS[2:], 4_000)
        left.append(float(overlap(learner.model).detach()))
        learner.close()
    assert left[1] < 0.5 * left[0]


def test_the_teacher_of_context_distillation_sees_the_passage(
    prompt: Prompt, lessons: list[Lesson]
) -> None:
    questions = Questions(prompt)
    row = lessons[0].wordings[0]
    seen = questions.with_context(row, "My dog is Truffle.")
    content = f"Notes:\nMy dog is Truffle.\n\nQuestion: {FACTS[0][0]}"
    assert seen == prompt.encode_prompt([{"role": "user", "content": content}])
    assert questions.with_context(row, " ") is None
    again = prompt.encode(taught(9, content, "Truffle.").messages())
    assert questions.with_context(again, "My dog is Truffle.") is None


def test_the_passage_stands_before_the_last_question_of_a_conversation(prompt: Prompt) -> None:
    before = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": "Yes?"},
    ]
    asked, reply = {"role": "user", "content": "Where?"}, {"role": "assistant", "content": "There."}
    seen = Questions(prompt).with_context(prompt.encode([*before, asked, reply]), "It is there.")
    shown = {"role": "user", "content": "Notes:\nIt is there.\n\nQuestion: Where?"}
    assert seen == prompt.encode_prompt([*before, shown])


@pytest.mark.parametrize("targets", ["reply", "taught"])
def test_context_distillation_brings_the_student_to_its_teacher(
    targets: str, make: Callable[..., Any], prompt: Prompt, lessons: list[Lesson], loaded: Any
) -> None:
    learner = make(ContextDistillation, targets=targets)
    [lesson] = learner.begin(lessons[:1], CONTEXTS[:1])
    row = lesson.wordings[0]
    asked = asked_of(row)
    reply = row.tokens[len(asked) :]
    assert asked == lessons[0].wordings[0].tokens[: len(asked)]  # without the passage
    seen = Questions(prompt).with_context(lessons[0].wordings[0], CONTEXTS[0])
    assert seen is not None
    with torch.no_grad():
        whole = loaded(input_ids=torch.tensor([seen + reply])).logits[0, len(seen) - 1 : -1]
    expected = torch.log_softmax(whole, dim=-1)
    teacher = learner.teachers[id(row)]
    torch.testing.assert_close(
        teacher.logp.float(), expected.gather(1, teacher.ids.long()), rtol=0.01, atol=0.02
    )
    if targets == "reply":
        assert reply == whole.argmax(-1).tolist()
    else:
        assert row in lessons[0].wordings


def test_lessons_without_a_context_are_not_distilled(
    make: Callable[..., Any], lessons: list[Lesson]
) -> None:
    learner = make(ContextDistillation)
    assert learner.learn(lessons, [""] * 4, 1_000).steps == 0
    with pytest.raises(ValueError, match="contexts"):
        learner.learn(lessons, [], 1_000)


@pytest.mark.parametrize(
    "shape",
    [
        TOP,
        SHAPE,
        LoraShape(4, 8.0, (0, 1), MLP),
        LoraShape(2, 4.0, (0,), ("o_proj",)),
        LoraShape(2, 4.0, (0, 1), ("q_proj", "v_proj")),
        LoraShape(2, 4.0, (1,), ("down_proj",)),
    ],
    ids=str,
)
def test_counted_operations_are_those_that_torch_counts(
    shape: LoraShape, make: Callable[..., Any], lessons: list[Lesson]
) -> None:
    learner = make(OLora, shape)
    sizes = flops.Sizes.of(learner.model.config)
    cache = Activations(learner.split, [lesson.wordings[0] for lesson in lessons])
    for _ in range(2):
        batch = cache.batch(range(4))
        # CPU's fused attention is not known to the counter; the plain one does the same products.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            batch.logits(learner.split).sum().backward()
        row, predicted = flops.Row.packed(batch.segments), len(batch.target)
        ours = flops.step(sizes, shape, row, predicted, None, learner.frozen_ranks())
        assert ours == counter.get_total_flops()
        learner.rounds += 1
        learner._freeze()  # the second time, beside a frozen adapter
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        below = Activations(Split(learner.model, 0), cache.rows[:1])
        assert counter.get_total_flops() == 0
        with torch.no_grad(), learner.model.disable_adapter():
            learner.model(input_ids=torch.tensor([below.rows[0].tokens]))
    length = len(below.rows[0].tokens)
    whole = flops.forward(sizes, sizes.layers, flops.Row.plain(length)) + flops.logits(
        sizes, length
    )
    assert counter.get_total_flops() == whole


def test_a_round_of_ours_is_counted_as_it_is_trained(
    loaded: Any, prompt: Prompt, lessons: list[Lesson]
) -> None:
    recipe = Recipe(exposures=3, batch=2, anchor_batch=2, short_anchor_batch=1)
    general = anchors.make(loaded, prompt, ["Sky?", "Sea?", "Land?"], 6)
    model = add_lora(copy.deepcopy(loaded), TOP)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        trace = train(model, Split(model, 1), lessons, general, general, recipe)
    cost = our_round(flops.Sizes.of(loaded.config), TOP, lessons, general, general, recipe)
    counted = cost.lower + cost.lessons + cost.anchors
    assert cost.steps == trace.steps
    assert counted == counter.get_total_flops()


def test_a_matrix_product_has_a_speed() -> None:
    assert flops._speed(256, 256, 256, 1) > 0


def test_settings_name_methods_that_can_be_built(
    base: Any, prompt: Prompt, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        methods, "general_replies", lambda *_: [Encoded([1, 5, 2], [0.0, 1.0, 1.0])]
    )
    monkeypatch.setattr(methods, "our_boundary", lambda *_: 1)
    rows = methods.settings()
    assert {row.method for row in rows.values()} == METHODS.keys()
    assert {row.shape for row in rows.values()} == {"top", "all"}
    for name, row in rows.items():
        learner = methods.build(name, base, prompt, tiny_llama)
        assert learner.learning_rate == row.learning_rate
        assert learner.shape.layers == ((1,) if row.shape == "top" else (0, 1))
        learner.close()
    assert lora_shape("top", 30, 20).layers == tuple(range(20, 30))
    assert lora_shape("all", 30).modules == ALL_LINEAR
    with pytest.raises(ValueError, match="top or all"):
        lora_shape("half", 30)


def test_the_sweep_keeps_the_best_of_each_and_naive_twice() -> None:
    def tried(method: str, shape: str, rate: float, recall: float, score: float | None) -> Any:
        return {
            **{"method": method, "shape": shape, "learning_rate": rate, "own": {}},
            **{"reworded": recall, "score": score},
        }

    tries = [
        tried("naive", "top", 1e-4, 0.2, 0.15),
        tried("naive", "top", 1e-3, 0.5, 0.4),
        tried("naive", "top", 3e-3, 0.7, -0.3),
        tried("naive", "top", 1e-2, 0.9, None),
        tried("ewc", "all", 1e-3, 0.6, 0.3),
        tried("ewc", "all", 3e-3, 0.5, 0.4),
    ]
    rows = sweep.best_rows(tries)
    assert {name: row["learning_rate"] for name, row in rows.items()} == {
        "naive": 3e-3,
        "naive-low": 1e-3,
        "ewc-all": 3e-3,
    }
    assert sweep.best_rows(tries[3:4]) == {}


def test_every_method_is_swept_over_rates_and_its_own_coefficient() -> None:
    for name in METHODS:
        first = sweep.first_tries(name, "top")
        assert [s.learning_rate for s in first] == list(sweep.RATES)
        second = sweep.second_tries(name, first[1])
        assert bool(second) == (name in sweep.OWN)
        assert all(s.learning_rate == sweep.RATES[1] and s.own != first[1].own for s in second)
        assert all(isinstance(s, Setting) for s in second)


def test_material_is_what_rounds_would_teach(prompt: Prompt, tmp_path: Path) -> None:
    says = '{"instruction": "%s", "input": "", "output": "%s"}\n'
    days = [
        says % ("What is my dog called?", "Your dog is called Truffle.")
        + says % ("Where do I work?", "You work on the ferry."),
        says % ("What is my dog called?", "Your dog is called Biscuit."),
    ]
    folders = []
    for n, text in enumerate(days, start=1):
        folders.append(tmp_path / f"round-{n}")
        (folders[-1] / "chats").mkdir(parents=True)
        (folders[-1] / "notes").mkdir()
        (folders[-1] / "chats" / "day.jsonl").write_text(text, "utf-8")
    first, second = rounds(folders, prompt, LearnConfig())
    assert [len(x.lessons) for x in (first.new, first.everything)] == [2, 2]
    assert sorted(first.new.contexts) == [
        "User: What is my dog called?\nAssistant: Your dog is called Truffle.",
        "User: Where do I work?\nAssistant: You work on the ferry.",
    ]
    assert all(len(lesson.wordings) > 4 for lesson in first.new.lessons)
    # The second round of ours rehearses what the first one taught; the lessons are the new ones.
    assert second.new.tokens > our_tokens(second.new.lessons)
    assert [len(second.new.lessons), len(second.everything.lessons)] == [1, 2]
    assert not any("Truffle" in context for context in second.everything.contexts)


@pytest.fixture
def tokenizer() -> Any:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    words = Tokenizer(WordLevel({"<pad>": 0, "a": 1}, unk_token="<pad>"))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """One thread: models of this size only wait for a second one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_peer_learns_and_stops_at_its_target(
    base: Any, tokenizer: Any, lessons: list[Lesson]
) -> None:
    rows = peer.rows_of(lessons)
    assert len(rows) == 8
    nll: list[float] = []

    def recall(model: torch.nn.Module) -> float:
        split = Split(model, 0)
        batch = Activations(split, rows).batch(range(len(rows)))
        nll.append(float(cross_entropy(batch.logits(split), batch.target)))
        return float(len(nll) >= 3)

    done = peer.train(base, tokenizer, rows, recall, target=1.0, epochs=9, learning_rate=1e-2)
    assert (done.reached, done.epochs, done.steps) == (True, 3, 3)
    assert done.recall == [0.0, 0.0, 1.0]
    assert nll[-1] < nll[0]
    assert done.seconds > 0
