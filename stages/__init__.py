"""A module for each stage of dvc.yaml: python -m stages.NAME"""

import sys

from peftqa import program

if sys.argv[0] == "-m":  # Python is still looking for the module NAME, whose imports take time
    program.start()


def run_stage(main) -> None:
    """Run a stage, and end as peftqa/program.py says. The library's log is printed."""
    import logging

    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    logging.getLogger("peftqa").setLevel(logging.INFO)
    program.run(main)
