"""The page as a Space of the Hugging Face Hub; on one's own machine it is `modeling-icd space`."""

import os
import sys

from modeling_icd.space.cli import main


if __name__ == "__main__":
    port = os.environ.get("GRADIO_SERVER_PORT", "7860")
    sys.exit(main([*os.environ.get("ICD_MODEL", "").split(), "--host", "0.0.0.0", "--port", port]))
