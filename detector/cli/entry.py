"""What all commands share: arguments, logging, and errors as lines and exit codes."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from detector.durable import not_a_link
from detector.errors import DetectorError, FailedElsewhere, MachineError, UsageError, printable

_MAX_LINE = 390
COMMANDS = (
    "train", "pretrain", "evaluate", "compare", "visualize", "benchmark", "check_dataset", "split_dataset",
    "convert_dataset", "fetch_dataset", "make_shapes", "convert_weights", "plot_errors",
)  # fmt: skip


class Parser(argparse.ArgumentParser):
    """Reports mistakes as the rest of the program does; help keeps the line breaks of its example."""

    def __init__(self, name: str, description: str, example: str) -> None:
        super().__init__(
            prog=f"{name}.py" if sys.argv[0].endswith(".py") else f"detector {name}",
            description=description,
            epilog=example,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """As for any other mistake."""
        raise UsageError(f"{message}; see {self.prog} --help")


def run(command: Callable[[Sequence[str]], int], argv: Sequence[str] | None) -> int:
    """Runs a command and turns what users can mend into ``error:`` lines and exit codes.

    Args:
        command: gets the arguments, returns the exit code.
        argv: the arguments; None takes those of the process.

    Returns:
        0 done, 2 the user's mistake, 3 the environment, 4 diverged, 5 a worker was lost, 130 or 143 stopped.
    """
    start_logging()
    debug = os.environ.get("DETECTOR_DEBUG") == "1"
    try:
        return command(sys.argv[1:] if argv is None else list(argv))
    except FailedElsewhere as error:
        # Its own process tells it on the console, and needs a moment: torchrun ends all as soon as one has left.
        logging.getLogger("detector").debug("%s", error)
        time.sleep(1)
        return error.exit_code
    except DetectorError as error:
        if debug:
            raise
        logging.getLogger("detector").debug("%s", error)
        for line in str(error).splitlines():
            print(f"error: {printable(line)[:_MAX_LINE]}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (MemoryError, OSError, RuntimeError) as error:
        reason = None if debug else _environment_line(error)
        if reason is None:
            raise
        print(f"error: {printable(reason)[:_MAX_LINE]}", file=sys.stderr)
        return 3


def _environment_line(error: BaseException) -> str | None:
    """One line for a fault of the machine; None for what must be a bug of ours."""
    text = str(error)
    if isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text:
        return "out of memory; lower training.micro_batch_size, evaluation.batch_size or the image size"
    if (isinstance(error, OSError) and error.errno == errno.EMFILE) or "Too many open files" in text:
        return "too many open files; raise the limit (ulimit -n 65536) or lower data.workers"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"{error.filename or 'a file'}: no space left on the disk; make room, then start again"
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return None


class _Console(logging.Handler):
    """Log lines on stderr, above a progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "warning: " if record.levelno == logging.WARNING else ""
        line = prefix + printable(record.getMessage())
        tqdm = sys.modules.get("tqdm")
        if tqdm is not None and sys.stderr.isatty():
            tqdm.tqdm.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr, flush=True)


def start_logging() -> None:
    """Sends the log to stderr alone; processes other than the main one only tell of errors."""
    root = logging.getLogger("detector")
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    console = _Console(logging.INFO if os.environ.get("RANK", "0") == "0" else logging.ERROR)
    root.addHandler(console)
    root.setLevel(logging.DEBUG)
    root.propagate = False


def log_to_file(path: Path) -> None:
    """Writes the log to a file, too; a full disk costs its lines, not the training."""
    try:
        handler = logging.FileHandler(not_a_link(path), encoding="utf-8")
    except OSError as error:
        raise MachineError(f"{path}: cannot be written ({error.strerror}); choose another --output") from None
    handler.handleError = lambda record: None  # type: ignore[method-assign]
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.getLogger("detector").addHandler(handler)


def main() -> int:
    """The console script: ``detector NAME ...``."""
    from importlib import import_module

    name = sys.argv[1].replace("-", "_") if len(sys.argv) > 1 else "--help"
    if name in COMMANDS:
        return int(import_module(f"detector.cli.{name}").main(sys.argv[2:]))
    print("usage: detector COMMAND ...\n\ncommands: " + ", ".join(COMMANDS) + "\n\nhelp: detector COMMAND --help")
    if name in ("--help", "_h", "--h"):
        return 0
    print(f"error: no command {sys.argv[1]!a}", file=sys.stderr)
    return 2
