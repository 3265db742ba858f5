"""The images that components name until `pipelines/targets.py` gives them the ones of a target."""

CPU_IMAGE, GPU_IMAGE = "natix-cpu:latest", "natix-gpu:latest"
