#!/bin/sh
# Makes .venv and installs everything into it. `make setup` calls it; it may be run again any time.
# What pip fetches from where is left to pip's own configuration.
set -eu
cd "$(dirname "$0")/.."
venv=.venv
log=$venv/set-up.log
python=${PYTHON:-python3}

die() { # one line that says what is wrong, one that says what to do
    printf '\nset-up: %s\n        %s\n' "$1" "$2" >&2
    exit 1
}

check_python() {
    command -v "$python" >/dev/null 2>&1 ||
        die "no $python found" "install Python 3.11 or newer, or name one: make setup PYTHON=/path/to/python3"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        die "$python is $("$python" -V 2>&1); Acclimate needs 3.11 or newer" \
            "install a newer one and name it: make setup PYTHON=python3.12"
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        die "$python cannot make virtual environments" "Debian, Ubuntu: apt install python3-venv"
}

check_compiler() { # only where llama-cpp-python still has to be compiled
    work=$(mktemp -d)
    printf '#include <vector>\nint main() { return std::vector<int>(1)[0]; }\n' >"$work/try.cpp"
    printf 'int main(void) { return 0; }\n' >"$work/try.c"
    works=no
    "${CXX:-c++}" -o "$work/try" "$work/try.cpp" >/dev/null 2>&1 &&
        "${CC:-cc}" -o "$work/try" "$work/try.c" >/dev/null 2>&1 && works=yes
    rm -rf "$work"
    [ $works = yes ] ||
        die "no working C and C++ compiler (llama-cpp-python is compiled on this machine)" \
            "Debian, Ubuntu: apt install g++ | Fedora: dnf install gcc-c++ | macOS: xcode-select --install"
}

step() { # says what it does, runs it, and shows that it moves
    printf '%s\n' "$1"
    shift
    began=$(date +%s)
    shown=$began
    printf '\n$ %s\n' "$*" >>"$log"
    # In a process group of its own, so that an interrupt ends pip's compilers too.
    "$venv/bin/python" -c 'import os, sys; os.setsid(); os.execvp(sys.argv[1], sys.argv[1:])' \
        "$@" >>"$log" 2>&1 </dev/null &
    child=$!
    trap 'kill -TERM -"$child" 2>/dev/null || true; exit 130' INT TERM
    while kill -0 "$child" 2>/dev/null; do
        sleep 1
        now=$(date +%s)
        spent=$(printf '%d:%02d' $(((now - began) / 60)) $(((now - began) % 60)))
        last=$(tail -n 1 "$log" | tr -d '\r' | cut -c 1-"$width")
        if [ -t 1 ]; then
            printf '\r\033[K  %s  %s' "$spent" "$last"
        elif [ $((now - shown)) -ge 20 ]; then
            printf '  %s  %s\n' "$spent" "$last"
            shown=$now
        fi
    done
    if [ -t 1 ]; then printf '\r\033[K'; fi
    trap - INT TERM
    if ! wait "$child"; then
        tail -n 25 "$log" >&2
        die "that failed; the lines above are the end of $log" "mend the cause, then run it again: it goes on from here"
    fi
}

width=100
if [ -t 1 ]; then width=$(($(tput cols 2>/dev/null || echo 80) - 12)); fi

has() { "$venv/bin/python" -c "import importlib.metadata as m; m.version('$1')" 2>/dev/null; }

# Not for this very processor, but for any of the last ten years: a portable folder is carried to
# others, and AVX-512 made llama.cpp slower where it was tried (docs/performance.md).
if [ -z "${CMAKE_ARGS+set}" ] && grep -qw avx2 /proc/cpuinfo 2>/dev/null; then
    export CMAKE_ARGS=-DGGML_NATIVE=OFF
fi

check_python
has llama_cpp_python || check_compiler
"$venv/bin/python" -c 'import pip' 2>/dev/null || {
    printf 'Making %s with %s\n' "$venv" "$("$python" -V)"
    "$python" -m venv --clear "$venv"
}
pip() { # named so that the log reads well
    step "$1" "$venv/bin/python" -m pip --disable-pip-version-check --no-input install -c constraints.txt "$2" "$3"
}
: >"$log"
# torch comes first and alone: nothing else may choose its version or build.
has torch || pip 'Installing torch: a large download' --progress-bar=off torch
has llama_cpp_python ||
    pip 'Installing llama-cpp-python: it compiles for 5-10 minutes, once (pip keeps the result)' -v llama-cpp-python
pip 'Installing Acclimate and its other dependencies' -e '.[dev]'
"$venv/bin/python" -m compileall -q adapters daemon store # a third of a start otherwise
printf 'Ready: %s/bin/acclimate\n' "$venv"
