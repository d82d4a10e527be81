"""A SkyPilot task: rents the GPUs, trains, and on spot machines goes on elsewhere when they are taken away."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import yaml

from tasklib.launching.plan import Plan

KEPT = "/finetune-llm"  # where the bucket is mounted
MAIN_PORT = 29500

_RUN = """\
set -euo pipefail
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=100  # a spot machine is told about two minutes before it goes
MAIN_HOST=$(echo "$SKYPILOT_NODE_IPS" | head -n 1)
.venv/bin/python -m accelerate.commands.launch --config_file {folder}/accelerate.yaml \\
  --machine_rank "$SKYPILOT_NODE_RANK" --main_process_ip "$MAIN_HOST" --main_process_port {port} \\
  scripts/03_train.py --config {config} --resume
if [ "$SKYPILOT_NODE_RANK" = 0 ]; then
  .venv/bin/python scripts/04_evaluate.py --config {config}
fi
"""
_KEEP = """\
for kept in models benchmarks; do
  mkdir -p {mount}/$kept
  if [ -d "$kept" ] && [ ! -L "$kept" ]; then cp -rn "$kept/." {mount}/$kept/ && rm -r "$kept"; fi
  ln -sfnT {mount}/$kept "$kept"
done
"""


def content(
    plan: Plan, *, task: str, run: str, folder: str, config: str, extras: Sequence[str], gpu: str, bucket: str | None
) -> dict[str, Any]:
    """The task, as `sky jobs launch` reads it.

    gpu: SkyPilot's name of the accelerator, e.g. H100. bucket: where models/ and benchmarks/ are kept, e.g.
    s3://mine/runs; only with it are spot machines used, because without it their loss is the loss of the run. It is
    mounted as MOUNT_CACHED, which can rename folders; plain MOUNT cannot
    (https://docs.skypilot.co/en/latest/reference/storage.html).
    """
    words = "".join(f" --extra {extra}" for extra in extras)
    setup = "command -v uv >/dev/null || python3 -m pip install --user uv\n"
    setup += f"PATH=$HOME/.local/bin:$PATH uv sync{words}\n"
    resources: dict[str, Any] = {"accelerators": f"{gpu}:{plan.machines.gpus_per_node}", "disk_size": 200}
    found: dict[str, Any] = {"name": f"{task}-{run}", "workdir": ".", "num_nodes": plan.machines.n_nodes}
    if bucket:
        resources |= {"use_spot": True, "job_recovery": "FAILOVER"}
        found["file_mounts"] = {KEPT: {"source": bucket, "mode": "MOUNT_CACHED"}}
        setup += _KEEP.format(mount=KEPT)
    run_text = _RUN.format(folder=folder, config=config, port=MAIN_PORT)
    return found | {"resources": resources, "setup": setup, "run": run_text}


def text(plan: Plan, **names: Any) -> str:
    return yaml.dump(content(plan, **names), Dumper=_Blocks, sort_keys=False, allow_unicode=True)


def accelerator(name: str | None) -> str | None:
    """SkyPilot's name of a GPU as nvidia-smi calls it ("NVIDIA H100 80GB HBM3" is H100); None where it is not plain."""
    found = re.search(r"\b(H100|H200|A100|A10G|A10|L40S|L40|L4|T4|V100|B200|RTX ?\d{4})\b", name or "")
    if not found:
        return None
    if found[1] == "A100" and "80GB" in name:
        return "A100-80GB"
    return found[1].replace(" ", "")


class _Blocks(yaml.SafeDumper):
    """Texts of several lines as they are."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Blocks.add_representer(str, _text)
