"""Downloads one file of a Hugging Face repository, and takes up again what was cut.

The only code that opens a connection to the outside itself. Knows HTTP, and no models.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from acclimate.daemon.fetch import OFFLINE_HINT, Progress, check_space
from acclimate.store.errors import ModelError
from acclimate.store.files import sync

if TYPE_CHECKING:
    import httpx

ENDPOINT = "https://huggingface.co"
_FILE = re.compile(r"hf:([\w-][\w.-]*)/([\w-][\w.-]*)[:/]([\w][\w./ +-]*\.gguf)", re.IGNORECASE)
_TRIES = 5  # in a row without a byte
_HINT = "check owner, repo and file; HF_TOKEN opens what needs an account"


def parse(what: str) -> tuple[str, str]:
    """hf:owner/repo:file.gguf → ("owner/repo", "file.gguf"). Raises ModelError."""
    match = _FILE.fullmatch(what)
    if match is None or any(part in ("", ".", "..") for part in match[3].split("/")):
        raise ModelError(f"{what!r} names no model file", "write it as hf:owner/repo:file.gguf")
    return f"{match[1]}/{match[2]}", match[3]


def download(what: str, target: Path, part: Path, progress: Progress) -> str:
    """Download `hf:owner/repo:file.gguf` to `target`; its SHA-256. Raises ModelError.

    What an attempt before left in `part` is taken up again, as long as the file there is still
    the same one.
    """
    import httpx  # not with every start of the daemon

    repository, name = parse(what)
    endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or ENDPOINT
    url = f"{endpoint}/{repository}/resolve/main/{quote(name)}"
    try:
        _check_secure(httpx.URL(url))
    except httpx.InvalidURL as e:
        raise ModelError(f"HF_ENDPOINT is {endpoint!r}: {e}", "unset it") from None
    token = os.environ.get("HF_TOKEN")
    headers = {"authorization": f"Bearer {token}"} if token else {}
    tries = 0
    with httpx.Client(follow_redirects=True, timeout=30, headers=headers) as client:
        while True:
            before = part.stat().st_size if part.exists() else 0
            try:
                expected = _fetch(client, url, part, f"fetching {name}", progress)
                break
            except httpx.TransportError as e:
                tries = 0 if part.exists() and part.stat().st_size > before else tries + 1
                if tries >= _TRIES:
                    raise ModelError(f"cannot fetch {what}: {e}", OFFLINE_HINT) from e
                time.sleep(min(2**tries, 10))
            except httpx.HTTPError as e:
                raise ModelError(f"cannot fetch {what}: {e}", _HINT) from e
            except OSError as e:
                raise ModelError(f"cannot write {part}: {e.strerror}", "free some space") from e
    with part.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        sync(file.fileno())
    if expected and sha256 != expected:
        _forget(part)
        raise ModelError(f"{what} came out damaged: its SHA-256 is {sha256}", "pull it again")
    part.replace(target)
    _forget(part)
    return sha256


def _fetch(
    client: httpx.Client, url: str, part: Path, stage: str, progress: Progress
) -> str | None:
    """Fetch what is missing of `part`; the SHA-256 that the server names, where it names one."""
    import httpx

    tag = _tag_file(part)
    done = part.stat().st_size if part.exists() and tag.exists() else 0
    ask = {"accept-encoding": "identity"}
    if done:
        ask |= {"range": f"bytes={done}-", "if-range": tag.read_text()}
    with client.stream("GET", url, headers=ask) as answer:
        for step in (*answer.history, answer):
            _check_secure(step.url)
        if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            _forget(part)
            raise httpx.ReadError("the part that is here does not fit; starting again")
        if answer.is_error:
            raise ModelError(f"{url}: {answer.status_code} {answer.reason_phrase}", _HINT)
        if answer.status_code != httpx.codes.PARTIAL_CONTENT:
            done = 0
        length = int(answer.headers.get("content-length", 0))
        total = done + length if length else 0
        check_space(part.parent, length)
        name = answer.headers.get("etag", "")
        if name and not name.startswith("W/"):
            tag.write_text(name)
        else:  # nothing would tell whether a part still fits
            tag.unlink(missing_ok=True)
        with part.open("ab" if done else "wb") as file:
            for block in answer.iter_bytes():
                file.write(block)
                done += len(block)
                progress(stage, done, total)
        for step in (*answer.history, answer):
            found: str = step.headers.get("x-linked-etag", "").strip('"')
            if re.fullmatch(r"[0-9a-f]{64}", found):
                return found
    return None


def _check_secure(url: httpx.URL) -> None:
    if url.scheme != "https" and url.host not in ("127.0.0.1", "localhost", "::1"):
        raise ModelError(f"{url} is not https", "models are fetched over https only")


def _tag_file(part: Path) -> Path:
    return part.with_name(f"{part.name.removesuffix('.part')}.etag.part")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _tag_file(part).unlink(missing_ok=True)
