#!/bin/sh
# Pack notes and invoices and copy the package to the backup drive.
# Keeps the last eight packages, as long as they are mine.
#
#   backup.sh [DRIVE]        (default: /run/media/$USER/backup)
set -eu

drive=${1:-/run/media/${USER:-$(id -un)}/backup}
keep=8
package="workshop-$(date +%Y-%m-%d-%H%M%S).tar.gz"

if [ ! -d "$drive" ]; then
    echo "no drive at $drive: is it still in its tin?" >&2
    exit 1
fi

cd "$HOME"
set --
for folder in notes invoices; do
    [ -d "$folder" ] && set -- "$@" "$folder"
done
if [ $# -eq 0 ]; then
    echo "neither notes nor invoices in $HOME, so there is nothing to save" >&2
    exit 1
fi

# write under another name first: a drive that is pulled out leaves no half package
tar -czf "$drive/.$package.part" "$@"
tar -tzf "$drive/.$package.part" >/dev/null
mv "$drive/.$package.part" "$drive/$package"
echo "saved $drive/$package"

ls -1 "$drive"/workshop-*.tar.gz | sort -r | tail -n "+$((keep + 1))" |
while IFS= read -r old; do
    rm -- "$old" && echo "removed $old"
done
