"""Messages of the library, in the words of the command line.

The library speaks of arguments and calls, in backquotes: ```alpha```, ```mode='drop'```, ```build(run='r')```. Here
they become the flags and commands that stand for them: ``--alpha``, ``--mode drop``, ```f3prune build r```.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator

import click

_QUOTED = re.compile(r"`([^`]+)`")


def for_command_line(message: str) -> str:
    """A message as the user of the command reads it; what is in backquotes and stands for no flag stays as it is.

    Flags are those of the command that runs, or else of any other. To be called while a command runs.
    """
    context = click.get_current_context().find_root()
    return _QUOTED.sub(lambda quoted: _shown(quoted[1], context) or quoted[0], message)


def parameters(context: click.Context) -> Iterator[click.Parameter]:
    """The parameters of every command of a group, those of the one that was given first."""
    group = context.command
    if not isinstance(group, click.Group):
        yield from group.params
        return
    names = sorted(group.list_commands(context), key=lambda name: name != context.invoked_subcommand)
    for name in names:
        if (command := group.get_command(context, name)) is not None:
            yield from parameters(click.Context(command, parent=context))


def _shown(quoted: str, context: click.Context) -> str | None:
    try:
        call = ast.parse(f"_({quoted})", mode="eval").body
    except SyntaxError:
        return None
    match call:
        case ast.Call(args=[ast.Name(name)], keywords=[]):
            found = _parameter(name, context)
            return None if found is None else _flag(found)
        case ast.Call(args=[ast.Constant(str(value))], keywords=[]):
            return value
        case ast.Call(args=[ast.Call(ast.Name(name), arguments, keywords)], keywords=[]):
            return _command(name, arguments, keywords, context)
        case ast.Call(args=[], keywords=[ast.keyword(str(name), value)]):
            found = _parameter(name, context)
            return None if found is None else " ".join(_given(found, value))
    return None


def _parameter(name: str, context: click.Context) -> click.Parameter | None:
    return next((found for found in parameters(context) if found.name == name), None)


def _command(name: str, arguments: list[ast.expr], keywords: list[ast.keyword], context: click.Context) -> str | None:
    group = context.command
    command = group.get_command(context, name) if isinstance(group, click.Group) else None
    if command is None:
        return None
    values = {keyword.arg: keyword.value for keyword in keywords}
    words = [word for found in command.params if found.name in values for word in _given(found, values[found.name])]
    return f"`{' '.join(['f3prune', name, *words, *map(_text, arguments)])}`"


def _given(parameter: click.Parameter, value: ast.expr) -> list[str]:
    """A parameter with its value, as a shell takes it."""
    flag = _flag(parameter)
    if isinstance(parameter, click.Argument):
        return [_text(value)]
    if isinstance(parameter, click.Option) and parameter.is_flag and isinstance(value, ast.Constant):
        return [flag if value.value else parameter.secondary_opts[0]]
    if isinstance(value, ast.Tuple):
        values = [_text(part) for part in value.elts]
        return [word for text in (values if parameter.multiple else [",".join(values)]) for word in (flag, text)]
    return [flag, _text(value)]


def _flag(parameter: click.Parameter) -> str:
    return parameter.opts[0] if isinstance(parameter, click.Option) else str(parameter.name).upper()


def _text(value: ast.expr) -> str:
    match value:
        case ast.Constant(constant) if constant is not ...:
            return shlex.quote(str(constant))
        case ast.Name(placeholder):
            return placeholder
    return "…"
