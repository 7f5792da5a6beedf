"""Put the folder of the check script on the path, as when the script runs."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
