"""The command line: `python -m fastlayer COMMAND`."""

import sys

from fastlayer.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
