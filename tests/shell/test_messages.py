"""Messages of the library speak of arguments; the command line shows them as its flags and commands. Both are true."""

from __future__ import annotations

import ast
import io
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from command_line import f3prune
from rich.console import Console

from f3prune.calibration.score_table import ScoreTable, units
from f3prune.calibration.selection import unprotected
from f3prune.cli.main import cli
from f3prune.cli.messages import for_command_line, parameters
from f3prune.cli.tables.contest import contest_table
from f3prune.core.errors import F3PruneError
from f3prune.pipelines.pipeline_runs import GenerationSettings, check_latent_size
from f3prune.pipelines.sources import resolve
from f3prune.pipelines.video import check_output
from f3prune.quality.auto_alpha import Budget
from f3prune.quality.judging import JudgeOptions
from f3prune.quality.sweep import SweepOptions
from f3prune.steps.convert import cogvideo_config
from f3prune.steps.reuse import ReuseOptions

PACKAGE = Path(__file__).parents[2] / "f3prune"
FLAG = re.compile(r"(?<![\w-])(--[a-zX]|-[a-z] [A-Z])")
"""``X`` is what was put in."""
QUOTED = re.compile(r"`([^`]+)`")
NO_ARGUMENT = {"module"}
"""What is in backquotes and is no argument: keys of other programs' files."""


def modules(folder: Path = PACKAGE) -> Iterator[tuple[Path, ast.Module]]:
    """Every module but the command line's. Stages are links, which ``rglob`` does not follow."""
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path != PACKAGE / "cli":
            yield from modules(path)
        elif path.suffix == ".py":
            yield path, ast.parse(path.read_text(encoding="utf-8"))


def texts(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Texts of a module but for its docstrings; what is put in is ``X``."""
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            inside.add(id(node.value))
        if isinstance(node, ast.JoinedStr):
            yield (
                node.lineno,
                "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values),
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.lineno, node.value


def test_no_message_of_the_library_mentions_a_flag() -> None:
    found = [f"{path}:{line}: {text}" for path, tree in modules() for line, text in texts(tree) if FLAG.search(text)]
    assert not found


def test_what_has_to_be_done_again_is_named_as_a_call() -> None:
    vague = re.compile(
        rf"\b({'|'.join(cli.list_commands(click.Context(cli)))})( it| the \w+)? (again|anew)\b(?! with `)"
    )
    found = [
        f"{path}:{line}: {text}"
        for path, tree in modules()
        for line, text in texts(tree)
        if vague.search(QUOTED.sub("`", text))
    ]
    assert not found


def test_every_argument_that_a_message_names_is_one_and_has_a_flag() -> None:
    context = click.Context(cli)
    flags = {parameter.name for parameter in parameters(context)}
    known: set[str | None] = set()
    named: dict[str, str] = {}
    for path, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                known |= {argument.arg for argument in [*node.args.args, *node.args.kwonlyargs]}
            if isinstance(node, ast.ClassDef):
                known |= {
                    field.target.id
                    for field in node.body
                    if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
                }
        for line, text in texts(tree):
            for quoted in QUOTED.findall(text):
                call = ast.parse(f"_({quoted.format(run='r')})", mode="eval").body
                assert isinstance(call, ast.Call)
                for part in call.args:
                    if isinstance(part, ast.Call) and isinstance(part.func, ast.Name):
                        command = cli.get_command(context, part.func.id)
                        assert command is not None, f"{path}:{line}: no command {part.func.id}"
                        wrong = {keyword.arg for keyword in part.keywords} - {p.name for p in command.params}
                        assert not wrong, f"{path}:{line}: {part.func.id} takes no {wrong}"
                    elif isinstance(part, ast.Name):
                        named[part.id] = f"{path}:{line}"
                named |= {str(keyword.arg): f"{path}:{line}" for keyword in call.keywords}
    named = {name: place for name, place in named.items() if name not in {*NO_ARGUMENT, "X"}}
    assert len(named) > 30
    assert {name: place for name, place in named.items() if name not in flags} == {}
    assert {name: place for name, place in named.items() if name not in known} == {}


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("`alpha` is 2", "--alpha is 2"),
        ("use `granularity='layer'` or `'head'`", "use --granularity layer or head"),
        ("a lower `learning_rate`", "a lower --lr"),
        ("`output` o.avi: expected .mp4", "-o o.avi: expected .mp4"),
        ("`model` m is a file", "MODEL m is a file"),
        ("give `resume=True`", "give --resume"),
        ("give `videos=False`", "give --no-videos"),
        ("use `dynamic=('batch', 'text')`", "use --dynamic batch,text"),
        ("with `compute_capabilities=('8.9', '12.0')`", "with --compute-capability 8.9 --compute-capability 12.0"),
        ("run `calibrate(model=MODEL, run='r')`", "run `f3prune calibrate MODEL -o r`"),
        ("run `prune(run='my run', alpha=A)`", "run `f3prune prune 'my run' --alpha A`"),
        ("run `export(...)` again", "run `f3prune export …` again"),
        ("it has no key `module`: `pip install it`", "it has no key `module`: `pip install it`"),
    ],
)
def test_arguments_become_flags(message: str, shown: str) -> None:
    with click.Context(cli):
        assert for_command_line(message) == shown


def test_flags_are_those_of_the_command_that_runs() -> None:
    context = click.Context(cli)
    for command, flag in (("bench", "--alphas"), ("plan", "--alpha")):
        context.invoked_subcommand = command
        with context:
            assert for_command_line("`alphas`") == flag


def test_both_users_read_their_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(F3PruneError) as caught:
        check_output(Path("out.avi"))
    assert str(caught.value).startswith("`output` out.avi: expected .mp4, ")
    assert f3prune("generate", "r", "--prompt", "x", "-o", "out.avi").err.startswith(
        "f3prune: -o out.avi: expected .mp4, "
    )
    with pytest.raises(F3PruneError) as caught:
        cogvideo_config("cogvideo-stage1", Path("c.json"))
    rest = "say the same thing twice: give one of them"
    assert str(caught.value) == f"`shape` cogvideo-stage1 and `config` c.json {rest}"
    options = ("--shape", "cogvideo-stage1", "--config", "c.json")
    outcome = f3prune("convert", "cogvideo", "c.pt", "-o", "c", *options)
    assert outcome.err == f"f3prune: --shape cogvideo-stage1 and --config c.json {rest}\n"


CONFIG = {"patch_size": 2, "patch_size_t": None}
WHOLE, HEADS = (
    ScoreTable(granularity, (999.0,), {name: torch.ones(1, *heads) for name in ("a", "b")})
    for granularity, heads in (("layer", ()), ("head", (2,)))
)
MENDED: list[tuple[Callable[[], Any], str, Callable[[], Any]]] = [
    (
        lambda: GenerationSettings(guidance=-1),
        "`guidance` is -1: give a number of at least 0, e.g. 6",
        lambda: GenerationSettings(guidance=6),
    ),
    (
        lambda: GenerationSettings(seed=-1),
        "`seed` is -1: give a whole number between 0",
        lambda: GenerationSettings(seed=0),
    ),
    (
        lambda: GenerationSettings(num_frames=0),
        "`num_frames` is 0: give a whole number of at least 1",
        lambda: GenerationSettings(num_frames=1),
    ),
    (
        lambda: check_latent_size(CONFIG, GenerationSettings(height=7)),
        "`height` is 7, expected a multiple of 2: try 6 or 8",
        lambda: [check_latent_size(CONFIG, GenerationSettings(height=size)) for size in (6, 8)],
    ),
    (
        lambda: check_latent_size(CONFIG, GenerationSettings(latents="inverted")),
        "`latents='inverted'` needs a tuned pipeline, and the model is a denoiser alone: leave it out",
        lambda: check_latent_size(CONFIG, GenerationSettings()),
    ),
    (lambda: Budget.parse("fvd"), "psnr>=30", lambda: Budget.parse("psnr>=30")),
    (lambda: Budget.parse("psnr>=+3"), "leave the sign out", lambda: Budget.parse("psnr>=3")),
    (lambda: Budget.parse("fvd<=5%"), "fvd<=+5% or -5%", lambda: [Budget.parse(f"fvd<={sign}5%") for sign in "+-"]),
    (
        lambda: JudgeOptions(dataset="ucf101"),
        "`dataset` and `root` belong together: give the kind of dataset and its directory",
        lambda: JudgeOptions(dataset="ucf101", root=Path()),
    ),
    (
        lambda: JudgeOptions(dataset="ucf101", root=Path(), prompts=Path()),
        "`prompts` and `dataset` exclude each other",
        lambda: JudgeOptions(prompts=Path()),
    ),
    (
        lambda: SweepOptions(quality="ssim", judge=JudgeOptions(metrics=("psnr",))),
        "`quality` ssim is not among `metrics`: add it there, or choose one of them",
        lambda: [
            SweepOptions(quality="ssim", judge=JudgeOptions(metrics=("psnr", "ssim"))),
            SweepOptions(quality="psnr", judge=JudgeOptions(metrics=("psnr",))),
        ],
    ),
    (
        lambda: ReuseOptions(skip=2),
        "give a share of the steps between 0 and 1, e.g. 0.4",
        lambda: ReuseOptions(skip=0.4),
    ),
    (
        lambda: cogvideo_config("stage9"),
        "`shape` stage9 is not known, expected cogvideo-stage1 or cogvideo-stage2: or give `config`",
        lambda: [cogvideo_config(f"cogvideo-stage{stage}") for stage in (1, 2)],
    ),
    (
        lambda: units(WHOLE, "layers", ["a", "b"]),
        "use `granularity='head'` or `'frame-pair'`, or `aggregate='timesteps'`",
        lambda: [units(HEADS, "layers", ["a", "b"]), units(WHOLE, "timesteps", ["a", "b"])],
    ),
    (
        lambda: unprotected(["blocks.0.attn", "blocks.1.attn"], ("block.*",)),
        "sites, which are named like blocks.0.attn, blocks.1.attn",
        lambda: unprotected(["blocks.0.attn", "blocks.1.attn"], ("blocks.0.attn",)),
    ),
]


@pytest.mark.parametrize(("wrong", "said", "mended"), MENDED)
def test_what_a_message_asks_for_helps(wrong: Callable[[], Any], said: str, mended: Callable[[], Any]) -> None:
    with pytest.raises(F3PruneError) as caught:
        wrong()
    assert said in str(caught.value)
    mended()


def test_a_denoiser_without_weights_is_taken_as_its_message_says(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"_class_name": "CogVideoXTransformer3DModel"}')
    with pytest.raises(F3PruneError, match="give the denoiser's directory with `random_weights=True`"):
        resolve(str(tmp_path))
    assert resolve(str(tmp_path), random_weights=True).kind == "denoiser"


def test_commands_of_the_messages_lead_from_nothing_to_a_video(
    tiny_pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = {"MODEL": str(tiny_pipeline), "A": "1"}
    more = {"calibrate": ("--steps", "1", "--num-prompts", "1"), "prune": ("--score", "aas")}
    done: list[str] = []

    def succeed(*words: str) -> None:
        """Run a command, and before it those that its message asks for."""
        while (outcome := f3prune(*words, *more.get(words[0], ()))).code:
            assert outcome.code == 2, outcome.err
            (command,) = re.findall(r"`f3prune ([^`]+)`", outcome.err)
            asked = [given.get(word, word) for word in shlex.split(command)]
            assert asked[0] not in done, outcome.err
            succeed(*asked)
        done.append(words[0])

    succeed("generate", "r", "--prompt", "x", "-o", "out.gif")
    assert done == ["calibrate", "prune", "export", "build", "generate"]
    assert Path("out.gif").is_file()


def test_a_reason_with_brackets_is_printed_whole() -> None:
    times = {"runs": 3, "median": 1.0, "quartile_1": 1.0, "quartile_3": 1.0}
    dense = {"status": "measured", "name": "PyTorch", "contender": {"kind": "pytorch"}, "own": False, "psnr": None}
    dense |= {"denoising": times, "generation": times, "ssim": 1.0, "products": None}
    absent = {"status": "absent", "name": "engine", "reason": "tensorrt is missing: pip install 'f3prune[tensorrt]'"}
    console = Console(width=300, file=io.StringIO(), record=True)
    with click.Context(cli):
        console.print(contest_table({"what": "a model", "rows": [dense, absent], "equal_quality": [], "cap_db": 60.0}))
    assert "pip install 'f3prune[tensorrt]'" in console.export_text()
