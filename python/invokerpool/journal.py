"""Lists and salvages journals: `python -m invokerpool.journal list FILE`, or `salvage FROM TO`."""

from __future__ import annotations

import argparse
import sys

from ._errors import JournalError
from ._journal import Journal


def main(arguments: list[str] | None = None) -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(prog="python -m invokerpool.journal", description="Lists and salvages the journals of maps.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    listed = verbs.add_parser("list", help="print the job of a journal, its outputs, and how many bytes are damaged")
    listed.add_argument("file")
    salvage = verbs.add_parser("salvage", help="copy what is intact of a journal into a new one")
    salvage.add_argument("source", metavar="FROM")
    salvage.add_argument("target", metavar="TO")
    salvage.add_argument("--op", metavar="NAME", help="the op of the copy is identified by this name (`Journal(TO, op=NAME)`)")
    salvage.add_argument("--model", metavar="NAME", help="its model is identified by this name")
    given = parser.parse_args(arguments)
    try:
        if given.verb == "list":
            print(Journal(given.file).info())
        else:
            tasks, lost = Journal(given.source).salvage(given.target, op=given.op, model=given.model)
            print(f"{given.target}: {tasks} tasks from {given.source}, without {lost} damaged bytes")
    except JournalError as error:
        print(f"invokerpool.journal: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
