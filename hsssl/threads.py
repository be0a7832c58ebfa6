"""How the threads of one operation wait for each other; imported before torch loads OpenMP.

By default they wait busily. Where another program holds one of the cores, each small operation
then waits for the scheduler. Pretraining on 2 cores, one of them busy with another program: 450
patches/s waiting busily, 13,400 waiting asleep; both cores free: 22,200 and 16,200 (measured on
a 2-core x86-64 Linux machine, torch 2.13, 51 steps of SimCLR on Indian Pines). A value that is set
already stays.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
