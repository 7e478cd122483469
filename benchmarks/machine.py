"""What a benchmark's numbers were taken on."""

import os
import platform
from pathlib import Path


def machine() -> str:
    """The processor's name, the number of cores, and the system."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), "")
    return f"{model or platform.processor()}, {os.cpu_count()} cores, {platform.system()}"
