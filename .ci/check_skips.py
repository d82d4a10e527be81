"""Fails when pytest's `-ra` output holds a skip whose reason no line of the allow-list contains."""

from __future__ import annotations

import sys
from pathlib import Path


def main(log: str, allow_list: str) -> int:
    lines = Path(allow_list).read_text(encoding="utf-8").splitlines()
    allowed = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    skips = [line for line in Path(log).read_text(encoding="utf-8").splitlines() if line.startswith("SKIPPED")]
    surprises = [line for line in skips if not any(reason in line for reason in allowed)]
    for line in surprises:
        print(f"not on the allow-list: {line}", file=sys.stderr)
    return 1 if surprises else 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
