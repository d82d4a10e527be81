"""llama.cpp's server out of the package xllamacpp, in a process of its own.

xllamacpp_server.py MODEL N_CTX N_PARALLEL PORT; it ends when its standard input does, so that it never outlives
whoever started it.
"""

from __future__ import annotations

import os
import sys


def main(model: str, n_ctx: str, n_parallel: str, port: str) -> None:
    """Serves until standard input ends."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = model
    params.n_ctx, params.n_parallel, params.port, params.warmup = int(n_ctx), int(n_parallel), int(port), False
    params.use_jinja = True
    params.cpuparams.n_threads = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    server = xllamacpp.Server(params)
    sys.stdin.read()
    del server


if __name__ == "__main__":
    main(*sys.argv[1:])
