"""Pretrain with several processes, each with its share of every batch and all of the batch's negatives.

torchrun --standalone --nproc_per_node 2 examples/pretrain_two_processes.py runs/two
"""

import os
import sys

import hsssl

out = sys.argv[1] if len(sys.argv) > 1 else "runs/two_processes"
steps = int(sys.argv[2]) if len(sys.argv) > 2 else 1500

run = hsssl.pretrain(["indian_pines"], method="simclr", out=out, steps=steps, batch_size=1024)
if os.environ.get("RANK", "0") == "0":
    print(f"{run.path}: loss {run.metrics[-1]['loss']:.3f} after {steps} steps")
