"""``python -m hsssl``, for ``torchrun -m hsssl`` too."""

import sys

from hsssl.cli import main

sys.exit(main())
