"""Real videos, encoded here in the layouts that the data sets have."""

from __future__ import annotations

import json

import av
import numpy as np
import pytest

from f3prune.core.errors import InputError
from f3prune.quality.datasets import RealVideo, captions, decode, prompt_of_class, ucf101

CODECS = {".avi": "mpeg4", ".mp4": "libx264"}


def encode(path, frames=20, height=48, width=64):
    """A video whose frame number i is a grey of 10 i, darker in its left quarter."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(CODECS[path.suffix], rate=8)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = width, height, "yuv420p", 4_000_000
        for index in range(frames):
            image = np.full((height, width, 3), 10 * index, np.uint8)
            image[:, : width // 4] //= 4
            for packet in stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def levels(frames):
    """The grey of each frame in its middle, in steps of 10 of 255: the frame's number."""
    return frames[:, frames.shape[1] // 2, frames.shape[2] // 2].mean(axis=-1) * 25.5


@pytest.fixture
def ucf(tmp_path):
    for name in ("ApplyEyeMakeup", "YoYo", "HandstandPushups"):
        for group in (1, 2):
            encode(tmp_path / "UCF-101" / name / f"v_{name}_g0{group}_c01.avi")
    return tmp_path / "UCF-101"


@pytest.mark.parametrize("suffix", [".avi", ".mp4"])
def test_frames_are_those_asked_for(tmp_path, suffix):
    video = RealVideo("a grey", encode(tmp_path / f"video{suffix}"))
    every = decode(video, 20, 48, 64, sampling="even")
    assert (every.shape, every.dtype) == ((20, 48, 64, 3), np.float32)
    assert levels(every) == pytest.approx(np.arange(20), abs=0.5)
    assert levels(decode(video, 4, 48, 64, sampling="even")) == pytest.approx([0, 6, 13, 19], abs=0.5)
    run = levels(decode(video, 5, 48, 64))
    assert np.diff(run) == pytest.approx(np.ones(4), abs=0.5)
    assert np.array_equal(levels(decode(video, 5, 48, 64)), run)
    starts = {round(levels(decode(video, 5, 48, 64, seed=seed))[0]) for seed in range(12)}
    assert len(starts) > 3


def test_frames_cover_the_size_and_keep_their_middle(tmp_path):
    video = RealVideo("a grey", encode(tmp_path / "video.mp4"))
    square = decode(video, 2, 24, 24, sampling="even")[-1]
    # The middle 48 of 64 columns are left: the dark quarter of 16 columns is 8 of them, 4 at half size.
    dark = square[12, :, 0] < 0.4
    assert dark[:3].all()
    assert not dark[6:].any()
    assert decode(video, 2, 96, 200).shape == (2, 96, 200, 3)


def test_ucf101_gives_classes_as_prompts(ucf):
    found = ucf101(ucf, samples=None)
    assert sorted({video.prompt for video in found}) == ["apply eye makeup", "handstand pushups", "yo yo"]
    assert len(found) == 6
    some = ucf101(ucf, samples=4, seed=1)
    assert some == ucf101(ucf, samples=4, seed=1)
    assert len({video.path for video in some}) == 4
    assert decode(some[0], 16, 32, 32).shape == (16, 32, 32, 3)


@pytest.mark.parametrize(
    ("name", "prompt"),
    [
        ("TaiChi", "tai chi"),
        ("Archery", "archery"),
        ("BasketballDunk", "basketball dunk"),
        ("CleanAndJerk", "clean and jerk"),
    ],
)
def test_class_names_become_words(name, prompt):
    assert prompt_of_class(name) == prompt


def test_what_is_no_ucf101_is_named(ucf, tmp_path):
    with pytest.raises(InputError, match="there is no directory"):
        ucf101(tmp_path / "absent")
    with pytest.raises(InputError, match="cannot draw 2048 videos of 6"):
        ucf101(ucf)
    with pytest.raises(InputError, match="no class directories: give the one above"):
        ucf101(ucf / "YoYo")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no videos"):
        ucf101(tmp_path / "empty")


def msr_vtt(root, names, captioned):
    for name in names:
        encode(root / "TrainValVideo" / f"{name}.mp4", frames=4)
    (root / "train_val_videodatainfo.json").write_text(
        json.dumps(
            {
                "videos": [{"video_id": name, "split": "train"} for name in captioned],
                "sentences": [
                    {"video_id": name, "caption": f"{name} caption {index}", "sen_id": index}
                    for name in captioned
                    for index in range(5)
                ],
            }
        )
    )
    return root


def test_msr_vtt_draws_one_caption_for_each_video(tmp_path):
    root = msr_vtt(tmp_path, ["video0", "video1", "video2"], ["video0", "video1", "video2"])
    found = captions(root)
    assert [video.path.stem for video in found] == ["video0", "video1", "video2"]
    assert all(video.prompt.startswith(f"{video.path.stem} caption ") for video in found)
    assert captions(root) == found
    assert len({tuple(video.prompt for video in captions(root, seed=seed)) for seed in range(5)}) > 1
    assert len(captions(root, samples=2)) == 2
    assert decode(found[0], 4, 32, 32).shape == (4, 32, 32, 3)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("captions.csv", 'file,caption\na.mp4,"one, with a comma"\nmore/b.avi,two\n'),
        ("captions.tsv", "caption\tfile\none, with a comma\ta\ntwo\tb.avi\n"),
        ("captions.jsonl", '{"file": "a", "caption": "one, with a comma"}\n\n{"file": "more/b", "caption": "two"}\n'),
    ],
)
def test_tables_and_json_lines(tmp_path, name, text):
    encode(tmp_path / "a.mp4", frames=2)
    encode(tmp_path / "more" / "b.avi", frames=2)
    (tmp_path / name).write_text(text)
    assert [(video.prompt, video.path.name) for video in captions(tmp_path)] == [
        ("one, with a comma", "a.mp4"),
        ("two", "b.avi"),
    ]


def test_captions_and_videos_that_do_not_meet_are_named(tmp_path):
    root = msr_vtt(tmp_path / "a", ["video0"], ["video0", "video7"])
    with pytest.raises(InputError, match=r"5 captions match no video in .*'video7'"):
        captions(root)
    assert len(captions(root, subset=True)) == 1
    with pytest.raises(InputError, match="5 captions match no video"):
        captions(msr_vtt(tmp_path / "b", ["other"], ["video0"]), subset=True)
    with pytest.raises(InputError, match=r"1 videos have no caption in .*video1\.mp4"):
        captions(msr_vtt(tmp_path / "c", ["video0", "video1"], ["video0"]))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.json", "{", "is not of MSR-VTT"),
        ("c.json", '{"videos": []}', "is not of MSR-VTT"),
        ("c.json", '{"sentences": []}', "holds no captions"),
        ("c.json", '{"sentences": [{"video_id": "a", "caption": 3}]}', "is not of MSR-VTT"),
        ("c.jsonl", '{"file": "a", "caption": "x"}\n{"file": "a"}', "line 2"),
        ("c.csv", "name,text\na,b\n", "has columns"),
        ("c.csv", "file,caption\na,b,c\n", "line 2: expected a file and a caption"),
        ("c.csv", "file,caption\na,\n", "line 2: expected a file and a caption"),
        ("c.csv", 'file,caption\na,"b\n', "mend its quotes"),
    ],
)
def test_broken_caption_files_are_named(tmp_path, name, text, message):
    encode(tmp_path / "a.mp4", frames=2)
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        captions(tmp_path)


def test_a_missing_or_ambiguous_caption_file_is_named(tmp_path):
    encode(tmp_path / "a.mp4", frames=2)
    with pytest.raises(InputError, match=r"one caption file .* found none"):
        captions(tmp_path)
    with pytest.raises(InputError, match="there is no caption file"):
        captions(tmp_path, tmp_path / "absent.csv")
    for name in ("a.csv", "b.json"):
        (tmp_path / name).write_text("")
    with pytest.raises(InputError, match=r"found a\.csv, b\.json"):
        captions(tmp_path)
    (tmp_path / "c.txt").write_text("a")
    with pytest.raises(InputError, match=r"ends in '\.txt'"):
        captions(tmp_path, tmp_path / "c.txt")


def test_broken_videos_are_named(tmp_path):
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    with pytest.raises(InputError, match=r"video .*text\.mp4 is broken"):
        decode(RealVideo("", text))
    whole = encode(tmp_path / "whole.avi", frames=20, height=240, width=320)
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 3])
    with pytest.raises(InputError, match=r"cut\.avi"):
        decode(RealVideo("", cut), 20)
    with pytest.raises(InputError, match="there is no video"):
        decode(RealVideo("", tmp_path / "absent.mp4"))
    with pytest.raises(InputError, match="has 20 frames, 21 are needed"):
        decode(RealVideo("", whole), 21)
    with pytest.raises(InputError, match="0 frames"):
        decode(RealVideo("", whole), 0)
