"""The script that starts Acclimate from a portable folder.

Knows the folder's layout, and names no place outside of it.
"""

import contextlib
from pathlib import Path

from acclimate.store.files import atomic_write

LAUNCHER = """\
#!/bin/sh
# Starts Acclimate from this folder, wherever the folder is now.
set -eu
self=$0
while [ -h "$self" ]; do
    link=$(readlink "$self")
    case $link in
        /*) self=$link ;;
        *) self=$(dirname "$self")/$link ;;
    esac
done
here=$(CDPATH= cd -- "$(dirname "$self")" && pwd -P)
# No files beside the program, none of the host's packages, none of the folder it is started in.
export PYTHONDONTWRITEBYTECODE=1 PYTHONNOUSERSITE=1 PYTHONSAFEPATH=1
export ACCLIMATE_HOME="$here/home"
program=$here/program
if [ ! -d "$program" ]; then
    exec "${ACCLIMATE_PYTHON:-python3}" -m acclimate.daemon "$@"
fi
made_for=$(cat "$program/platform")
if [ "$(uname -sm)" != "$made_for" ]; then
    echo "acclimate: this program is for $made_for, this computer is $(uname -sm)" >&2
    exit 1
fi
if [ ! -x "$program/bin/python" ]; then
    echo "acclimate: programs cannot run from this drive (mounted noexec?)" >&2
    exit 1
fi
export PYTHONHOME="$program" PYTHONPATH="$program/site-packages"
case $made_for in
    Darwin*) export DYLD_LIBRARY_PATH="$program/lib${DYLD_LIBRARY_PATH:+:$DYLD_LIBRARY_PATH}" ;;
    *) export LD_LIBRARY_PATH="$program/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" ;;
esac
exec "$program/bin/python" -m acclimate.daemon "$@"
"""


def write_launcher(folder: Path) -> Path:
    """Put the script `acclimate` into `folder`."""
    path = folder / "acclimate"
    atomic_write(path, LAUNCHER.encode(), 0o755)
    with contextlib.suppress(OSError):  # no modes on exFAT; elsewhere whatever the umask
        path.chmod(0o755)
    return path
