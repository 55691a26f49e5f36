"""Cues: a taught question that means what is asked, and nothing else, leads to the answer."""

import math
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from lessons import taught
from numpy.typing import NDArray

from acclimate.adapters.passages import with_cue
from acclimate.adapters.questions import ENOUGH
from acclimate.adapters.request import MAX_CHARS
from acclimate.adapters.scope import Scope
from acclimate.daemon.cueing import Cue, Cueing, agreeing, worth
from acclimate.daemon.general import General
from acclimate.daemon.scoping import SCOPE_FILE, Scoping
from acclimate.store import buffer, cues, ledger
from acclimate.store.chats import Exchange
from acclimate.store.db import Db
from acclimate.store.errors import EngineError
from acclimate.store.files import Home
from acclimate.store.topics import set_topics

WIDTH = 1024
LITTLE = "who what where does do has is it i a an the on my your you please".split()
SAID = {
    "Where does my canoe lie?": "Your canoe lies on the Orrin.",
    "What do I call my canoe?": "You call it Merganser.",
    "Who has my spare key?": "Petra has it.",
    "Write a note about my canoe.": "Canoe day!\n\nBring a hat.",
}


def embed(texts: Sequence[str]) -> NDArray[np.float32]:
    """A vector of each text's telling words: what shares words is near."""
    found = np.zeros((len(texts), WIDTH), dtype=np.float32)
    for row, text in zip(found, texts, strict=True):
        for word in set(re.findall("[a-z]+", text.lower())):
            if word not in LITTLE:
                row[zlib.crc32(word.encode()) % WIDTH] += 1.0
        row /= max(float(np.linalg.norm(row)), 1.0)
    return found


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.create(tmp_path / "home")


@pytest.fixture
def db(home: Home) -> Iterator[Db]:
    db = Db(home.db)
    for asked, reply in SAID.items():
        add(db, asked, reply)
    yield db
    db.close()


def add(db: Db, asked: str, reply: str) -> int:
    exchange = Exchange(1, ({"role": "user", "content": asked},), reply)
    with db.write() as conn:
        return buffer._insert(conn, None, None, exchange)  # type: ignore[arg-type]


def publish(db: Db, *new: int) -> str:
    round_id = ledger.start_round(db, ledger.live(db), 1, new)
    version = ledger.next_version(db)
    ledger.publish(db, round_id, version, ledger.live(db), "", 1.0, {}, new)
    return f"v{version:04}"


def cueing(db: Db, home: Home) -> Cueing:
    return Cueing(db, embed, General(home.cache, embed, "words"))


def asked(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def words(found: Cueing, name: str, messages: list[dict[str, str]]) -> str | None:
    cue = found.of(name, messages)
    return None if cue is None else cue.words


def test_other_words_find_the_question_that_was_taught(db: Db, home: Home) -> None:
    found = cueing(db, home)
    name = publish(db, 1, 2, 3)
    found.take_up(taught(n, q, a) for n, (q, a) in enumerate([*SAID.items()][:3], start=1))
    assert words(found, name, asked("My canoe, where does it lie?")) == "Where does my canoe lie?"
    assert (
        words(found, name, asked("On the Orrin, what does lie?")) == "Where does my canoe lie?"
    ), "what was said about it is a part of what it is about"
    assert words(found, name, asked("Who holds the spare key?")) == "Who has my spare key?"
    assert words(found, name, asked("where does my canoe lie")) is None, "it is what is asked"
    assert words(found, name, asked("How tall is Everest?")) is None
    assert words(found, name, asked("Draft a note: where does my canoe lie?")) is None
    assert words(found, name, asked("  ")) is None
    assert words(found, name, asked("my canoe lie where " * MAX_CHARS)) is None
    after = [*asked("Where does my canoe lie?"), {"role": "assistant", "content": "There."}]
    assert words(found, name, after) is None, "nobody asks"


def test_a_text_bears_a_cue_out_that_has_its_answer(db: Db, home: Home) -> None:
    found = cueing(db, home)
    name = publish(db, 1, 2, 3)
    while found.embed_pending(8):
        pass
    cue = found.of(name, asked("Who holds the spare key?"))
    assert cue == Cue("Who has my spare key?", "Petra.", "Who has my spare key?", cue.near)
    assert cue.said_in(["The key is red.", "Gave petra\nthe key", "Petra again."]) == 1
    assert cue.said_in(["Petras are plants."]) is None and cue.said_in([]) is None
    same = found.of(name, asked("who has my spare key"))
    assert same is not None
    assert (same.question, same.words) == ("Who has my spare key?", None), (
        "nothing to put behind it"
    )


def test_requests_like_those_that_were_taught_are_the_adapters(db: Db, home: Home) -> None:
    add(db, "Write a table of my boats.", "Boats:\n\nMerganser")
    found = cueing(db, home)
    facts, style, tables = publish(db, 1, 2, 3), publish(db, 4), publish(db, 5)
    while found.embed_pending(8):
        pass
    request = "Write a note about the boat that leaks."
    assert found.leaning(style, request) == 1
    assert found.leaning(facts, request) == 0, "it was taught no form"
    assert found.leaning(style, "Explain how a boat leaks.") < 0, "nobody asked for a form"
    assert found.leaning(style, "Write a table of boats.") == -1, "it has a form of its own"
    assert found.leaning(tables, "Write a table of boats.") == 1


def test_a_request_has_the_one_that_was_taught_behind_it(db: Db, home: Home) -> None:
    found = cueing(db, home)
    facts, style = publish(db, 1, 2, 3), publish(db, 4)
    while found.embed_pending(8):
        pass
    cue = found.of(style, asked("Draft a note about my boat."))
    assert cue is not None
    assert (cue.words, cue.answer, cue.request) == ("Write a note about my canoe.", "", True)
    assert agreeing([cue], ["the garden"], [], []) == (["the garden"], cue), "it is no answer"
    assert found.of(facts, asked("Draft a note about my boat.")) is None, "it was taught none"
    assert found.of(style, asked("Compose a poem on winter.")) is None, "nothing is like it"
    same = found.of(style, asked("Write a note about my canoe"))
    assert same is not None and same.words is None
    assert found.of("v0009", asked("Draft a note about my boat.")) is None, "nothing is known"


def test_what_a_word_means_is_not_asked_of_the_adapter(db: Db, home: Home) -> None:
    add(db, "What does al dente mean?", "It means firm to the bite.")
    found = cueing(db, home)
    without, taught = publish(db, 2), publish(db, 5)
    while found.embed_pending(8):
        pass
    assert found.leaning(without, "What does canoe mean?") == -1
    assert found.leaning(without, "Fix this sentence: What do you call my canoe") == -1
    assert found.leaning(taught, "What does al dente mean?") == 1


def test_the_first_cue_that_a_passage_bears_out_counts() -> None:
    key, canoe = (
        Cue("Who has my key?", "Petra.", None, 0.44),
        Cue("Where is it?", "Orrin.", "Where is it?", 0.43),
    )
    far = Cue("What is on my list?", "Tea.", "What is on my list?", 0.36)
    near, wider = ["the garden"], ["the garden", "it lies on the Orrin", "tea, bread"]
    assert agreeing([key, canoe, far], near, wider, wider) == (["it lies on the Orrin"], canoe)
    assert agreeing([far], near, wider, wider) == (["tea, bread"], far)
    assert agreeing([key, far], near, wider, wider) == (near, None), "too far from the nearest"
    assert agreeing([key], near, wider, wider) == (near, None), "what is shown does not say so"
    sure = replace(key, near=0.6)
    assert agreeing([sure, far], near, wider, wider) == ([], sure), "what was taught counts"
    assert agreeing([key, canoe], [], [], []) == ([], key), "nothing is shown"
    assert agreeing([far], [], [], []) == ([], None), "not near enough by itself"


def test_a_cue_is_worth_more_the_nearer_it_is_and_where_a_passage_bears_it_out() -> None:
    cue = Cue("Who has my key?", "Petra.", None, 0.6)
    alone, borne_out = (worth(cue, borne_out=said) for said in (False, True))
    assert worth(None, borne_out=False) < worth(replace(cue, near=0.3), borne_out=False) < alone
    assert alone < borne_out < math.inf
    assert worth(replace(cue, near=0.95), borne_out=True) == math.inf, "nothing need be read"


def test_others_that_may_be_meant_follow_the_nearest(db: Db, home: Home) -> None:
    found = cueing(db, home)
    name = publish(db, 1, 2, 3, 4)
    while found.embed_pending(8):
        pass
    several = found.several(name, asked("My canoe, where does it lie?"))
    assert [cue.question for cue in several] == [
        "Where does my canoe lie?",
        "What do I call my canoe?",
    ]
    assert several[0].near > 0.5 and found.several(name, asked("How tall is Everest?")) == []


def test_what_is_nearest_to_a_request_gets_no_cue(db: Db, home: Home) -> None:
    found = cueing(db, home)
    name = publish(db, 1, 4)
    while found.embed_pending(1):
        pass
    assert words(found, name, asked("The note about my canoe, write it?")) is None


def test_each_adapter_has_the_cues_of_its_own_line(db: Db, home: Home) -> None:
    found = cueing(db, home)
    first, second = publish(db, 1), publish(db, 3)
    while found.embed_pending(1):
        pass
    key, canoe = asked("Who holds my spare key?"), asked("My canoe, where does it lie?")
    assert words(found, first, canoe) == words(found, second, canoe) == "Where does my canoe lie?"
    assert words(found, second, key) == "Who has my spare key?" and words(found, first, key) is None


def test_of_two_that_are_as_near_the_latest_counts(db: Db, home: Home) -> None:
    number = add(db, "Where does canoe lie my?", "Your Orrin on lies the canoe.")
    found = cueing(db, home)
    name = publish(db, 1, number, 3)
    while found.embed_pending(8):
        pass
    assert words(found, name, asked("The canoe, where does it lie?")) == "Where does canoe lie my?"
    very = found.of(name, asked("where does my canoe lie"))
    assert very is not None and (very.question, very.words) == ("Where does my canoe lie?", None)


def test_what_says_that_it_has_changed_counts_before_what_it_changed(db: Db, home: Home) -> None:
    where = "Where does my canoe lie in winter nights"
    old = add(db, f"{where}?", "Orrin.")
    plain = add(db, f"{where} tonight?", "Ken.")
    news = add(db, f"{where} now?", "Wye.")
    found = cueing(db, home)
    before, after = publish(db, old, plain), publish(db, news)
    while found.embed_pending(8):
        pass
    canoe = asked("In winter nights my canoe, where does it lie exactly?")
    assert words(found, before, canoe) == f"{where}?", "not for being later alone"
    assert words(found, after, canoe) == f"{where} now?"
    assert words(found, after, asked("Call my canoe what?")) is None, "not if it is another matter"


def test_an_echo_stands_behind_what_is_as_near(db: Db, home: Home) -> None:
    told = "Nights at the {} with a lamp."
    first = add(db, "Where are my nights with a lamp?", told.format("quay"))
    other = add(db, "With a lamp where are my nights?", told.format("yard"))
    with db.write() as conn:
        conn.execute("UPDATE examples SET weight = ? WHERE id = ?", (ENOUGH, other))
    found = cueing(db, home)
    name = publish(db, first, other)
    while found.embed_pending(8):
        pass
    cue = found.of(name, asked("My nights, with a lamp: where?"))
    assert cue is not None and cue.question.startswith("Where"), "although the other is later"


def test_homes_of_earlier_versions_get_their_vectors_later(db: Db, home: Home) -> None:
    name = publish(db, 1, 3)
    found = cueing(db, home)
    canoe = asked("My canoe, where does it lie?")
    assert words(found, name, canoe) is None
    assert [found.embed_pending(1) for _ in range(4)] == [1, 1, 0, 0]
    assert words(found, name, canoe) == "Where does my canoe lie?"
    again = cueing(db, home)
    assert words(again, name, canoe) == "Where does my canoe lie?", "they are kept"


def test_what_was_forgotten_or_contradicted_is_no_cue_any_more(db: Db, home: Home) -> None:
    found = cueing(db, home)
    name = publish(db, 1, 2, 3)
    while found.embed_pending(8):
        pass
    canoe, key = asked("My canoe, where does it lie?"), asked("Who holds my spare key?")
    later = add(db, "Where does my canoe lie now?", "It lies on the Ness.")
    set_topics(db, [(1, "canoe lie", "orrin"), (later, "canoe lie", "ness")])
    assert words(found, name, canoe) == "What do I call my canoe?", "the next in line"
    assert words(found, name, key) == "Who has my spare key?"
    with db.write() as conn:
        conn.execute("UPDATE examples SET state = 'forgotten', content = '{}' WHERE id = 3")
    assert words(found, name, key) is None, "though its vector is still in memory"
    assert 3 not in set(cues.of(db, 1).examples), "and gone from the database"
    with db.write() as conn:
        conn.execute("UPDATE examples SET content = '{}' WHERE id IN (1, 2)")
    cues.put(db, [1, 2], [True, True], embed(["Where?", "What?"]))
    assert not len(cues.of(db, 1).examples), "a round that had it at hand brings nothing back"


def test_a_broken_embedder_costs_the_cue_and_nothing_else(db: Db, home: Home) -> None:
    def broken(_texts: Sequence[str]) -> NDArray[np.float32]:
        raise EngineError("no vectors today")

    name = publish(db, 1)
    while cueing(db, home).embed_pending(8):
        pass
    found = Cueing(db, broken, General(home.cache, broken, "words"))
    assert words(found, name, asked("My canoe, where does it lie?")) is None
    with pytest.raises(EngineError):
        found.take_up([taught(1, "Where does my canoe lie?")])


def test_a_question_nearer_to_general_text_is_nobodys(db: Db, home: Home) -> None:
    found = cueing(db, home)
    name = publish(db, 1, 2, 3)
    everest = "Which mountain is the highest in the world?"
    assert found.leaning(name, everest) == 0, "nothing is known yet"
    while found.embed_pending(8):
        pass
    general = General(home.cache, embed, "words").texts()[-1]
    assert found.leaning(name, general) == -1
    assert found.leaning(name, "Where does my canoe lie, Jo?") == 1
    assert found.leaning(name, "What is it?") == 0
    assert found.leaning(name, f"Write a note: {general}") == 0, "no question"
    assert found.leaning(name, general + " please" * MAX_CHARS) == 0, "and this is more than one"
    assert words(found, name, asked(general)) is None


def test_what_is_surely_about_the_person_is_the_adapters(db: Db, home: Home) -> None:
    general = General(home.cache, embed, "words")
    found = Cueing(db, embed, general)
    name = publish(db, 1, 2, 3)
    while found.embed_pending(8):
        pass
    home.adapter_dir(1).mkdir()
    for offset, undecided in ((-1.0, False), (1.0, True)):
        nothing = Scope("words", [0.0] * WIDTH, offset, 0.5)  # or everything
        (home.adapter_dir(1) / SCOPE_FILE).write_bytes(nothing.to_json())
        scoping = Scoping(home, embed, "words", general, found)
        assert scoping.covers(name, asked("Where does my canoe lie, Jo?"))
        assert not scoping.covers(name, asked(general.texts()[-1]))
        assert scoping.covers(name, asked("What is it?")) == undecided, "here the scope decides"


def test_general_texts_are_embedded_once_in_a_home(home: Home) -> None:
    first = General(home.cache, embed, "words")
    vectors = first.vectors()
    assert vectors.shape == (len(first.texts()), WIDTH)

    def broken(_texts: Sequence[str]) -> NDArray[np.float32]:
        raise EngineError("no vectors today")

    again = General(home.cache, broken, "words").vectors()
    assert np.allclose(again, vectors, atol=1e-3), "read from its file"
    with pytest.raises(EngineError):
        General(home.cache, broken, "another embedder").vectors()
    (file,) = home.cache.glob("general-*.npy")
    file.write_bytes(file.read_bytes()[:-7])
    assert np.allclose(General(home.cache, embed, "words").vectors(), vectors), "made again"


def test_a_sure_cue_is_asked_in_the_place_of_the_question() -> None:
    messages = [{"role": "system", "content": "Be brief."}, *asked("Canoe where?")]
    cue = Cue("Where does my canoe lie?", "Orrin.", "Where does my canoe lie?", 0.5)
    said = [replace(cue, near=near).within(messages)[1]["content"] for near in (0.5, 0.6)]
    assert said == [f"Canoe where?\n\nIn other words: {cue.question}", cue.question]
    assert replace(cue, words=None, near=1.0).within(messages) == messages, "asked as it was taught"
    like = replace(cue, near=0.9, request=True).within(messages)[1]["content"]
    assert like.startswith("Canoe where?\n\nLike: "), "what is to be written is what was asked"


def test_a_cue_stands_behind_the_last_message() -> None:
    messages = [{"role": "system", "content": "Be brief."}, *asked("Canoe where? ")]
    composed = with_cue(messages, "Where does my canoe lie?")
    assert composed[1]["content"] == "Canoe where?\n\nIn other words: Where does my canoe lie?"
    assert composed[0] == messages[0] and messages[1]["content"] == "Canoe where? "
    assert with_cue(messages, None) == messages and with_cue([], "x") == []
