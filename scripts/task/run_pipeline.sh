#!/usr/bin/env bash
# Runs the stages of one run in order and stops at the first that fails. What is done already is skipped by each stage.
set -euo pipefail

stages=(validate convert baselines train evaluate test card upload)
usage() {
  cat <<TEXT
usage: run_pipeline.sh [--config FILE] [--from STAGE] [--until STAGE] [--dry-run]

stages, in order: ${stages[*]}
  baselines   what must be beaten, on validation, before any training
  test        one look at the test rows, recorded in benchmarks/test_looks.jsonl
  upload      only checks what an upload would need; to upload: scripts/05_upload_hf.py

  --config    run config (default: configs/baseline.yaml)
  --dry-run   run all stages on 16 rows and 2 steps in a temporary copy of the task, which is removed afterwards

The environment variable PYTHON names an interpreter to use instead of 'uv run python'.
Exit code: that of the stage that stopped; 0 when all went well, 2 for wrong usage.
TEXT
}

config=configs/baseline.yaml from=${stages[0]} until=${stages[-1]} dry_run=
while (($#)); do
  case $1 in
    --config | --from | --until)
      (($# > 1)) || { echo "run_pipeline.sh: $1 needs a value" >&2; exit 2; }
      case $1 in --config) config=$2 ;; --from) from=$2 ;; --until) until=$2 ;; esac
      shift 2 ;;
    --dry-run) dry_run=yes; shift ;;
    -h | --help) usage; exit 0 ;;
    *) echo "run_pipeline.sh: unknown argument $1" >&2; usage >&2; exit 2 ;;
  esac
done

position() {
  local i
  for i in "${!stages[@]}"; do
    if [[ ${stages[i]} == "$1" ]]; then echo "$i"; return; fi
  done
  echo "run_pipeline.sh: unknown stage $1; stages: ${stages[*]}" >&2
  exit 2
}
first=$(position "$from")
last=$(position "$until")

task=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$task"
python() { if [[ -n ${PYTHON:-} ]]; then "$PYTHON" "$@"; else uv run --project "$task" python "$@"; fi; }
if [[ -z ${PYTHON:-} ]] && ! command -v uv >/dev/null; then
  echo "run_pipeline.sh: uv is not on PATH; install it (https://docs.astral.sh/uv/) or set PYTHON" >&2
  exit 4
fi

work=$task limits=() rows=()
if [[ -n $dry_run ]]; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  mkdir -p "$work/data"
  cp -R "$task"/{task_definition.yaml,configs,scripts} "$work/"
  cp -R "$task/data/raw" "$work/data/"
  rows=(--limit 16)
  limits=("${rows[@]}" --set training.max_steps=2)
fi

run_stage() {
  case $1 in
    validate) python "$work/scripts/01_validate_data.py" ;;
    convert) python "$work/scripts/02_convert_format.py" ;;
    baselines) python "$work/scripts/04_evaluate.py" --config "$config" "${limits[@]}" --baselines-only ;;
    train) python "$work/scripts/03_train.py" --config "$config" "${limits[@]}" --resume ;;
    evaluate) python "$work/scripts/04_evaluate.py" --config "$config" "${limits[@]}" ;;
    test) python "$work/scripts/04_evaluate.py" --config "$config" "${limits[@]}" --split test ;;
    card) python "$work/scripts/05_upload_hf.py" --config "$config" "${rows[@]}" --card-only ;;
    upload) python "$work/scripts/05_upload_hf.py" --config "$config" "${rows[@]}" --dry-run ;;
  esac
}

for ((i = first; i <= last; i++)); do
  stage=${stages[i]}
  echo "== $stage ($((i + 1)) of ${#stages[@]})"
  code=0
  run_stage "$stage" || code=$?
  if ((code)); then
    echo "== stopped at $stage (exit $code); when that is mended: bash scripts/run_pipeline.sh --config $config --from $stage" >&2
    exit "$code"
  fi
done
if [[ -n $dry_run ]]; then echo "== dry run done: every stage works on 16 rows; nothing was kept"; fi
