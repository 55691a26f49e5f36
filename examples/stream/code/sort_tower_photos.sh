#!/usr/bin/env bash
# Sort inspection photos from the camera card into one folder for each tower.
# File names begin with the tower, as typed in on the camera: t07_0012.jpg
# Usage: sort_tower_photos.sh CARD TARGET

set -euo pipefail

if [ "$#" -ne 2 ]; then
    echo "usage: $0 CARD TARGET" >&2
    exit 2
fi

card=$1
target=$2
moved=0
left=0

shopt -s nullglob nocaseglob
for photo in "$card"/*.jpg; do
    name=$(basename "$photo")
    if [[ $name =~ ^[tT]([0-9]{2})_ ]]; then
        folder="$target/tower-${BASH_REMATCH[1]}"
        mkdir -p "$folder"
        # -n: never overwrite a picture that is there already
        mv -n -- "$photo" "$folder/"
        moved=$((moved + 1))
    else
        echo "no tower in the name: $name" >&2
        left=$((left + 1))
    fi
done

echo "$moved sorted, $left left on the card"
