"""Whatever a user gets wrong: exit code 2, one line that gives the value and the next step, nothing left behind."""

from __future__ import annotations

import errno
import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from f3prune.cli.main import main


@dataclass(frozen=True)
class Case:
    """A command line, what its one line must contain, and files that are there before."""

    name: str
    arguments: str
    says: tuple[str, ...]
    files: dict[str, str | bytes] = field(default_factory=dict)


TINY = "c --random-weights --steps 1"
CONFIG = json.dumps({"_class_name": "CogVideoXTransformer3DModel", "num_layers": 1})
PIPELINE = {
    "p/model_index.json": json.dumps(
        {"_class_name": "CogVideoXPipeline", "transformer": ["diffusers", "CogVideoXTransformer3DModel"]}
    ),
    "p/transformer/config.json": CONFIG,
}
CASES = [
    Case("unknown command", "frobnicate", ("frobnicate", "--help")),
    Case("unknown option", "prune r --alpha 0.5 --beta 1", ("--beta", "f3prune prune --help")),
    Case("missing option", "prune r", ("--alpha", "f3prune prune --help")),
    Case("missing argument", "calibrate -o r", ("MODEL", "--help")),
    Case("no output", "calibrate zoo:digits", ("--output", "--help")),
    *(
        Case(f"alpha {value}", f"prune r --alpha={value}", (value, "between 0 and 1", "--help"))
        for value in ("-0.1", "1.01", "nan", "inf", "-inf", "half", "1e999")
    ),
    Case("granularity", "prune r --alpha 0.5 --granularity neuron", ("neuron", "frame-pair", "--help")),
    Case("mode", "prune r --alpha 0.5 --mode zap", ("zap", "local", "--help")),
    Case("aggregate", "prune r --alpha 0.5 --aggregate heads", ("heads", "timesteps", "--help")),
    Case("stages 0", "prune r --alpha 0.5 --stages 0", ("0", "--help")),
    Case("stages text", "prune r --alpha 0.5 --stages two", ("two", "--help")),
    Case("dtype", "export r --dtype int4", ("int4", "bf16", "--help")),
    Case("opset", "export r --opset 11", ("11", "18", "--help")),
    Case("dynamic", "export r --dynamic batch,frames", ("frames", "batch, text", "--help")),
    Case("backend", "build r --backend openvino", ("openvino", "onnxruntime", "--help")),
    *(Case(f"batch {v}", f"build r --batch {v}", (v, "1,2,4", "--help")) for v in ("2", "3,2,4", "0,1,2", "a,b,c")),
    Case("capability", "build r --backend tensorrt-rtx --compute-capability sm89", ("sm89", "8.9", "--help")),
    Case("reference", "check r --reference original", ("original", "dense", "--help")),
    Case("max rel l2", "check r --max-rel-l2 nan", ("nan", "at least 0", "--help")),
    Case("rounds", "bench r --rounds 1", ("1", "--help")),
    Case("contender", "bench r --contenders magic", ("magic", "openvino", "--help")),
    Case("alphas", "bench r --alphas 0.5,2", ("2", "between 0 and 1", "--help")),
    Case("plot", "bench r --plot speed.docx", ("speed.docx", ".png")),
    Case(
        "contest in an empty directory",
        "bench r --contenders all",
        ("r/manifest.json", "f3prune calibrate"),
        {"r/manifest.json": "{}"},
    ),
    *(
        Case(f"{option} {value}", f"calibrate zoo:digits -o r {option} {value}", (value, "--help"))
        for option in ("--steps", "--num-frames", "--height", "--width", "--num-prompts", "--rows")
        for value in ("0", "-3", "many")
    ),
    *(Case(f"seed {v}", f"calibrate zoo:digits -o r --seed {v}", (v, "--help")) for v in ("-1", "9223372036854775808")),
    *(Case(f"guidance {v}", f"calibrate zoo:digits -o r --guidance {v}", (v, "--help")) for v in ("-1", "nan", "x")),
    *(
        Case(f"{command} without a run", f"{command} nowhere{rest}", ("nowhere", "does not exist", "f3prune calibrate"))
        for command, rest in (
            ("prune", " --alpha 0.5"),
            ("export", ""),
            ("build", ""),
            ("check", ""),
            ("bench", ""),
            ("report", ""),
            ("generate", " --prompt x -o out.mp4"),
        )
    ),
    *(
        Case(
            f"{command} in an empty directory",
            f"{command} r{rest}",
            ("r/manifest.json", "calibrate"),
            {"r/manifest.json": "{}"},
        )
        for command, rest in (("prune", " --alpha 0.5"), ("export", ""), ("check", ""), ("report", ""))
    ),
    Case("run is a file", "prune r --alpha 0.5", ("r", "is not a directory"), {"r": ""}),
    Case("output is a file", "calibrate zoo:digits -o r", ("r", "is a file"), {"r": ""}),
    Case("output holds other things", "calibrate zoo:digits -o r", ("notes.txt", "empty"), {"r/notes.txt": ""}),
    Case("unknown zoo model", "calibrate zoo:zebra -o r", ("zebra", "digits")),
    Case("no such model", "calibrate ./nothing/of/the/kind -o r", ("nothing/of/the/kind", "zoo:NAME")),
    Case("model is a file", "calibrate m.txt -o r", ("m.txt", "is a file"), {"m.txt": ""}),
    Case("model directory is empty", "calibrate m -o r", ("model_index.json", "config.json"), {"m/a.txt": ""}),
    Case("index is not JSON", "calibrate m -o r", ("m/model_index.json", "JSON"), {"m/model_index.json": "{"}),
    Case("index is a list", "calibrate m -o r", ("m/model_index.json", "list"), {"m/model_index.json": "[]"}),
    Case("pipeline without denoiser", "calibrate m -o r", ("no transformer or unet",), {"m/model_index.json": "{}"}),
    Case("config without class", "calibrate c -o r", ("_class_name",), {"c/config.json": "{}"}),
    Case(
        "unknown family",
        f"calibrate {TINY} -o r",
        ("FluxTransformer2DModel", "docs/families.md"),
        {"c/config.json": json.dumps({"_class_name": "FluxTransformer2DModel"})},
    ),
    Case(
        "refused family",
        f"calibrate {TINY} -o r",
        ("SanaVideoTransformer3DModel", "linear", "f3prune families"),
        {"c/config.json": json.dumps({"_class_name": "SanaVideoTransformer3DModel"})},
    ),
    Case(
        "refused family of a plan",
        "plan c",
        ("WanAnimate2Transformer3DModel", "block mask", "f3prune families"),
        {"c/config.json": json.dumps({"_class_name": "WanAnimate2Transformer3DModel"})},
    ),
    Case(
        "pipeline of a refused family",
        "calibrate p -o r",
        ("SanaVideoPipeline in", "SanaVideoTransformer3DModel", "linear"),
        {
            "p/model_index.json": json.dumps({"_class_name": "SanaVideoPipeline"}),
            "p/transformer/config.json": json.dumps({"_class_name": "SanaVideoTransformer3DModel"}),
            "p/transformer/diffusion_pytorch_model.safetensors": b"\2\0\0\0\0\0\0\0{}",
        },
    ),
    Case(
        "class of another library",
        f"calibrate {TINY} -o r",
        ("SoraModel", "neither diffusers", "docs/families.md"),
        {"c/config.json": json.dumps({"_class_name": "SoraModel"})},
    ),
    Case("no weights", "calibrate c -o r", ("--random-weights", "safetensors"), {"c/config.json": CONFIG}),
    Case(
        "pickled denoiser",
        "calibrate c -o r",
        ("diffusion_pytorch_model.bin", "pickle", "safetensors"),
        {"c/config.json": CONFIG, "c/diffusion_pytorch_model.bin": b"\x80\x04"},
    ),
    Case(
        "pickled part of a pipeline",
        "calibrate p -o r",
        ("pytorch_model.bin", "pickle", "save_pretrained"),
        {
            **PIPELINE,
            "p/model_index.json": json.dumps({"_class_name": "X", "text_encoder": ["transformers", "T5EncoderModel"]}),
            "p/text_encoder/pytorch_model.bin": b"\x80\x04",
        },
    ),
    Case("random weights of a pipeline", "calibrate p --random-weights -o r", ("--random-weights", "p"), PIPELINE),
    Case(
        "cut weights",
        "calibrate c -o r",
        ("c", "could not be loaded", "again"),
        {"c/config.json": CONFIG, "c/diffusion_pytorch_model.safetensors": b"\x10\0\0\0\0\0\0\0{"},
    ),
    Case(
        "impossible configuration",
        f"calibrate {TINY} -o r",
        ("c", "could not be loaded"),
        {"c/config.json": json.dumps({"_class_name": "CogVideoXTransformer3DModel", "num_layers": "many"})},
    ),
    Case("prompts missing", "calibrate zoo:digits -o r --prompts p.txt", ("p.txt", "readable")),
    Case("prompts empty", "calibrate zoo:digits -o r --prompts p.txt", ("p.txt", "empty"), {"p.txt": "\n \n"}),
    Case(
        "prompts not UTF-8", "calibrate zoo:digits -o r --prompts p.txt", ("p.txt", "UTF-8"), {"p.txt": b"\xff\xfe\0"}
    ),
    Case("prompts kind", "calibrate zoo:digits -o r --prompts p.csv", ("p.csv", ".jsonl"), {"p.csv": "a"}),
    *(
        Case(
            f"prompts {name}",
            "calibrate zoo:digits -o r --prompts p.jsonl",
            ("p.jsonl line 2", *says),
            {"p.jsonl": text},
        )
        for name, text, says in (
            ("not JSON", '{"prompt": "a"}\n{prompt}', ("JSON",)),
            ("a list", '{"prompt": "a"}\n["b"]', ("list",)),
            ("without prompt", '{"prompt": "a"}\n{"negative_prompt": "b"}', ("no prompt",)),
            ("unknown key", '{"prompt": "a"}\n{"prompt": "b", "seed": 3}', ("'seed'",)),
            ("number", '{"prompt": "a"}\n{"prompt": 3}', ("prompt",)),
            ("no image", '{"prompt": "a"}\n{"prompt": "b", "image": "cat.png"}', ("cat.png", "does not exist")),
        )
    ),
    Case(
        "too few prompts", "calibrate zoo:digits -o r --prompts p.txt --num-prompts 3", ("3", "has 1"), {"p.txt": "a"}
    ),
    Case("bad output name", "generate r --prompt x -o out.avi", ("out.avi", ".mp4")),
    Case("output directory", "generate r --prompt x -o d.mp4", ("d.mp4", "is a directory"), {"d.mp4/x": ""}),
    Case("output directory full", "generate r --prompt x -o d", ("not empty",), {"d/x": ""}),
    Case("image missing", "generate r --prompt x -o o.mp4 --image cat.png", ("cat.png", "does not exist")),
    Case("json is a directory", "check r --json d", ("--json", "'d' is a directory", "--help"), {"d/x": ""}),
    Case("pairs cannot drop", "run zoo:digits -o r --alpha 0.5 --granularity frame-pair --mode drop", ("--mode drop",)),
    Case("layers of layers", "run zoo:digits -o r --alpha 0.5 --aggregate layers", ("--aggregate layers", "head")),
]


def tree(folder: Path) -> dict[str, bytes | None]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_bad_input(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in case.files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    before = tree(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(case.arguments.split())
    output = capsys.readouterr()
    assert stopped.value.code == 2, output.err
    assert output.out == ""
    lines = output.err.splitlines()
    assert len(lines) == 1, output.err
    assert lines[0].startswith("f3prune: ")
    for part in case.says:
        assert part in lines[0]
    assert "Traceback" not in output.err
    after = {name: content for name, content in tree(tmp_path).items() if not name.endswith("/.lock")}
    assert after == before


def test_offline_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import diffusers

    def unreachable(*args: object, **kwargs: object) -> str:
        raise OSError("Cannot load model some/model: model is not cached locally\nmore lines")

    monkeypatch.setattr(diffusers.DiffusionPipeline, "download", unreachable)
    with pytest.raises(SystemExit) as stopped:
        main(["calibrate", "some/model", "-o", str(tmp_path / "r")])
    line = capsys.readouterr().err
    assert stopped.value.code == 2
    assert line.count("\n") == 1
    assert "'some/model' is no directory here" in line
    assert "network" in line
    assert not (tmp_path / "r").exists()


def test_unexpected_exceptions_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import f3prune.core.run_directory

    def broken(*place: object) -> None:
        raise ZeroDivisionError("division\nby zero")

    monkeypatch.setattr(f3prune.core.run_directory.RunDirectory, "open", broken)
    with pytest.raises(SystemExit) as stopped:
        main(["report", str(tmp_path)])
    assert stopped.value.code == 1
    assert capsys.readouterr().err == (
        "f3prune: unexpected ZeroDivisionError: division by zero; rerun with --debug for the traceback\n"
    )
    with pytest.raises(ZeroDivisionError):
        main(["report", str(tmp_path), "--debug"])


def test_interrupt_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import f3prune.core.run_directory

    def interrupted(*place: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f3prune.core.run_directory.RunDirectory, "open", interrupted)
    with pytest.raises(SystemExit) as stopped:
        main(["report", str(tmp_path)])
    assert stopped.value.code == 130
    assert "interrupted" in capsys.readouterr().err


def test_a_full_disk_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import f3prune.core.run_directory

    def full(*place: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "r/aas.safetensors")

    monkeypatch.setattr(f3prune.core.run_directory.RunDirectory, "open", full)
    with pytest.raises(SystemExit) as stopped:
        main(["report", str(tmp_path)])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == (
        "f3prune: nothing more can be written to r/aas.safetensors (No space left on device): "
        "free space, then run the same command again\n"
    )
