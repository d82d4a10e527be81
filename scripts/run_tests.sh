#!/usr/bin/env bash
# Installs what the tests need through uv and runs every test: fast ones first, then those that train a real model.
# Arguments go to pytest, e.g.: bash scripts/run_tests.sh -k schema
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/find_uv.sh
# compiled here: where PYTHONDONTWRITEBYTECODE is set, every process of a test would compile torch and trl again
uv sync --quiet --group test --compile-bytecode
# one thread a process: with several processes on few cores, OpenMP threads wait for each other
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" TOKENIZERS_PARALLELISM=false
uv run --quiet --group test ruff check .
uv run --quiet --group test ruff format --check .
exec uv run --quiet --group test python -m pytest -n 2 --dist loadscope "$@"
