"""Where the research data (photos, scans) lies, see EXTREME3D_DATA in CONTRIBUTING.md."""

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("EXTREME3D_DATA", REPOSITORY.parent / "shared" / "data"))
