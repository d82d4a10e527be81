"""What the exit status of every script means."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What the exit status of every script means."""

    OK = 0
    BUG = 1
    USAGE = 2
    DATA = 3
    PREREQUISITE = 4
    GATE = 5
    INTERRUPTED = 130


EXIT_CODE_HELP = """exit codes:
  0 ok            1 a bug in the script       2 usage or configuration
  3 data invalid  4 prerequisite missing      5 quality gate not met
  130 interrupted"""
