"""HEALTHCHECK of the inference container: GET /readyz on its own port; exit 0 is ready.

The worker's check is `python -m services.explain.canary`: a small task through the real queue.
"""

from __future__ import annotations

import os
import sys
import urllib.request

if __name__ == "__main__":
    port = os.environ.get("LESIONLENS_PORT", "3000")
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=4):
            pass
    except OSError as error:  # HTTPError and URLError are OSErrors
        sys.exit(f"not ready: {error}")
