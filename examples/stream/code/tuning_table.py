#!/usr/bin/env python3
"""Print the frequencies of all 88 keys for a given pitch.

python tuning_table.py             # at A = 442
python tuning_table.py --pitch 415 --from C3 --to C5
"""

import argparse
import re

NAMES = ["C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B"]
A4 = 49  # number of the tuning A, counted from the lowest key


def key_name(key: int) -> str:
    """Key 1 is A0, key 88 is C8."""
    step = key + 8
    return f"{NAMES[step % 12]}{step // 12}"


def key_number(name: str) -> int:
    match = re.fullmatch(r"([A-G]#?)([0-8])", name)
    if match is None or match[1] not in NAMES:
        raise argparse.ArgumentTypeError(f"{name!r} is not a key; write it like A4 or F#3")
    key = NAMES.index(match[1]) + 12 * int(match[2]) - 8
    if not 1 <= key <= 88:
        raise argparse.ArgumentTypeError(f"{name} is not on the keyboard")
    return key


def frequency(key: int, pitch: float) -> float:
    return float(pitch * 2 ** ((key - A4) / 12))


def beats_of_fifth(key: int, pitch: float) -> float:
    """How fast the fifth above this key beats when it is tempered, per second."""
    return abs(3 * frequency(key, pitch) - 2 * frequency(key + 7, pitch))


def main() -> None:
    parser = argparse.ArgumentParser(description="Frequencies of the 88 keys.")
    parser.add_argument("--pitch", type=float, default=442.0, help="A above middle C, in hertz")
    parser.add_argument("--from", dest="first", type=key_number, default=1, metavar="KEY")
    parser.add_argument("--to", dest="last", type=key_number, default=88, metavar="KEY")
    args = parser.parse_args()

    print(f"{'key':>3}  {'name':<4} {'Hz':>9}  fifth beats/s")
    for key in range(args.first, args.last + 1):
        beats = f"{beats_of_fifth(key, args.pitch):.2f}" if key + 7 <= 88 else "-"
        print(f"{key:>3}  {key_name(key):<4} {frequency(key, args.pitch):>9.3f}  {beats:>8}")


if __name__ == "__main__":
    main()
