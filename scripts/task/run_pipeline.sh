#!/usr/bin/env bash
# Runs the stages of one run in order and stops at the first that fails. What is done already is skipped by each stage.
set -euo pipefail

stages=(validate convert baselines train evaluate test card upload)
usage() {
  cat <<TEXT
usage: run_pipeline.sh [--config FILE] [--from STAGE] [--until STAGE] [--dry-run | --remote]

stages, in order: ${stages[*]}
  baselines   what must be beaten, on validation, before any training
  test        one look at the test rows, recorded in benchmarks/test_looks.jsonl
  upload      only checks what an upload would need; to upload: scripts/05_upload_hf.py

  --config    run config (default: configs/baseline.yaml)
  --remote    baselines to test on the server of compute.remote (scripts/remote.py); the rest here. Whatever is cut off:
              the same command goes on
  --dry-run   run all stages on 16 rows and 2 steps in a temporary copy of the task, which is removed afterwards

The environment variable PYTHON names an interpreter to use instead of 'uv run python'.
Exit code: that of the stage that stopped; 0 when all went well, 2 for wrong usage.
TEXT
}

config=configs/baseline.yaml from=${stages[0]} until=${stages[-1]} dry_run= remote=
while (($#)); do
  case $1 in
    --config | --from | --until)
      (($# > 1)) || { echo "run_pipeline.sh: $1 needs a value" >&2; exit 2; }
      case $1 in --config) config=$2 ;; --from) from=$2 ;; --until) until=$2 ;; esac
      shift 2 ;;
    --dry-run) dry_run=yes; shift ;;
    --remote) remote=yes; shift ;;
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
if [[ -n $dry_run && -n $remote ]]; then
  echo "run_pipeline.sh: --dry-run is for this machine; to look at the server: scripts/remote.py doctor" >&2
  exit 2
fi
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

# What scripts/launch.py wrote for the GPUs of this machine: training is then several processes.
launcher=() launched=$work/launch/$(basename "${config%.*}")/accelerate.yaml
if [[ -z $dry_run && -f $launched ]] && grep -qx 'num_machines: 1' "$launched"; then
  launcher=(-m accelerate.commands.launch --config_file "$launched")
fi

run_stage() {
  case $1 in
    validate) python "$work/scripts/01_validate_data.py" ;;
    convert) python "$work/scripts/02_convert_format.py" ;;
    baselines) python "$work/scripts/04_evaluate.py" --config "$config" "${limits[@]}" --baselines-only ;;
    train) python "${launcher[@]}" "$work/scripts/03_train.py" --config "$config" "${limits[@]}" --resume ;;
    evaluate) python "$work/scripts/04_evaluate.py" --config "$config" "${limits[@]}" ;;
    test) python "$work/scripts/04_evaluate.py" --config "$config" "${limits[@]}" --split test ;;
    card) python "$work/scripts/05_upload_hf.py" --config "$config" "${rows[@]}" --card-only ;;
    upload) python "$work/scripts/05_upload_hf.py" --config "$config" "${rows[@]}" --dry-run ;;
  esac
}

# What the server does up to a stage, and its results brought here; a gate that is not met (exit 5) is a result too.
run_there() {
  local ended=0
  python "$work/scripts/remote.py" run --config "$config" --until "$1" --follow || ended=$?
  if ((ended == 0 || ended == 5)); then
    python "$work/scripts/remote.py" pull --config "$config" || return $?
  fi
  return "$ended"
}

baselines=$(position baselines) test=$(position test)
for ((i = first; i <= last; i++)); do
  stage=${stages[i]}
  echo "== $stage ($((i + 1)) of ${#stages[@]})"
  code=0
  if [[ -n $remote ]] && ((i >= baselines && i <= test)); then
    i=$((last < test ? last : test))
    run_there "${stages[i]}" || code=$?
  else
    run_stage "$stage" || code=$?
  fi
  if ((code)); then
    echo "== stopped at $stage (exit $code); when that is mended: bash scripts/run_pipeline.sh --config $config --from $stage" >&2
    exit "$code"
  fi
done
if [[ -n $dry_run ]]; then echo "== dry run done: every stage works on 16 rows; nothing was kept"; fi
