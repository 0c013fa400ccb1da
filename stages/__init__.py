"""A module for each stage of dvc.yaml: python -m stages.NAME"""

import sys

from peftqa import program

if sys.argv[0] == "-m":  # Python is still looking for the module NAME, whose imports take time
    program.start()
