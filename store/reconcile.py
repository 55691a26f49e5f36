"""Makes folders and rows agree again after a crash, towards the last committed transaction.

Run at start, before anything is served, by whoever holds the home's lock.
"""

from acclimate.store import ledger, retire
from acclimate.store.db import Db
from acclimate.store.errors import Detached
from acclimate.store.files import TEMP_PREFIX, Home, parse_version, remove_tree, version_name


def reconcile(db: Db, home: Home) -> list[str]:
    """Returns what was done, a line each.

    Raises Detached rather than believe that every folder is gone.
    """
    if not home.attached():
        raise Detached(f"the home {home.root} is not there", "plug its drive in again")
    return [*_rounds(db, home), *_folders(db, home), *_live(db, home), *_forgotten(db, home)]


def _rounds(db: Db, home: Home) -> list[str]:
    """Rounds that nobody runs any more, and their folders: they hold the person's own words."""
    done = []
    for row in db.read().execute("SELECT id FROM rounds WHERE state = 'running'").fetchall():
        ledger.finish_round(db, row["id"], "failed", error="interrupted")
        done.append(f"round {row['id']} had been interrupted")
    folder = home.cache / "rounds"
    for path in folder.iterdir() if folder.is_dir() else ():
        remove_tree(path)
    return done


def _folders(db: Db, home: Home) -> list[str]:
    done = []
    known = {a.version for a in ledger.adapters(db)}
    for path in sorted(home.adapters.iterdir()):
        try:
            leftover = parse_version(path.name) not in known
        except ValueError:
            leftover = path.name.startswith(TEMP_PREFIX)
        if leftover:
            remove_tree(path)
            done.append(f"removed {path.name}, which was never published")
    return done


def _live(db: Db, home: Home) -> list[str]:
    done = []
    serving = ledger.live(db)
    for a in ledger.adapters(db):
        # Hashing is for the one that is about to serve; the rest are checked when they load.
        whole = a.state != "ok" or ledger.whole(home, a, check_hash=a.version == serving)
        if not whole:
            done.append(_retire(db, a.version))
    while serving is not None and ledger.adapter(db, serving).state != "ok":
        serving = ledger.adapter(db, serving).parent
        if serving is None:
            break
        a = ledger.adapter(db, serving)
        if a.state == "ok" and not ledger.whole(home, a, check_hash=True):
            done.append(_retire(db, serving))
    if serving != ledger.live(db):
        ledger.set_live(db, serving, "repair")
        done.append(f"live is {'base' if serving is None else version_name(serving)} now")
    return done


def _retire(db: Db, version: int) -> str:
    with db.write() as conn:
        conn.execute("UPDATE adapters SET state = 'retired' WHERE version = ?", (version,))
    return f"{version_name(version)} is missing or damaged and was retired"


def _forgotten(db: Db, home: Home) -> list[str]:
    """What a forgetting that was decided and then cut short has left."""
    # Half-written files of these names may hold what was forgotten since.
    for pattern in (f"{TEMP_PREFIX}{home.chat_history.name}-*", f"{TEMP_PREFIX}{home.index.name}*"):
        for path in home.root.glob(pattern):
            path.unlink(missing_ok=True)
    return retire.clear(db, home, lambda: home.index.unlink(missing_ok=True))
