"""What the command line loads before it knows which command it runs."""

import subprocess
import sys


def test_the_command_line_starts_without_numpy() -> None:
    code = "import sys; import orchestrator.cli; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
