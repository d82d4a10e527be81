#!/usr/bin/env bash
# From nothing to an evaluated model: creates tasks/demo-financial-sentiment in the current folder and runs its pipeline
# on a small model that needs no account, no GPU and no Hub. A second call skips what is done.
set -euo pipefail

bundle=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$bundle/scripts/find_uv.sh"
task=$PWD/tasks/demo-financial-sentiment
started=$SECONDS

if [[ ! -f $task/task_definition.yaml ]]; then
  uv run --quiet "$bundle/scripts/create_task.py" --tasks-dir "$PWD/tasks" \
    --answers "$bundle/templates/examples/financial-sentiment/answers.yaml"
fi
echo "== environment (downloads on first use)"
uv sync --quiet --project "$task"
downloaded=$SECONDS

code=0
bash "$task/scripts/run_pipeline.sh" || code=$?
if [[ -f $task/benchmarks/baseline/test/metrics.json ]]; then
  echo
  uv run --quiet --project "$task" python "$task/scripts/04_evaluate.py" --split test || true
  cat <<TEXT

Environment $((downloaded - started)) s, pipeline $((SECONDS - downloaded)) s.
Report: $task/benchmarks/baseline/test/report.html

Next:
  cd $task${uv_home:+ && export PATH=\"$uv_home/bin:\$PATH\"}
  uv run python scripts/predict.py '第三季毛利率低於市場預期，公司下修全年展望'
  uv run python scripts/05_upload_hf.py --dry-run
  uv run $bundle/scripts/create_task.py --help     # your own data
TEXT
fi
exit "$code"
