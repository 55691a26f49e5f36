"""Every operation as a route, over a home whose daemon does not run: no engine, a real store."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from acclimate.daemon import token
from acclimate.daemon.config import Config
from acclimate.daemon.core import Core
from acclimate.daemon.server import create_app, unguarded
from acclimate.store import buffer, conversations, ledger, retire
from acclimate.store.db import Db
from acclimate.store.files import Home, sha256_file
from acclimate.store.index import Index

CHAT = "\n".join(
    json.dumps({"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]})
    for q, a in [("Who mends clarinets?", "Ruth does."), ("Where are the hives?", "In Ely.")]
)

QUESTION = [{"role": "user", "content": "Who?"}]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.create(tmp_path / "home")


@pytest.fixture
def core(home: Home) -> Core:
    db = Db(home.db)
    return Core(home, Config(), db, Index(db, home.index))


@pytest.fixture
def client(core: Core) -> TestClient:
    return TestClient(create_app(core, token=None, port=0))


def publish(core: Core, version: int, parent: int | None, learned: list[int], **card: Any) -> None:
    """An accepted adapter, whose file is a stand-in."""
    number = ledger.start_round(core.db, parent, 1, learned)
    folder = core.home.adapter_dir(version)
    folder.mkdir()
    (folder / ledger.ADAPTER_FILE).write_bytes(b"GGUF")
    sha256 = sha256_file(folder / ledger.ADAPTER_FILE)
    measures = {"exact": 0.5 + version / 10}
    ledger.publish(core.db, number, version, parent, sha256, 1.0, card, learned, measures=measures)


@pytest.fixture
def taught(core: Core, client: TestClient) -> TestClient:
    """Two examples, one learned by v0001, the other by v0002."""
    client.post("/v1/examples", json={"name": "log.jsonl", "text": CHAT})
    ids = sorted(e.id for e in buffer.examples(core.db))
    publish(core, 1, None, ids[:1], hyperparameters={"rank": 8, "epochs": 3})
    publish(core, 2, 1, ids[1:], hyperparameters={"rank": 8, "epochs": 5})
    return client


def error_of(response: Any) -> dict[str, Any]:
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code", "hint"}
    return error


def test_status_of_a_fresh_home(client: TestClient, home: Home) -> None:
    found = client.get("/v1/status").json()
    assert found["daemon"]["running"] is False
    assert found["home"] == {"path": str(home.root), "portable": False, "attached": True}
    assert found["token_file"] is None
    token.load_or_create_token(home)
    assert client.get("/v1/status").json()["token_file"] == str(home.token)
    assert found["live"] == "base" and found["pinned"] is False
    assert found["examples"]["pending"] == 0
    assert found["index"] == {"size": 0, "pending": 0}
    assert (
        found["round"] is found["last_round"] is found["next_round_at"] is found["paused"] is None
    )


def test_what_was_taken_out_and_where_examples_go_is_said(
    client: TestClient, core: Core, home: Home
) -> None:
    lines = [
        {"instruction": "Which key?", "output": "It was AKIAIOSFODNN7EXAMPLE."},
        {"instruction": "What's the weather?", "output": "Rain."},
        {"instruction": "Who mends clarinets?", "output": "Ruth does."},
    ]
    body = {"name": "log.jsonl", "text": "\n".join(map(json.dumps, lines))}
    assert client.post("/v1/examples", json=body).json()["redacted"] == 1
    listed = client.get("/v1/examples").json()["examples"]
    assert [(e["route"], e["route_reason"]) for e in listed] == [
        ("weights", ""),
        ("retrieval", "it is about the weather"),
        ("dropped", "the reply held a secret"),
    ]
    assert [e["id"] for e in client.get("/v1/examples?route=dropped").json()["examples"]] == [1]
    found = client.get("/v1/status").json()
    assert found["routes"] == {"weights": 1, "retrieval": 1, "preference": 0, "dropped": 1}
    assert (found["redacted"], found["held_back"]) == ({"aws key": 1}, {})
    publish(core, 1, None, [3])
    shown = client.get("/v1/adapters/v0001").json()
    assert shown["redacted"] == {"aws key": 1}
    assert shown["taught"][0]["examples"][0]["route"] == "weights"


def test_status_names_refused_files_and_bad_lines(client: TestClient, core: Core) -> None:
    text = f"{CHAT}\nnot json\n"
    added = client.post("/v1/examples", json={"name": "log.jsonl", "text": text})
    assert added.status_code == 201
    assert added.json()["examples"] == 2
    assert [line["line"] for line in added.json()["quarantined"]] == [3]
    refused = client.post("/v1/examples", json={"name": "a.md", "text": "a\0b"})
    assert refused.status_code == 400
    assert error_of(refused)["param"] == "text"
    found = client.get("/v1/status").json()
    assert [(q["path"], q["line"]) for q in found["quarantined"]] == [("log.jsonl", 3)]
    assert [r["path"] for r in found["refused"]] == ["a.md"]
    assert found["examples"]["pending"] == 2
    assert client.get("/v1/quarantine").json()["quarantined"] == found["quarantined"]
    listed = client.get("/v1/examples", params={"state": "pending"}).json()["examples"]
    assert {row["text"] for row in listed} == {"Who mends clarinets?", "Where are the hives?"}


@pytest.mark.parametrize(
    ("name", "kind", "stored"),
    [
        ("note.md", None, "note.md"),
        ("-", "notes", "stdin-"),
        ("stdin", "chat", "stdin-"),
        ("talk.txt", "chat", "talk.txt.jsonl"),
        ("data.jsonl", "code", "data.jsonl.txt"),
    ],
)
def test_the_kind_that_was_said_decides(
    client: TestClient, name: str, kind: str | None, stored: str
) -> None:
    body = {"name": name, "text": CHAT, "kind": kind}
    added = client.post("/v1/examples", json=body).json()
    assert added["path"].startswith(stored)
    assert added["examples"] == (2 if kind == "chat" else 0)


def test_sources_are_added_listed_and_removed(
    client: TestClient, core: Core, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    heard: list[int] = []
    core._on_sources = lambda source: heard.append(source.id)
    added = client.post("/v1/sources", json={"path": str(notes), "ignore": ["*.tmp"]})
    assert added.status_code == 201
    listed = client.get("/v1/sources").json()["sources"]
    assert listed == [added.json()]
    assert listed[0]["kind"] == "notes" and listed[0]["ignore"] == ["*.tmp"]
    gone = client.request("DELETE", "/v1/sources", json={"path": str(notes)})
    assert gone.status_code == 200
    assert client.get("/v1/sources").json()["sources"] == []
    assert heard == [listed[0]["id"]] * 2
    again = client.request("DELETE", "/v1/sources", json={"id": listed[0]["id"]})
    assert again.status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "param"),
    [
        ("POST", "/v1/sources", {"path": "notes"}, 400, "path"),
        ("POST", "/v1/sources", {"path": "/no/such/folder"}, 400, None),
        ("POST", "/v1/sources", {"path": "/"}, 400, None),
        ("POST", "/v1/sources", {"path": "/a\0b"}, 400, "path"),
        ("POST", "/v1/sources", {"path": "/" + "a" * 300}, 400, "path"),
        ("POST", "/v1/sources", {"path": "/a", "kind": "manual"}, 400, "kind"),
        ("POST", "/v1/sources", {"path": "/a", "depth": 3}, 400, "depth"),
        ("DELETE", "/v1/sources", {}, 400, None),
        ("DELETE", "/v1/sources", {"id": 10**30}, 400, "id"),
        ("POST", "/v1/examples", {"name": "a\nb", "text": "x"}, 400, "name"),
        ("POST", "/v1/examples", {"name": "a"}, 400, "text"),
        ("POST", "/v1/search", {"query": "x", "k": -1}, 400, "k"),
        ("POST", "/v1/search", {"query": "x", "k": 1e9}, 400, "k"),
        ("POST", "/v1/search", {"query": ""}, 400, "query"),
        ("GET", "/v1/search?query=x&k=many", None, 400, "k"),
        ("GET", "/v1/examples?state=eaten", None, 400, "state"),
        ("GET", "/v1/examples?limit=0", None, 400, "limit"),
        ("POST", "/v1/feedback", {"rating": "great"}, 400, "rating"),
        ("POST", "/v1/feedback", {"rating": "good"}, 404, None),
        ("POST", "/v1/feedback", {"rating": "good", "message_id": "none"}, 404, None),
        ("POST", "/v1/forget", {"target": 12}, 404, None),
        ("POST", "/v1/forget", {"target": "9" * 40}, 404, None),
        ("POST", "/v1/forget", {"target": "/no/such/file"}, 404, None),
        ("POST", "/v1/forget", {"target": "a\0b"}, 404, None),
        ("POST", "/v1/forget", {"target": [1]}, 400, "target"),
        ("POST", "/v1/adapters/live", {"version": "v0009"}, 404, None),
        ("POST", "/v1/adapters/live", {"version": "../x"}, 404, None),
        ("POST", "/v1/adapters/live", {}, 409, None),
        ("POST", "/v1/adapters/pin", {"version": "v" + "9" * 30}, 404, None),
        ("GET", "/v1/adapters/v0001", None, 404, None),
        ("GET", "/v1/adapters/base", None, 404, None),
        ("GET", "/v1/adapters/v0001/diff/base", None, 404, None),
        ("GET", "/v1/rounds/1", None, 404, None),
        ("GET", "/v1/rounds/" + "9" * 40, None, 404, None),
        ("GET", "/docs", None, 404, None),
        ("GET", "/v1/forget", None, 405, None),
        ("POST", "/v1/rounds", {}, 503, None),
        ("POST", "/v1/chat/completions", {"messages": QUESTION}, 503, None),
    ],
)
def test_what_cannot_be_done_is_said_and_why(
    client: TestClient, method: str, path: str, body: Any, status: int, param: str | None
) -> None:
    response = client.request(method, path, json=body)
    assert response.status_code == status, response.text
    error = error_of(response)
    assert error["param"] == param
    assert error["message"]
    if status == 503:
        assert error["code"] == "daemon_not_running"


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"nope", b'"text"', b"[" * 100_000, b'{"target": NaN}', b'{"target": "\\ud800"}',
     b'{"target": ' + b"9" * 10_000 + b"}", b"\xff", b'{"a":' * 5000 + b"1" + b"}" * 5000],
)  # fmt: skip
def test_bodies_that_are_no_request_are_refused(client: TestClient, body: bytes) -> None:
    response = client.post("/v1/forget", content=body)
    assert response.status_code in (400, 404)
    assert error_of(response)["message"]


def test_history_show_and_diff(taught: TestClient) -> None:
    found = taught.get("/v1/adapters").json()
    assert found["live"] == "v0002" and found["pinned"] is False
    assert [(a["version"], a["parent"], a["live"]) for a in found["adapters"]] == [
        ("v0002", "v0001", True),
        ("v0001", "base", False),
    ]
    assert [s["to"] for s in found["swaps"]] == ["v0002", "v0001"]
    shown = taught.get("/v1/adapters/v0002").json()
    assert shown["lineage"] == ["v0002", "v0001", "base"]
    assert shown["inherited"] == 1
    assert shown["taught"][0]["count"] == 1
    assert shown["taught"][0]["source"] == "added by hand"
    assert shown["card"]["hyperparameters"]["epochs"] == 5
    both = taught.get("/v1/adapters/v0001/diff/v0002").json()
    assert both["hyperparameters"] == {"epochs": {"a": 3, "b": 5}}
    assert both["measures"]["exact"] == {"a": 0.6, "b": 0.7}
    assert [group["count"] for group in both["gained"]] == [1]
    assert both["lost"] == [] and both["shared"] == 1
    back = taught.get("/v1/adapters/v0002/diff/base").json()
    assert back["gained"] == [] and [group["count"] for group in back["lost"]] == [2]
    one = taught.get("/v1/rounds/1").json()
    assert (one["state"], one["adapter"], one["progress"]) == ("accepted", "v0001", None)
    assert len(taught.get("/v1/rounds", params={"limit": 1}).json()["rounds"]) == 1


def test_rollback_and_pin_without_a_daemon_move_the_ledger(taught: TestClient, core: Core) -> None:
    def live(body: dict[str, Any]) -> str:
        return str(taught.post("/v1/adapters/live", json=body).json()["live"])

    assert live({"version": None}) == "v0001"
    assert live({"version": "v0002"}) == "v0002"
    assert live({}) == "v0001"
    assert live({}) == "base"
    pinned = taught.post("/v1/adapters/pin", json={"version": "v0001"}).json()
    assert pinned == {"live": "v0001", "pinned": True}
    assert ledger.pinned(core.db)
    assert taught.delete("/v1/adapters/pin").json() == {"live": "v0001", "pinned": False}
    assert [m["id"] for m in taught.get("/v1/models").json()["data"]] == [
        "live", "base", "v0002", "v0001",
    ]  # fmt: skip
    assert taught.get("/health").json()["live"] == "v0001"


def test_forgetting_reaches_every_adapter_that_learned_it(taught: TestClient, core: Core) -> None:
    first, second = sorted(e.id for e in buffer.examples(core.db))
    core.home.chat_history.write_text("\n# now\n+Who mends clarinets?\n")
    conversations.save_exchange(
        core.db, None, [{"role": "user", "content": "Who mends clarinets?"}], "Ruth.", "v0002"
    )
    looked = taught.post("/v1/forget", json={"target": first, "dry_run": True}).json()
    assert looked["retired"] == ["v0001", "v0002"] and looked["live"] == "base"
    assert looked["examples"] == [{"id": first, "text": "Who mends clarinets?"}]
    assert [p["path"] for p in looked["passages"]] == ["log.jsonl"]
    assert ledger.live(core.db) == 2 and buffer.get(core.db, first).state == "learned"
    assert taught.get("/v1/receipts").json() == {"receipts": []}
    done = taught.post("/v1/forget", json={"target": first}).json()
    removed = {"documents": 0, "examples": 1, "passages": 1, "messages": 2, "feedback": 0}
    assert done["removed"] == looked["removed"] == {**removed, "lines": 1}
    assert conversations.last_message(core.db) is None
    assert b"clarinets" not in core.home.db.read_bytes() + core.home.chat_history.read_bytes()
    assert done["retired"] == ["v0001", "v0002"], "v0002 descends from the one that learned it"
    assert (done["live_before"], done["live"], ledger.live(core.db)) == ("v0002", "base", None)
    assert list(core.home.adapters.iterdir()) == []
    assert buffer.get(core.db, second).state == "pending"
    again = {"state": "waits", "wanted": True, "examples": 1, "left": 1, "rounds": []}
    assert done["relearn"] == again and "1 other examples are to be learned" in done["message"]
    shown = taught.get("/v1/adapters").json()["adapters"]
    assert {(a["state"], a["retired"]) for a in shown} == {("retired", retire.LEARNED_IT)}
    moved = taught.post("/v1/adapters/live", json={"version": "v0001"})
    assert moved.status_code == 409 and retire.LEARNED_IT in error_of(moved)["message"]
    assert taught.get("/v1/search", params={"query": "clarinets"}).json()["hits"] == []
    # The receipt completes itself when the rest is learned, and a later rollback undoes nothing.
    publish(core, 3, None, [second])
    ledger.set_live(core.db, None, "rollback")
    (receipt,) = taught.get("/v1/receipts").json()["receipts"]
    assert receipt == taught.get(f"/v1/receipts/{done['receipt']}").json()
    assert receipt["relearn"] == {**again, "state": "done", "left": 0, "rounds": [3]}
    rest = taught.post("/v1/forget", json={"target": "log.jsonl"}).json()
    assert (rest["documents"], rest["retired"]) == (["log.jsonl"], ["v0003"])
    assert taught.post("/v1/forget", json={"target": "log.jsonl"}).status_code == 404
    assert taught.get("/v1/receipts/99").status_code == 404


def test_several_are_forgotten_together_or_not_at_all(client: TestClient, core: Core) -> None:
    client.post("/v1/examples", json={"name": "log.jsonl", "text": CHAT})
    client.post("/v1/examples", json={"name": "a.md", "text": "Ruth keeps bees."})
    assert client.post("/v1/forget", json={"targets": [1, "no.md"]}).status_code == 404
    assert buffer.get(core.db, 1).state == "pending"
    done = client.post("/v1/forget", json={"targets": [1, "a.md"]}).json()
    assert (done["documents"], done["examples"]) == (["a.md"], [1])
    assert client.post("/v1/forget", json={"source": "manual"}).json()["examples"] == [2]
    assert client.post("/v1/forget", json={"source": "/no/such"}).status_code == 404
    for body in ({}, {"targets": []}, {"target": 1, "matching": "Ruth"}, {"matching": " a "}):
        assert client.post("/v1/forget", json=body).status_code == 400
    assert client.post("/v1/forget", json={"matching": "nowhere"}).status_code == 404


def test_feedback_is_kept_with_the_reply(client: TestClient, core: Core) -> None:
    message = conversations.save_exchange(core.db, None, QUESTION, "Nobody.", "base")
    given = client.post("/v1/feedback", json={"rating": "edit", "edit": "Ruth."})
    assert given.status_code == 201
    assert given.json()["message_id"] == message
    listed = client.get("/v1/feedback").json()["feedback"]
    assert [(f["rating"], f["edit"], f["reply"]) for f in listed] == [("edit", "Ruth.", "Nobody.")]
    wrong = client.post("/v1/feedback", json={"rating": "good", "edit": "x"})
    assert wrong.status_code == 400 and error_of(wrong)["param"] == "edit"
    assert buffer.counts(core.db)["pending"] == 0, "feedback is recorded, not learned from"


def test_an_error_inside_says_nothing_of_what_was_sent(
    core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("secret text of the person")

    monkeypatch.setattr(core, "search", fail)
    client = TestClient(unguarded(core))
    response = client.post("/v1/search", json={"query": "x"})
    assert response.status_code == 500
    assert "secret" not in response.text
    assert error_of(response)["code"] == "internal_error"


def test_the_description_has_every_route_and_what_it_takes(client: TestClient, core: Core) -> None:
    described = client.get("/openapi.json").json()
    served = {
        (route.path_format, method.lower())
        for route in unguarded(core).routes
        for method in route.methods - {"HEAD"}
    }
    assert served == {
        (path, method) for path, ways in described["paths"].items() for method in ways
    }
    schemas = described["components"]["schemas"]
    assert set(schemas["Search"]["properties"]) == {"query", "k"}
    assert schemas["Search"]["required"] == ["query"]
    search = described["paths"]["/v1/search"]
    named = {parameter["name"]: parameter["in"] for parameter in search["get"]["parameters"]}
    assert named == {"query": "query", "k": "query"}
    asked = search["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert asked == {"$ref": "#/components/schemas/Search"}
    chat = described["paths"]["/v1/chat/completions"]["post"]["responses"]["200"]["content"]
    assert set(chat) == {"application/json", "text/event-stream"}
    assert described["paths"]["/health"]["get"]["security"] == []
    one = described["paths"]["/v1/rounds/{round}"]["get"]["parameters"][0]
    assert (one["name"], one["in"], one["schema"]["type"]) == ("round", "path", "integer")
    # Every reference leads somewhere.
    text = json.dumps(described)
    for name in re.findall(r'"#/components/schemas/([^"]+)"', text):
        assert name in schemas


def test_metrics_count_by_route_and_state(taught: TestClient) -> None:
    taught.get("/v1/adapters/v0001")
    text = taught.get("/metrics").text
    assert 'acclimate_examples{state="learned"} 2.0' in text
    assert "acclimate_live_version 2.0" in text
    assert 'route="/v1/adapters/{version}",status="200"' in text


def test_a_round_is_started_followed_and_cancelled(core: Core) -> None:
    class OneRound:
        def start(self, reason: str = "") -> int:
            return ledger.start_round(core.db, None, 1, [])

        def current(self) -> dict[str, Any] | None:
            return {"round": 1, "phase": "train", "step": 3, "steps": 9}

        def cancel(self, round_id: int) -> None:
            ledger.finish_round(core.db, round_id, "failed", error="cancelled")

    core.rounds = OneRound()
    client = TestClient(create_app(core, token=None, port=0))
    started = client.post("/v1/rounds")
    assert (started.status_code, started.json()) == (202, {"round": 1})
    assert client.post("/v1/rounds", json={}).status_code == 409
    assert client.get("/v1/rounds/1").json()["progress"]["step"] == 3
    assert client.get("/v1/status").json()["round"]["phase"] == "train"
    assert client.post("/v1/rounds/1/cancel").json() == {"round": 1, "cancelled": True}
    assert client.get("/v1/rounds/1").json()["error"] == "cancelled"
