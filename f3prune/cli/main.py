"""``f3prune``, the command line. ``--help`` imports neither torch nor diffusers nor a backend."""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import os
import sys
from typing import NoReturn

import click

from f3prune import __version__
from f3prune.cli.messages import for_command_line
from f3prune.core.errors import F3PruneError


class _InterruptedError(Exception):
    """Ctrl-C, under a name that click does not answer with an empty line."""


COMMANDS = {
    "families": "models.families",
    "plan": "models.plan",
    "convert": "models.convert",
    "tune": "models.tune",
    "calibrate": "steps.calibrate",
    "prune": "steps.prune",
    "export": "steps.export",
    "build": "steps.build",
    "reuse": "steps.reuse",
    "generate": "steps.generate",
    "check": "steps.check",
    "bench": "measure.bench",
    "report": "steps.report",
    "run": "steps.run",
    "evaluate": "measure.evaluate",
    "sweep": "measure.sweep",
}
"""Every command, in the order that help lists them in, and where it is; a command is imported when it is asked for."""


_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def _fail(message: str, code: int) -> NoReturn:
    line = " ".join(message.split())
    print(f"f3prune: {line}", file=sys.stderr)
    raise SystemExit(code)


def _last_resort(error: Exception, debug: bool) -> NoReturn:
    """One line instead of a traceback."""
    if debug:
        raise error
    reason = " ".join(str(error).split())[:300]
    _fail(f"unexpected {type(error).__name__}: {reason}; rerun with --debug for the traceback", 1)


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"f3prune.cli.commands.{COMMANDS[cmd_name]}")
        return getattr(module, cmd_name)  # type: ignore[no-any-return]

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise _InterruptedError from error
        except F3PruneError as error:
            if ctx.obj:
                raise
            _fail(for_command_line(str(error)), error.exit_code)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="f3prune")
@click.option("--debug", is_flag=True, help="Show tracebacks and other libraries' messages.")
@click.pass_context
def cli(context: click.Context, debug: bool) -> None:
    """Prune the temporal attention of text-to-video models, export them to ONNX, build engines, generate video.

    MODEL is a diffusers pipeline directory, a hub id, a built-in zoo:NAME, or the directory of a denoiser alone.
    RUN is the directory that all results of one model go to.
    """
    from f3prune.core.quiet import silence

    context.obj = debug
    silence(debug)


def _check_surroundings() -> None:
    """Refuse what no command can work with, before any file is opened."""
    for descriptor in (0, 2):
        with contextlib.suppress(OSError):
            os.fstat(descriptor)
            continue
        # A file of ours must not get the number of a standard stream: whatever is said there would end up in it.
        os.open(os.devnull, os.O_RDWR)
    if sys.stdout is None:
        _fail("standard output is closed: send it to a file, or to /dev/null", 2)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What a terminal's or a pipe's encoding lacks (ASCII has no lines of tables) is shown as a question mark.
        sys.stdout.reconfigure(errors="replace")
    try:
        os.getcwd()
    except OSError:
        _fail("the working directory does not exist any more: change to one that does", 2)


def _abandon_output() -> None:
    """Python would complain again when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line; exits 0 done, 1 a check failed, 2 the user can mend it."""
    _check_surroundings()
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    # ``--debug`` works in front of the command and behind it.
    arguments = ["--debug"] * debug + [argument for argument in arguments if argument != "--debug"]
    try:
        code = cli.main(args=arguments, prog_name="f3prune", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else "")
        raise SystemExit(2) from None
    except click.ClickException as error:
        if debug:
            raise
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "f3prune"
        _fail(f"{error.format_message().rstrip('.')}: see `{path} --help`", 2)
    except (_InterruptedError, KeyboardInterrupt, click.Abort):
        _fail("interrupted; what was finished is kept, run the same command to go on", 130)
    except BrokenPipeError:
        # The reader of a pipe has gone.
        _abandon_output()
        raise SystemExit(1) from None
    except OSError as error:
        if debug or error.errno not in _NO_ROOM:
            _last_resort(error, debug)
        if error.errno == errno.ENOSPC and error.filename is None:
            _abandon_output()
            _fail("what was to be printed or written does not fit on its disk: make room, and run it again", 1)
        where = f" to {error.filename}" if error.filename else ""
        _fail(f"nothing more can be written{where} ({error.strerror}): free space, then run the same command again", 2)
    except Exception as error:
        _last_resort(error, debug)
    raise SystemExit(code if isinstance(code, int) else 0)
