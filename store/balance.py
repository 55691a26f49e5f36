"""Which of the waiting examples a round takes: by age, but no source and no cluster too many.

A pure decision. 50 to 90 poisoned samples are enough to plant a trigger (Souly et al. 2025), so
what looks alike or comes from one place is let in slowly.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

SOURCE_SHARE = "its source has given its share of a round; it waits for the next"
ALIKE_ROUND = "near-duplicates of it are in the round; it waits for the next"
ALIKE = "as many near-duplicates of it as may be are learned"
TAKEN_BACK = "adapters that learned it here were taken back; it waits until another one is live"


@dataclass(frozen=True)
class Caps:
    """`source_share` holds while other sources have something waiting."""

    source_share: float = 0.5
    alike_per_round: int = 4  # of one cluster
    alike: int = 16  # of one cluster, of all rounds together
    from_notes: int = 24  # made out of notes, the weightiest first


@dataclass(frozen=True, slots=True)
class Waiting:
    id: int
    source_id: int | None
    cluster: int | None


@dataclass(frozen=True)
class Chosen:
    ids: list[int]
    held: Mapping[int, str]  # what a cap keeps out of this round, with the reason


def choose(
    first: Iterable[Waiting],
    waiting: Mapping[int | None, Iterable[Waiting]],
    limit: int,
    caps: Caps,
    taught: Callable[[int], int],
) -> Chosen:
    """At most `limit` of them, the lowest number first. `first` are taken in any case, and count.

    `waiting` has what waits by source, in order; `taught` says how many of a cluster are learned.
    Of a source no more is read than has room, and at most `limit` beyond its share, for the reason
    to be noted.
    """
    taken = list(first)[:limit]
    queues = {source: iter(rows) for source, rows in waiting.items()}
    heads = {source: head for source, rows in queues.items() if (head := next(rows, None))}
    sources = Counter(one.source_id for one in taken)
    several = len(heads.keys() | sources.keys()) > 1
    share = max(1, int(limit * caps.source_share)) if several else limit
    clusters = Counter(one.cluster for one in taken)
    learned: dict[int, int] = {}
    over: Counter[int | None] = Counter()  # beyond the share, by source
    held = {}
    ids = [one.id for one in taken]
    while heads and len(ids) < limit:
        one = min(heads.values(), key=lambda head: head.id)
        source = one.source_id
        following = next(queues[source], None)
        if following is None or over[source] >= limit:
            del heads[source]
        else:
            heads[source] = following
        if one.cluster is not None:
            if one.cluster not in learned:
                learned[one.cluster] = taught(one.cluster)
            if learned[one.cluster] + clusters[one.cluster] >= caps.alike:
                held[one.id] = ALIKE
                continue
            if clusters[one.cluster] >= caps.alike_per_round:
                held[one.id] = ALIKE_ROUND
                continue
        if sources[source] >= share:
            held[one.id] = SOURCE_SHARE
            over[source] += 1
            continue
        ids.append(one.id)
        sources[source] += 1
        clusters[one.cluster] += 1
    return Chosen(ids, held)
