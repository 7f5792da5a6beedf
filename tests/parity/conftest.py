"""The check is a script beside its parts: its folder is on the path here as it is when the script runs."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
