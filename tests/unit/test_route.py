"""What passes goes to retrieval only; what stays true, and all that is in doubt, to the weights."""

from pathlib import Path

import pytest

from acclimate.store.chats import Exchange, parse_chat
from acclimate.store.route import decide

PASSING = [
    ("When is my dentist appointment?", "On Friday at ten."),
    ("What time is my flight?", "At 7.15."),
    ("When's my next check-up?", "On 14 January."),
    ("What am I doing today?", "Fitting nine people."),
    ("What's on my shopping list?", "Wool and felt."),
    ("What do I need to buy?", "Milk."),
    ("What's the weather like?", "Rain."),
    ("Will it rain tomorrow?", "Yes."),
    ("How much does a litre of petrol cost?", "1.80."),
    ("What's the share price of Hats Ltd?", "4.20."),
    ("Where is my parcel?", "In Leeds."),
    ("Has my order shipped?", "Not yet."),
    ("When is the tax return due?", "On 31 January."),
    ("What’s the deadline for the costume bid, and when is it due?", "Thursday week."),
    ("Which book am I currently reading?", "The dye book."),
    ("Is the boiler fixed yet?", "No."),
    ("When is Odile coming?", "Tomorrow at nine."),
    ("Tell me what's for dinner tonight.", "Lasagne."),
    ("Who picks up the boys this week?", "Caspar."),
]
LASTING = [
    ("When's our wedding anniversary?", "On 23 February."),
    ("What time do I get up?", "At half past five."),
    ("When is choir practice?", "On Tuesdays at seven."),
    ("When is choir practice?", "On Tuesday at seven."),
    ("When's Wenna's birthday?", "On 27 November."),
    ("What's the code for my bike lock?", "7294."),
    ("Who is my dentist?", "Dr Moss."),
    ("When was my operation?", "In 2019."),
    ("When did I have my first interview?", "In May."),
    ("How much did I pay for my bike?", "90 pounds."),
    ("How much is my rent?", "700."),
    ("When is the rent due?", "On the first of every month."),
    ("When does the boiler man come?", "Every March."),
    ("What do I usually eat on Fridays?", "Fish."),
    ("Where do I keep my shopping list?", "On the fridge."),
    ("What's my favourite weather?", "Fog."),
    ("Where do parcels go when we are out?", "To Mrs Abernquist."),
    ("What's my usual order at the café?", "Tea."),
    ("Write a text to cancel today's coffee.", "Pins out first: not today."),
    ("Draft a reminder about tomorrow's deadline.", "Pins out first: it is due."),
    ("What is a tide?", "The sea, breathing."),
    ("Why do onions make me cry?", "A gas."),
    ("Where do we live now?", "In Quillhaven."),
    ("Which bus do I catch to work?", "Bus 86."),
    ("What's wrong today with " + ", ".join(f"button{n}" for n in range(50)) + "?", "Six."),
    ("Wann ist mein Termin?", "Am Freitag."),
]


def exchange(question: str, reply: str, rejected: str | None = None) -> Exchange:
    return Exchange(1, ({"role": "user", "content": question},), reply, rejected)


@pytest.mark.parametrize(("question", "reply"), PASSING)
def test_what_passes_is_for_retrieval(question: str, reply: str) -> None:
    decision = decide(exchange(question, reply))
    assert decision.route == "retrieval"
    assert decision.reason


@pytest.mark.parametrize(("question", "reply"), LASTING)
def test_what_lasts_is_for_the_weights(question: str, reply: str) -> None:
    assert decide(exchange(question, reply)).route == "weights"


def test_pairs_are_preferences_and_junk_is_dropped() -> None:
    assert decide(exchange("What's on today?", "a", "b")).route == "preference"
    dropped = decide(exchange("Who am I?", "As an AI language model, I cannot know."))
    assert (dropped.route, bool(dropped.reason)) == ("dropped", True)


def test_the_example_week_is_all_for_the_weights() -> None:
    chats = Path(__file__).parents[2] / "examples" / "stream" / "chats"
    exchanges = [e for path in chats.glob("*.jsonl") for e in parse_chat(path.read_bytes())[0]]
    assert len(exchanges) > 40
    assert {decide(e).route for e in exchanges} == {"weights"}
