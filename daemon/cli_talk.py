"""Commands that talk with the model: ask, chat, feedback.

Knows neither engine nor terminal editing; the conversation itself is in chat.py.
"""

import sys
from typing import Annotated, Any

import typer

from acclimate.daemon.cli_common import AdapterOption, Json, NoRag, example, session

app = typer.Typer()
feedback = typer.Typer(
    help="Rate or correct a reply.",
    no_args_is_help=True,
    epilog=example("acclimate feedback good", "acclimate feedback edit 'It was Tuesday.'"),
)
app.add_typer(feedback, name="feedback", rich_help_panel="Talking")

_PANEL = "Talking"

MessageId = Annotated[
    str | None,
    typer.Option("--message", "-m", metavar="ID", help="Which reply; else the last one."),
]


@app.command(
    rich_help_panel=_PANEL,
    epilog=example("acclimate ask 'Whose piano is tuned on Friday?'", "acclimate ask - < q.txt"),
)
def ask(
    ctx: typer.Context,
    question: Annotated[str, typer.Argument(help="What to ask; - reads it from the input.")],
    adapter: AdapterOption = "live",
    no_rag: NoRag = False,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", "-n", min=1, help="The longest reply, in tokens.")
    ] = None,
    as_json: Json = False,
) -> None:
    """One answer."""
    from acclimate.daemon import render, views

    s = session(ctx, as_json)
    text = sys.stdin.read().strip() if question == "-" else question
    if not text.strip():
        raise typer.BadParameter("the question is empty")
    out = render.stdout()
    with s.client() as client:
        reply = client.chat(
            [{"role": "user", "content": text}],
            model=adapter,
            retrieval=False if no_rag else None,
            max_tokens=max_tokens,
        )
        for piece in reply:
            if not s.json:
                render.write(out, piece)
    if s.json:
        s.show(reply.as_dict(), str)
        return
    out.print()
    if out.is_terminal:
        out.print(views.made_of(reply))


@app.command(rich_help_panel=_PANEL, epilog=example("acclimate chat", "acclimate chat -a base"))
def chat(
    ctx: typer.Context,
    adapter: AdapterOption = "live",
    no_rag: NoRag = False,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", "-n", min=1, help="The longest reply, in tokens.")
    ] = None,
) -> None:
    """A conversation in the terminal; /help says what it understands."""
    from acclimate.daemon import chat as talk
    from acclimate.daemon import render
    from acclimate.daemon.client import NotRunning

    s = session(ctx)
    home = s.home()
    with s.client() as client:
        if client.daemon is None:
            raise NotRunning
        conversation = talk.Chat(
            client,
            render.stdout(),
            adapter=adapter,
            retrieval=False if no_rag else None,
            max_tokens=max_tokens,
            scratch=home.cache,
        )
        conversation.run(talk.lines(home.chat_history))


@feedback.command("good", epilog=example("acclimate feedback good"))
def good(ctx: typer.Context, message: MessageId = None, as_json: Json = False) -> None:
    """The reply was good."""
    _give(ctx, as_json, {"message_id": message, "rating": "good"})


@feedback.command("bad", epilog=example("acclimate feedback bad --message 4f1c…"))
def bad(ctx: typer.Context, message: MessageId = None, as_json: Json = False) -> None:
    """The reply was bad."""
    _give(ctx, as_json, {"message_id": message, "rating": "bad"})


@feedback.command("edit", epilog=example("acclimate feedback edit 'It was Tuesday.'"))
def edit(
    ctx: typer.Context,
    text: Annotated[str, typer.Argument(help="What it should have said; - reads the input.")],
    message: MessageId = None,
    as_json: Json = False,
) -> None:
    """The reply should have been this."""
    better = (sys.stdin.read() if text == "-" else text).strip()
    if not better:
        raise typer.BadParameter("the better reply is empty")
    _give(ctx, as_json, {"message_id": message, "rating": "edit", "edit": better})


@feedback.command("list", epilog=example("acclimate feedback list --json"))
def list_feedback(ctx: typer.Context, as_json: Json = False) -> None:
    """What was rated and corrected so far, newest first."""
    from acclimate.daemon import views

    s = session(ctx, as_json)
    with s.client() as client:
        found = client.get("/v1/feedback")
    s.show(found, views.feedback)


def _give(ctx: typer.Context, as_json: bool, body: dict[str, Any]) -> None:
    s = session(ctx, as_json)
    with s.client() as client:
        given = client.post("/v1/feedback", body)
    s.show(given, lambda _: "noted")
