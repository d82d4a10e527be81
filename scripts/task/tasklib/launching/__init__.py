"""One run on several GPUs: how it is shared out, and what starts it by accelerate, Slurm or SkyPilot."""
