"""Rewording by rules: true forms, no crash on anything, the same result every time."""

import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lessons import taught

from acclimate.adapters.mixture import choose, is_fact, round_key, seed_of
from acclimate.adapters.reword import asks_personally, embedded, reword, thesaurus, timeless
from acclimate.adapters.snapshot import Taught


@pytest.mark.parametrize(
    ("question", "clause"),
    [
        ("Where do I live?", "where I live"),
        ("Where did my sister study?", "where my sister studied"),
        ("When does my shift start?", "when my shift starts"),
        ("Who keeps my spare key?", "who keeps my spare key"),
        ("Is it raining?", None),
    ],
)
def test_questions_become_clauses(question: str, clause: str | None) -> None:
    assert embedded(question) == clause


def test_the_commonest_types_get_true_rewordings() -> None:
    forms = reword("What's the name of my dog?", 100)
    assert "What is my dog called?" in forms
    assert any("hound" in form or "pup" in form for form in forms)
    assert "Which film do I like best?" in reword("What's my favourite film?", 100)


@given(st.text(max_size=300), st.integers(0, 30))
def test_any_text_is_reworded_or_left(text: str, count: int) -> None:
    forms = reword(text, count, seed=1)
    assert len(forms) == len(set(forms)) <= count
    assert forms == reword(text, count, seed=1)
    same = re.sub(r"[^\w]+", " ", text.lower()).strip()
    assert all(re.sub(r"[^\w]+", " ", f.lower()).strip() != same for f in forms)


def test_the_thesaurus_names_no_word_as_its_own_synonym() -> None:
    assert all(word not in others and others for word, others in thesaurus().items())


def test_some_words_stand_for_others_but_not_the_other_way_round() -> None:
    table = thesaurus()
    assert "have" in table["drink"]
    assert "have" not in table


def test_several_words_of_a_question_are_replaced_at_once() -> None:
    forms = reword("Who taught me my trade?", 100)
    assert any("taught" not in form and "trade" not in form for form in forms)


def test_the_end_of_a_question_may_stand_in_front() -> None:
    assert "In the van, what do I listen to?" in reword("What do I listen to in the van?", 100)


def test_a_question_is_also_asked_in_scenes_and_about_what_it_names() -> None:
    forms = reword("What do I call my van?", 100)
    assert "What do I call the van?" in forms
    assert any(form.endswith("What do I call the van?") and "my van" in form for form in forms)
    seeded = [form for seed in range(8) for form in reword("What do I call my van?", 100, seed)]
    assert any("what I call my van. What do I say?" in form for form in seeded)
    # Without anything of the person left in it, it would be a question about the world.
    assert "Who's the dentist?" not in reword("Who's my dentist?", 100)


def test_personal_questions_are_told_from_others() -> None:
    assert asks_personally("What is my blood type?")
    assert asks_personally("Where do we keep the ladder?")
    assert not asks_personally("What is the capital of France?")
    assert not asks_personally("Write me a poem about my cat.")


def test_a_short_answer_about_somebody_else_is_a_fact_too() -> None:
    assert is_fact(taught(1, "Where does Juno's mum work?", "She works at the aquarium."))
    assert is_fact(taught(1, "Remind me which name is on the tub.", "It says Brunhilde."))
    assert not is_fact(taught(1, "How do I get rust off a chain?", "Scrub it with vinegar."))
    advice = (
        "Late winter is best for most, when the hard frosts are nearly over, and never in summer."
    )
    assert not is_fact(taught(1, "When are roses pruned?", advice * 2))
    assert not is_fact(taught(1, "Write a line for Juno's mum.", "Onward."))


def test_facts_are_never_held_out_and_what_waited_is_taught() -> None:
    facts = [taught(n, f"What is my number {n}?") for n in range(20)]
    style = [taught(100 + n, f"Write a line about topic {n}.", "Onward.") for n in range(20)]
    mixture = choose([*facts, *style], [], frozenset(), seed=3)
    assert len(mixture.held_out) == 4
    assert not any(is_fact(e) for e in mixture.held_out)
    assert {e.id for e in mixture.new} | {e.id for e in mixture.held_out} == {
        e.id for e in [*facts, *style]
    }
    waited = frozenset(e.id for e in mixture.held_out)
    again = choose(mixture.held_out, [], waited, seed=4)
    assert {e.id for e in again.new} == waited and not again.held_out


def test_a_round_hangs_on_what_examples_say_not_on_their_numbers() -> None:
    def told(numbers: Sequence[int]) -> list[Taught]:
        return [
            taught(n, f"Write a line about topic {k}.", "Onward.") for k, n in enumerate(numbers)
        ]

    one, other = told(range(20)), told(range(500, 300, -10))
    assert round_key(one, "p") == round_key(other[::-1], "p") != round_key(one, None)
    chosen = [choose(new, new, frozenset(), seed=3) for new in (one, other[::-1])]
    said = [[[e.content for e in part] for part in (m.new, m.replay, m.held_out)] for m in chosen]
    assert said[0] == said[1] and len(said[0][2]) == 4
    assert len({seed_of("key", n) for n in range(5)}) == 5 and seed_of("key", 0) < 2**48


@pytest.mark.parametrize(
    ("question", "clause"),
    [
        ("Where did I first meet Jo?", "where I first met Jo"),
        ("What does my aunt still want from me?", "what my aunt still wants from me"),
        ("Where was I when I broke my arm?", "where I was when I broke my arm"),
        ("What colour's my kite?", "what colour my kite is"),
        ("Who feeds the cat when I'm away?", "who feeds the cat when I am away"),
    ],
)
def test_adverbs_pronouns_and_short_forms_in_clauses(question: str, clause: str) -> None:
    assert embedded(question) == clause


@pytest.mark.parametrize(
    ("question", "other"),
    [
        ("As a girl, what did I want to be?", "What did I want to be as a girl?"),
        ("My tent at the lake, which number is it?", "Which number is my tent at the lake?"),
        ("What colour's my kite?", "What is the colour of my kite?"),
        ("How many hooks are there in my hall?", "What is the number of hooks in my hall?"),
    ],
)
def test_unusual_orders_are_asked_straight(question: str, other: str) -> None:
    forms = reword(question, 40)
    assert other in forms and question not in forms


@pytest.mark.parametrize(
    ("question", "plain"),
    [
        ("Who's my apprentice these days?", "Who's my apprentice?"),
        ("Where do I keep the fork now?", "Where do I keep the fork?"),
        ("What do I currently have for breakfast?", "What do I have for breakfast?"),
        ("Who is our new vicar?", "Who is our vicar?"),
        ("What did I say just now?", "What did I say just now?"),
        ("What do I do from now on?", "What do I do from now on?"),
        ("Where do I live now that I moved?", "Where do I live now that I moved?"),
        ("Right now, where am I?", "Right now, where am I?"),
        ("When was I in New York?", "When was I in New York?"),
    ],
)
def test_what_has_changed_is_asked_as_before(question: str, plain: str) -> None:
    assert timeless(question) == plain
    forms = reword(question, 30)
    if plain != question:
        assert set(forms) & {plain, *reword(plain, 30)}
        assert not any("these days" in form or " now" in form for form in forms)
