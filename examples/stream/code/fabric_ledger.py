#!/usr/bin/env python3
"""Sum up the fabric that a show has used.

The ledger is a CSV file with the columns show,fabric,metres,price, e.g.

    ferryman,grey blanket wool,11.0,18.50

Usage: fabric_ledger.py LEDGER.csv SHOW
"""

import argparse
import csv
from collections import defaultdict
from decimal import Decimal, InvalidOperation
from pathlib import Path


class LedgerError(Exception):
    """A row of the ledger cannot be used."""


def read_ledger(path, show):
    """Yield (fabric, metres, price per metre) for each row of one show."""
    with path.open(newline="", encoding="utf-8") as handle:
        for number, row in enumerate(csv.DictReader(handle), start=2):
            try:
                if row["show"].strip() != show:
                    continue
                yield row["fabric"].strip(), Decimal(row["metres"]), Decimal(row["price"])
            except (KeyError, InvalidOperation) as error:
                raise LedgerError(f"{path}, line {number}: {error!r}") from error


def total_by_fabric(rows):
    """Return a dictionary from fabric to [metres, cost]."""
    totals = defaultdict(lambda: [Decimal(0), Decimal(0)])
    for fabric, metres, price in rows:
        totals[fabric][0] += metres
        totals[fabric][1] += metres * price
    return totals


def main():
    parser = argparse.ArgumentParser(description="Sum up the fabric that a show has used.")
    parser.add_argument("ledger", type=Path)
    parser.add_argument("show")
    args = parser.parse_args()

    try:
        totals = total_by_fabric(read_ledger(args.ledger, args.show))
    except (OSError, LedgerError) as error:
        raise SystemExit(f"fabric_ledger: {error}") from error

    for fabric, (metres, cost) in sorted(totals.items()):
        print(f"{fabric:<30} {metres:>8.1f} m {cost:>10.2f}")
    print(f"{'total':<30} {'':>10} {sum(cost for _, cost in totals.values()):>10.2f}")


if __name__ == "__main__":
    main()
