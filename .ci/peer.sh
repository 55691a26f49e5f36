#!/bin/sh
# Makes .venv-peer with llama.cpp's own server in it, which benchmarks/serving.py is measured beside.
# `make bench` calls it. Its wheel has no place in .venv: Acclimate does not use it.
set -eu
cd "$(dirname "$0")/.."
venv=.venv-peer
wanted=xllamacpp==2026.10.11549
"${PYTHON:-python3}" -m venv "$venv"
"$venv/bin/python" -m pip --disable-pip-version-check --no-input install --quiet "$wanted"
"$venv/bin/python" -c 'import xllamacpp'
printf 'Ready: %s with %s\n' "$venv" "$wanted"
