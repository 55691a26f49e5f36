"""Questions out of notes: the shapes of sentences, what must not be asked, and any text at all."""

import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from acclimate.adapters.questions import ECHOED, ENOUGH, WORTH, Asked, questions
from acclimate.adapters.reword import reword
from acclimate.adapters.topic import as_news


def pairs(note: str) -> dict[str, str]:
    return {pair.question: pair.answer for pair in questions(note)}


@pytest.mark.parametrize(
    ("note", "question", "answer"),
    [
        ("Our choir meets on Tuesdays at seven.", "When does our choir meet?", "Tuesdays at seven"),
        ("Our choir meets in the old school.", "Where does our choir meet?", "the old school"),
        ("Bought a new bike from Mr Obi.", "Who did I buy a new bike from?", "Mr Obi"),
        ("My sister Jana lives in Bergen.", "What is my sister called?", "Jana"),
        ("The old chief, Hauk, gave me a belt.", "Who gave me a belt?", "Hauk"),
        ("We have a lurcher, Pim.", "What is our lurcher called?", "Pim"),
        ("We bought a boat called Merrow.", "What is our boat called?", "Merrow"),
        ("We got a puppy and named her Pim.", "What did we name our puppy?", "Pim"),
        ("My locker is number 46.", "What number is my locker?", "number 46"),
        ("The plumber's name is Ruben Aske.", "What is our plumber's name?", "Ruben Aske"),
        ("I can't stand coriander.", "What can't I stand?", "coriander"),
        ("I'm allergic to walnuts.", "What am I allergic to?", "walnuts"),
        ("I work as a piano tuner.", "What do I do for a living?", "a piano tuner"),
        ("I drive the number 9 tram.", "Which tram do I drive?", "the number 9 tram"),
        ("I take two sugars in my tea.", "How many sugars do I take in my tea?", "two"),
        ("The rope is 43 m long.", "How long is the rope?", "43 m"),
        ("We painted the door dark green.", "What colour did we paint the door?", "dark green"),
        ("The boiler was serviced by Mr Obi.", "Who serviced our boiler?", "Mr Obi"),
        ("There are 14 hives in our orchard.", "How many hives are there in our orchard?", "14"),
        ("In the hall hangs a map of Rome.", "What hangs in our hall?", "a map of Rome"),
        ("On my desk there is a red lamp.", "What is there on my desk?", "a red lamp"),
        ("Mum says that our cat sleeps in the bath.", "Where does our cat sleep?", "the bath"),
        ("I know that my aunt lives in Oban.", "Where does my aunt live?", "Oban"),
        ("My leave starts on 4 May, until then:\n\n- mow", "When does my leave start?", "4 May"),
        ("The sweets that I keep here are toffees.", "Which sweets do I keep?", "toffees"),
        ("The man who cuts my hair is called Jo.", "Who cuts my hair?", "Jo"),
        ("They have moved our pitch to Quay Row.", "Where has our pitch been moved?", "Quay Row"),
        ("It takes me 25 minutes to walk to work.", "How long does it take me to walk to work?",
         "25 minutes"),
        ("- Spare key under the blue pot", "Where is my spare key?", "under the blue pot"),
        ("- boiler: Vaillant, serviced by Mr Obi", "What is my boiler?", "Vaillant"),
        ("- boiler: Vaillant, serviced by Mr Obi", "Who services my boiler?", "Mr Obi"),
        ("## Boat\n\n- berth: 14", "What is the berth of my boat?", "14"),
        ("## Birthdays\n\n- Jana: 3 May", "When is Jana's birthday?", "3 May"),
        ("- **Plumber:** 085 555 0164", "What is my plumber's phone number?", "085 555 0164"),
        ("- Tutor: Dr Obi, who is away today", "Who is my tutor?", "Dr Obi"),
        ("- Key: under the hen on the sill round the side of the house", "Where is my key?",
         "under the hen"),
        ("Hesketh mows my lawn.", "Who mows my lawn?", "Hesketh"),
        ("They still call me Custard down there.", "What do they call me?", "Custard"),
        ("My front door's dark green.", "What colour is my front door?", "dark green"),
        ("We lived on Tenter Row.", "Where did we live?", "Tenter Row"),
        ("I grew up in Bergen.", "Where did I grow up?", "Bergen"),
        ("I first met Jean at the rink.", "Where did I first meet Jean?", "the rink"),
        ("Dear Maren,\n\nyou will be in Walvis Bay.", "Where will Maren be?", "Walvis Bay"),
    ],
)  # fmt: skip
def test_facts_become_questions_with_short_answers(note: str, question: str, answer: str) -> None:
    assert pairs(note).get(question) == answer


@pytest.mark.parametrize(
    ("note", "question", "answer"),
    [
        ("I no longer drink coffee but tea.", "What do I drink?", "tea"),
        ("The new code for the shed is 5512.", "What is our code for the shed?", "5512"),
        ("From now on the choir meets on Mondays.", "When does our choir meet?", "Mondays"),
        ("My dentist has retired; the new one is Dr Lind.", "Who is my dentist?", "Dr Lind"),
        ("Our street has a new name: it is Low Row now.", "What is the name of our street?",
         "Low Row"),
    ],
)  # fmt: skip
def test_a_change_is_asked_for_as_it_is_now(note: str, question: str, answer: str) -> None:
    found = [pair for pair in questions(note) if pair.question == question]
    assert [pair.answer for pair in found] == [answer]
    assert found[0].weight >= WORTH


@pytest.mark.parametrize(
    "note",
    [
        "He keeps it behind the church.",
        "She told Bo and Jana, and then she moved to Hull.",
        "They sold it to him for 40 pounds.",
        "You keep yours in the shed.",
        "This one costs 12 euros.",
    ],
)
def test_nothing_dangles(note: str) -> None:
    loose = re.compile(r"\b(?:he|she|it|they|him|them|you|yours?|this|that|there|one)\b")
    by_rules = [pair for pair in questions(note) if pair.weight >= ECHOED]
    assert not [pair for pair in by_rules if loose.search(pair.question.lower())]


@pytest.mark.parametrize(
    ("note", "question", "answer"),
    [
        ("Still Gannet Hollow on the sign, thank God.", "Still what on the sign, thank God?",
         "Gannet Hollow"),
        ("Back at the yard by 14:35, wet through.", "Back at the yard when, wet through?", "14:35"),
        ("# Van\n\nThe third time that month, with a patch of teal.", "", "teal"),
        ("Nobody leaves her overnight at Skelfhope Yard with its one lamp.",
         "Nobody leaves her overnight where with its one lamp?", "Skelfhope Yard"),
        ("Scones again, 18 trays of them for the fair.",
         "Scones again, how many trays of them for the fair?", "18"),
    ],
)  # fmt: skip
def test_what_no_rule_reads_is_echoed(note: str, question: str, answer: str) -> None:
    """Only then: with the sentence's own words, and behind all that is worth more."""
    found = [pair for pair in questions(note) if pair.answer == answer]
    assert found and ENOUGH <= found[0].weight < ECHOED
    assert found[0].question == question or (not question and "Van: " in found[0].question)


def test_echoes_are_few_and_only_of_what_is_specific() -> None:
    told = "Seen Bo, Jana, Hauk, Pim, Orla, Mina and Tor again, all on the pier in the rain.\n\n"
    assert 0 < len(questions(told * 2)) <= 2 * 3
    assert questions("Nothing much again, rain and more rain in the yard.") == []
    assert questions("Where has Gannet Hollow gone?") == [], "it is asked, not told"


def test_a_question_that_news_answers_says_so() -> None:
    told = "We live on Cooperage Steps now."
    assert as_news("Where do we live?", told) == "Where do we live now?"
    assert as_news("Where do we live these days?", told) == "Where do we live these days?"
    assert as_news("Where do we live?", "We live on Cooperage Steps.") == "Where do we live?"


def test_the_weather_is_nobodys_fact() -> None:
    assert pairs("Our ferryman is called Hosea. It rained all day.").keys() == {
        "What is our ferryman called?",
        "Who is called Hosea?",
    }


def test_who_gave_something_is_worth_more_than_what_they_gave() -> None:
    found = {a.question: a.weight for a in questions("A retired guard gave me my whistle.")}
    assert found["Who gave me my whistle?"] > found["What did a retired guard give me?"]


def test_a_pronoun_is_resolved_where_only_one_person_can_be_meant() -> None:
    note = "Uncle Bo sold the farm. He lives in Bergen now."
    assert pairs(note)["Where does Uncle Bo live?"] == "Bergen"
    assert "Where does Uncle Bo live?" not in pairs(f"Uncle Bo met Mr Obi. {note[23:]}")


def test_what_lasts_is_worth_more_than_what_happened_once() -> None:
    note = "# Monday 3 May\n\nMy sister lives in Bergen. Rain all day. I walked to the weir."
    found = questions(note)
    assert found[0].question == "Where does my sister live?"
    assert all(pair.weight < WORTH for pair in found if "weir" in pair.answer)


def test_pairs_say_where_they_stand() -> None:
    table = "| Room | Lamp |\n|--|--|\n| hall | oak |"
    note = f"# House\n\nOur stove is a *Morsø*.\n\n- boiler: Vaillant\n\n{table}"
    assert len(questions(note)) >= 3
    for pair in questions(note):
        assert note[pair.start :].startswith(pair.sentence)
        assert pair.answer in pair.sentence


def test_most_questions_are_of_a_shape_that_can_be_reworded() -> None:
    note = "Our choir meets in the old school. My locker is number 46. I drive the number 9 tram."
    assert all(len(reword(pair.question, 18)) >= 10 for pair in questions(note)[:3])


def flat(text: str) -> str:
    return " ".join(text.split())


WORDS = st.sampled_from(
    "I we my the a sister Jana Mr Obi is was has lives called in on at to from of and , . : - # "
    "| * ( ) \" ' 46 Tuesday seven who that which not no longer but now it he they door green "
    "bought kept £4 \n \n\n Dear you's 's every May under key".split(" ")
)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=400), st.lists(WORDS, max_size=60).map(" ".join)))
@example("\x1c- a: b\x85\u2028c")
@example("B IN: .")
def test_any_text_gives_spans_of_itself_or_nothing(text: str) -> None:
    found = questions(text)
    assert found == questions(text)
    assert found == sorted(found, key=lambda pair: -pair.weight)
    for pair in found:
        assert isinstance(pair, Asked)
        assert pair.question.endswith("?")
        assert pair.answer
        assert flat(pair.answer) in flat(text)
        assert text[pair.start :].startswith(pair.sentence)
        assert 0 <= pair.weight <= 1


@pytest.mark.parametrize(
    "text", ["I and ", ">", "- a: b\n", "a, ", "|a|b|\n", "the man that ", "x", "My dog is red.\n"]
)
def test_time_grows_with_the_length_of_the_text_only(text: str) -> None:
    spent = []
    for size in (10_000, 100_000):
        start = time.process_time()
        questions(text * (size // len(text)))
        spent.append(time.process_time() - start)
    assert spent[1] < 40 * spent[0] + 0.5  # ten times the text; quadratic were a hundred


def test_no_more_is_given_than_asked_for() -> None:
    note = "\n".join(f"My locker in hall {n} is number {n}0." for n in range(9))
    assert len(questions(note, most=5)) == 5
