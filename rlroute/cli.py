"""The command line: ``rlroute import | validate | show | envs``. Bad input ends with status 2."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from rlroute.errors import Fault, LogError
from rlroute.importers import IMPORTERS

BAD_INPUT = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status is 0, or 2 for input that cannot be used."""
    options = vars(_parser().parse_args(arguments))
    command = options.pop("command")
    try:
        with warnings.catch_warnings():
            # Warnings about a log are this program's output, so they are printed plainly and once.
            warnings.showwarning = _print_warning
            return int(command(**options))
    except (LogError, OSError) as error:
        print(explain(error), file=sys.stderr)
        return BAD_INPUT


def explain(error: Exception) -> str:
    """What is wrong with an input: the file, what was found and what was expected."""
    if not isinstance(error, OSError) or error.filename is None:
        return str(error)
    path = error.filename2 or error.filename  # the second is what a file was to become
    return str(Fault(str(path), None, None, error.strerror or "an error", "a file or folder that can be used"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rlroute", description="Replay logs for sequential LLM routing.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    importing = commands.add_parser("import", help="make a log of a recording")
    kinds = importing.add_subparsers(required=True, metavar="KIND", dest="kind")
    for kind, importer in IMPORTERS.items():
        sub = kinds.add_parser(kind, help=importer.summary, description=importer.summary)
        sub.add_argument("path", metavar="PATH", type=Path, help="the recording: a folder or a file")
        sub.add_argument("--out", metavar="DIR", type=Path, required=True, help="the log to write")
        importer.add_arguments(sub)
        sub.set_defaults(command=_import)

    validating = commands.add_parser("validate", help="report every fault of a log")
    validating.add_argument("log", metavar="LOG", help="a folder, or the name of a built-in log")
    validating.set_defaults(command=_validate)

    showing = commands.add_parser("show", help="what is in a log, and what routing on it could reach")
    showing.add_argument("log", metavar="LOG", help="a folder, or the name of a built-in log")
    showing.set_defaults(command=_show)

    envs = commands.add_parser("envs", help="list the environments")
    envs.set_defaults(command=_envs)
    return parser


def _import(kind: str, path: Path, out: Path, **options: object) -> int:
    from rlroute.importers import import_log

    log = import_log(kind, path, **options)
    try:
        log.save(out)
    except OSError as error:
        if error.filename is None:  # its own message says it all
            raise
        fault = Fault(str(out), None, None, f"{error.filename}: {error.strerror}", "a folder that can be written")
        raise LogError([fault]) from None
    print(f"{out}: {log.card.description or log.name} ({log.card.coverage} coverage, hash {log.content_hash})")
    return 0


def _validate(log: str) -> int:
    from rlroute.log import find_log

    found = find_log(log)
    faults = found.validate()
    for fault in faults:
        print(f"{fault.severity}: {fault}", file=sys.stderr if fault.severity == "error" else sys.stdout)
    errors = sum(fault.severity == "error" for fault in faults)
    print(f"log {found.name}: {errors} errors, {len(faults) - errors} warnings")
    return BAD_INPUT if errors else 0


def _show(log: str) -> int:
    from rich.console import Console

    from rlroute.log import load_log
    from rlroute.summary import render, summarise

    loaded = load_log(log)
    render(summarise(loaded), loaded, Console())
    return 0


def _envs() -> int:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    from rlroute import REGISTRY

    table = Table(box=SIMPLE)
    table.add_column("id", no_wrap=True)
    table.add_column("what it is")
    for entry in REGISTRY:
        table.add_row(entry.id, entry.summary)
    Console().print(table)
    return 0


def _print_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
