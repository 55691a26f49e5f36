#!/usr/bin/env python3
"""Add up the invoices and say who still owes me money.

The file is a CSV with the columns number, date, customer, amount, paid;
"paid" is a date, or empty. Invoices are due after 28 days.

    python invoices.py invoices.csv --today 2026-09-18
"""

import argparse
import csv
import sys
from collections import Counter
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path

DUE_AFTER = timedelta(days=28)


@dataclass(frozen=True)
class Invoice:
    number: str
    written: date
    customer: str
    amount: Decimal
    paid: date | None

    def days_late(self, today: date) -> int:
        if self.paid is not None:
            return 0
        return max(0, (today - self.written - DUE_AFTER).days)


def read(path: Path) -> list[Invoice]:
    invoices = []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        for row in reader:
            try:
                invoices.append(
                    Invoice(
                        number=row["number"],
                        written=date.fromisoformat(row["date"]),
                        customer=row["customer"].strip(),
                        amount=Decimal(row["amount"]),
                        paid=date.fromisoformat(row["paid"]) if row["paid"] else None,
                    )
                )
            except (KeyError, ValueError, InvalidOperation) as error:
                sys.exit(f"{path}, line {reader.line_num}: {error!r}")
    return invoices


def main() -> None:
    parser = argparse.ArgumentParser(description="Add up the invoices.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--today", type=date.fromisoformat, default=date.today())
    args = parser.parse_args()

    invoices = read(args.file)
    total = sum((i.amount for i in invoices), Decimal(0))
    unpaid = sum((i.amount for i in invoices if i.paid is None), Decimal(0))
    print(f"{len(invoices)} invoices, {total} in all, {unpaid} not yet paid")

    # the mistake that I make: the same invoice typed in twice
    for number, times in Counter(i.number for i in invoices).items():
        if times > 1:
            print(f"careful: invoice {number} is there {times} times")

    late = [i for i in invoices if i.days_late(args.today)]
    for invoice in sorted(late, key=lambda i: i.written):
        days = invoice.days_late(args.today)
        print(f"{invoice.customer}: {invoice.amount}, {days} days late (no. {invoice.number})")


if __name__ == "__main__":
    main()
