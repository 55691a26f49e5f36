#!/usr/bin/env bash
# Copy fitting photos into one folder per day: fittings/2026-12-07/IMG_0001.jpg
# Usage: label_fittings.sh SOURCE TARGET
set -euo pipefail

if [ "$#" -ne 2 ]; then
    echo "usage: ${0##*/} SOURCE TARGET" >&2
    exit 2
fi

source_dir=$1
target_dir=$2
copied=0

while IFS= read -r -d '' photo; do
    day=$(date -r "$photo" +%Y-%m-%d)
    mkdir -p -- "$target_dir/$day"
    copy="$target_dir/$day/${photo##*/}"
    if [ ! -e "$copy" ]; then
        cp -p -- "$photo" "$copy"
        copied=$((copied + 1))
    fi
done < <(find "$source_dir" -type f -iname '*.jpg' -print0)

echo "$copied new photos in $target_dir"
