# Sourced: puts uv on PATH, in a private environment of its own when the machine has none. Needs Python >= 3.11 with pip.
if ! command -v uv >/dev/null; then
  uv_home="${XDG_CACHE_HOME:-$HOME/.cache}/finetune-llm/uv"
  if [[ ! -x $uv_home/bin/uv ]]; then
    if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "Python 3.11 or newer is needed (python3 is $(python3 --version 2>&1 || echo missing)); or install uv yourself" >&2
      exit 4
    fi
    echo "uv is not installed: getting it into $uv_home" >&2
    python3 -m venv "$uv_home"
    "$uv_home/bin/python" -m pip install --quiet uv
  fi
  PATH="$uv_home/bin:$PATH"
fi
