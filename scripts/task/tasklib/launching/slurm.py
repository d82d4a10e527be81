"""A Slurm batch script: trains, is asked to stop before its time is up, puts itself back into the queue, goes on."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from string import Template

from tasklib.launching.plan import Plan

GRACE_S = 300  # how long before the end of its time a run is asked to stop with a checkpoint
CPUS_PER_GPU = 4

# srun's processes alone get the signal (--signal without B:), so the shell here lives to requeue the job. A job that is
# preempted, or whose node fails, is requeued by Slurm itself (--requeue). Source: sbatch(1).
_SCRIPT = Template("""#!/bin/bash
# $title
# In the task's folder, which every node must see:  sbatch $script
# Only whether it would be accepted, and when:      sbatch --test-only $script
#SBATCH --job-name=$task-$run
#SBATCH --nodes=$n_nodes
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=$gpus_per_node
#SBATCH --cpus-per-task=$cpus
#SBATCH --time=$time
#SBATCH --signal=TERM@$grace_s
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=$folder/slurm-%j.log
${options}set -uo pipefail
cd "$${SLURM_SUBMIT_DIR:?}" || exit 2

export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=$grace_s  # how long the launcher waits for a checkpoint; by itself 30 s
export OMP_NUM_THREADS="$${OMP_NUM_THREADS:-$cpus_per_gpu}"
export PYTHON="$${PYTHON:-$$PWD/.venv/bin/python}"
if [[ ! -x $$PYTHON ]]; then
  echo "no $$PYTHON: make the environment first, here: $sync" >&2
  exit 4
fi
MAIN_HOST=$$(scontrol show hostnames "$${SLURM_JOB_NODELIST:?}" | head -n 1)
MAIN_PORT=$$((20000 + SLURM_JOB_ID % 20000))  # two jobs on one node do not meet
export MAIN_HOST MAIN_PORT

code=0
srun bash -c 'exec "$$PYTHON" -m accelerate.commands.launch --config_file $folder/accelerate.yaml \\
  --machine_rank "$$SLURM_NODEID" --main_process_ip "$$MAIN_HOST" --main_process_port "$$MAIN_PORT" \\
  scripts/03_train.py --config $config --resume' || code=$$?
if ((code)); then
  if grep -q '"status": "stopped"' models/$run/run.json; then
    echo "== stopped with a checkpoint: back into the queue"
    scontrol requeue "$$SLURM_JOB_ID"
  fi
  exit "$$code"
fi
exec srun --nodes=1 --ntasks=1 "$$PYTHON" scripts/04_evaluate.py --config $config
""")


def text(
    plan: Plan, *, task: str, run: str, folder: str, config: str, sync: str, hours: float, options: Mapping[str, str]
) -> str:
    """The script.

    folder: where it and accelerate.yaml lie; config: the run's config; both below the task's folder, of names that mean
    nothing to a shell (`launch.py` refuses others). sync: the command that makes the environment. options: more of
    sbatch's, e.g. {"partition": "gpu"}.
    """
    machines, minutes = plan.machines, max(1, round(hours * 60))
    return _SCRIPT.substitute(
        title=f"{task}, run {run}: {machines.n_nodes} x {machines.gpus_per_node} GPUs, {plan.distributed_type}",
        script=f"{folder}/train.sbatch",
        task=task,
        run=run,
        folder=folder,
        config=config,
        n_nodes=machines.n_nodes,
        gpus_per_node=machines.gpus_per_node,
        cpus=CPUS_PER_GPU * machines.gpus_per_node,
        cpus_per_gpu=CPUS_PER_GPU,
        time=f"{minutes // 60:02d}:{minutes % 60:02d}:00",
        grace_s=GRACE_S,
        options="".join(f"#SBATCH --{name}={shlex.quote(value)}\n" for name, value in options.items()),
        sync=sync,
    )
