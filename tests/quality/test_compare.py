"""Measuring sets of videos, saving that, and comparing two sets."""

from __future__ import annotations

import json

import numpy as np
import pytest
from clips import noisy, shifting
from networks import VideoFeatures, save_script

from f3prune.core.errors import ArtifactError, InputError
from f3prune.quality.compare import Measured, compare, measure
from f3prune.quality.judging import Judging
from f3prune.quality.metrics import INFO, Networks, build_metrics

PROMPTS = [f"prompt {index}" for index in range(8)]
DENSE = [shifting(frames=3, height=32, width=32, seed=seed) for seed in range(8)]
PRUNED = [noisy(video, 0.1, seed) for seed, video in enumerate(DENSE)]


class Corners:
    """Four pixels' red of the first frame: a network whose features are plain to see."""

    def features(self, videos):
        return videos[:, 0, ::31, ::31, 0].reshape(len(videos), 4).astype(np.float64)


@pytest.fixture(scope="module")
def measured():
    each = build_metrics(["flicker", "dynamic", "fvd", "fid"], Networks(fvd=Corners(), fid=Corners()))
    paired = build_metrics(["psnr", "ssim"])
    real = [shifting(frames=3, height=32, width=32, seed=seed) for seed in range(50, 62)]
    return (
        measure(DENSE, PROMPTS, each),
        measure(iter(PRUNED), PROMPTS, [*paired, *each], reference=iter(DENSE)),
        measure(real, ["real"] * 12, each[2:]),
    )


def test_the_result_has_exactly_the_promised_shape(measured):
    result = compare(*measured, resamples=50)
    each, paired = ["flicker", "dynamic", "fvd", "fid"], ["psnr", "ssim"]
    assert list(result) == ["metrics", "dense", "pruned", "difference", "confidence", "resamples"]
    assert (result["confidence"], result["resamples"]) == (0.95, 50)
    assert sorted(result["metrics"]) == sorted(result["pruned"]) == sorted(each + paired)
    assert sorted(result["dense"]) == sorted(result["difference"]) == sorted(each)
    for info in result["metrics"].values():
        assert list(info) == ["title", "unit", "better", "kind"]
    for part in ("dense", "pruned"):
        for entry in result[part].values():
            assert list(entry) == ["value", "interval"]
            assert entry["interval"][0] <= entry["value"] <= entry["interval"][1]
    for name, entry in result["difference"].items():
        assert list(entry) == ["value", "interval", "verdict"]
        change = result["pruned"][name]["value"] - result["dense"][name]["value"]
        assert entry["value"] == pytest.approx(change)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["difference"]["flicker"]["verdict"] == "worse"


def test_equal_sets_are_undecided(measured):
    dense, _, real = measured
    result = compare(dense, dense, real, resamples=20)
    assert {entry["verdict"] for entry in result["difference"].values()} == {"undecided"}
    assert {entry["value"] for entry in result["difference"].values()} == {0.0}


def test_one_sample_has_no_interval():
    metrics = build_metrics(["flicker"])
    one = measure(DENSE[:1], PROMPTS[:1], metrics)
    result = compare(one, one)
    assert result["dense"]["flicker"]["interval"] is None
    assert result["difference"]["flicker"]["verdict"] == "undecided"


def test_a_measurement_survives_saving(measured, tmp_path):
    for index, one in enumerate(measured):
        directory = tmp_path / str(index)
        directory.mkdir()
        assert sorted(path.name for path in one.save(directory)) == ["measured.json", "measured.safetensors"]
        again = Measured.load(directory)
        assert (again.info, again.prompts) == (one.info, one.prompts)
        for before, after in ((one.values, again.values), (one.features, again.features)):
            assert before.keys() == after.keys()
            for name, array in before.items():
                np.testing.assert_array_equal(array, after[name])


def test_a_damaged_measurement_is_refused(measured, tmp_path):
    with pytest.raises(ArtifactError, match="no whole measurement"):
        Measured.load(tmp_path)
    measured[0].save(tmp_path)
    meta = json.loads((tmp_path / "measured.json").read_text())
    (tmp_path / "measured.json").write_text(json.dumps({**meta, "prompts": ["one"]}))
    with pytest.raises(ArtifactError, match="do not belong together"):
        Measured.load(tmp_path)
    (tmp_path / "measured.safetensors").write_bytes(b"cut")
    with pytest.raises(ArtifactError, match="no whole measurement"):
        Measured.load(tmp_path)


@pytest.mark.parametrize("name", ["measured.json", "measured.safetensors", "made-from"])
def test_an_edited_measurement_is_made_again(measured, tmp_path, monkeypatch, name):
    judging = object.__new__(Judging)
    judging.key = "key"
    monkeypatch.setattr(Judging, "_folder", lambda self, kind: tmp_path / kind)
    made = []

    def kept():
        return judging._kept("dense", "digest", lambda: made.append(1) or measured[0])

    assert kept().prompts == kept().prompts
    assert len(made) == 1
    with (tmp_path / "measured-dense" / name).open("r+b") as stream:
        stream.seek(-2, 2)
        last = stream.read(1)
        stream.seek(-2, 2)
        stream.write(b"0" if last != b"0" else b"1")
    kept()
    assert len(made) == 2


def test_what_does_not_fit_together_is_named(measured):
    dense, pruned, real = measured
    flicker = build_metrics(["flicker"])
    with pytest.raises(InputError, match="fvd is a distance to real videos"):
        compare(dense, pruned)
    with pytest.raises(InputError, match="real videos were measured without fvd"):
        compare(dense, pruned, measure(DENSE, PROMPTS, flicker))
    with pytest.raises(InputError, match="on 8 prompts, pruned on 2"):
        compare(dense, measure(DENSE[:2], PROMPTS[:2], flicker))
    with pytest.raises(InputError, match="dynamic was measured on one"):
        compare(dense, measure(DENSE, PROMPTS, flicker), real)
    with pytest.raises(InputError, match="psnr, which compares with dense itself"):
        compare(pruned, pruned, real)


def test_measure_counts_videos_and_names_the_one_that_fails():
    flicker = build_metrics(["flicker"])
    with pytest.raises(InputError, match="8 videos for 9 prompts"):
        measure(DENSE, [*PROMPTS, "more"], flicker)
    with pytest.raises(InputError, match="more than 7 videos"):
        measure(DENSE, PROMPTS[:7], flicker)
    with pytest.raises(InputError, match="no videos"):
        measure([], [], flicker)
    with pytest.raises(InputError, match="psnr compares with the dense"):
        measure(DENSE, PROMPTS, build_metrics(["psnr"]))
    with pytest.raises(InputError, match="1 reference videos for 8"):
        measure(DENSE, PROMPTS, build_metrics(["psnr"]), reference=DENSE[:1])
    with pytest.raises(InputError, match="video 2 of 2: a video is float64"):
        measure([DENSE[0], DENSE[1].astype(float)], PROMPTS[:2], flicker)
    with pytest.raises(InputError, match="prompt_digit has no value for any of 8"):
        measure(DENSE, PROMPTS, build_metrics(["prompt_digit"]))
    with pytest.raises(InputError, match="equal frame counts"):
        measure([DENSE[0], DENSE[1][:2]], PROMPTS[:2], build_metrics(["fid"], Networks(fid=Corners())))


def test_metrics_are_built_by_name(tmp_path):
    script = save_script(VideoFeatures(), tmp_path / "net.pt")
    given = Networks(fvd=script, fid=Corners())
    names = [name for name in INFO if name not in {"lpips", "clipsim"}]
    assert [metric.info.name for metric in build_metrics(names, given)] == names
    assert measure(DENSE[:2], PROMPTS[:2], build_metrics(["fvd"], given)).features["fvd"].shape == (2, 1, 6)
    with pytest.raises(InputError, match=r"no metric 'pnsr': choose from psnr"):
        build_metrics(["pnsr"])
    with pytest.raises(InputError, match="one twice"):
        build_metrics(["psnr", "psnr"])
    for name in ("lpips", "clipsim", "fvd", "fid"):
        with pytest.raises(InputError, match=f"metric {name} needs a network"):
            build_metrics([name])
