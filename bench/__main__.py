"""`python -m bench COMMAND`: each command measures one thing, prints a table and can write JSON."""

from __future__ import annotations

import argparse
import sys

from bench import compare, gpu, peers, quality, readme, seams, sheet, stages, throughput

# Each module has NAME, HELP, add_arguments(parser) and run(options) -> exit status.
COMMANDS = (stages, throughput, gpu, quality, seams, sheet, peers, compare, readme)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for module in COMMANDS:
        command = commands.add_parser(module.NAME, help=module.HELP, description=module.__doc__)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    options = parser.parse_args()
    return int(options.run(options))


if __name__ == "__main__":  # the measured process imports this file again
    sys.exit(main())
