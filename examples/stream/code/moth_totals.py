#!/usr/bin/env python3
"""Sum up the moth trap log.

The log is a CSV file with the columns night,temp,species,count, e.g.

    2026-11-04,5,December moth,2

Usage: moth_totals.py LOG.csv [--month 11]
"""

import argparse
import csv
from collections import defaultdict
from datetime import date
from pathlib import Path


def read_log(path):
    """Yield (night, temperature, species, count) for each row."""
    with path.open(newline="", encoding="utf-8") as handle:
        for number, row in enumerate(csv.DictReader(handle), start=2):
            try:
                yield (
                    date.fromisoformat(row["night"]),
                    float(row["temp"]),
                    row["species"].strip(),
                    int(row["count"]),
                )
            except (KeyError, ValueError) as problem:
                raise SystemExit(f"{path}, line {number}: {problem}") from None


def summarise(rows, month=None):
    totals = defaultdict(int)
    first_seen = {}
    coldest = {}
    for night, temp, species, count in rows:
        if month is not None and night.month != month:
            continue
        totals[species] += count
        first_seen[species] = min(night, first_seen.get(species, night))
        coldest[species] = min(temp, coldest.get(species, temp))
    return totals, first_seen, coldest


def main():
    parser = argparse.ArgumentParser(description="Sum up the moth trap log.")
    parser.add_argument("log", type=Path)
    parser.add_argument("--month", type=int, choices=range(1, 13))
    args = parser.parse_args()

    totals, first_seen, coldest = summarise(read_log(args.log), args.month)
    if not totals:
        print("Nothing caught. Go to bed.")
        return
    for species, total in sorted(totals.items(), key=lambda item: (-item[1], item[0])):
        print(
            f"{species:<24}{total:>5}   first {first_seen[species]}"
            f"   coldest {coldest[species]:.0f}"
        )
    print(f"{'all together':<24}{sum(totals.values()):>5}")


if __name__ == "__main__":
    main()
