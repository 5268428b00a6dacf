"""The file that an interrupted run leaves."""

import json
import logging
from dataclasses import replace

import numpy as np
import pytest

from configs import UserError
from inference import partial as partial_module
from inference.detections import Event
from inference.partial import PartialResults
from tests.inference.written import recording


def through_json(state: dict) -> dict:
    """As the file of an interrupted run gives it back."""
    line = json.dumps(state, default=partial_module._array_to_json)
    return json.loads(line, object_hook=partial_module._array_from_json)


# An interrupted run -------------------------------------------------------------------------------


def test_recordings_come_back_as_they_were(tmp_path, rng):
    first = recording(scores=rng.random((2, 3, 4), np.float32), events=(Event(0.5, 1.25, 3, 0.75),))
    second = recording(
        "b.ogg",
        scores=np.zeros((2, 0, 4), np.float32),
        status="unreadable",
        reason="cut",
        seconds=0.0,
    )
    partial = PartialResults(tmp_path / "x.partial", {"model": "m"})
    partial.add(first, [10, 20])
    partial.add(second, [11, 21])
    partial.close()
    partial = PartialResults(tmp_path / "x.partial", {"model": "m"})
    for old in (second, first):
        new = partial[old.name]
        assert np.array_equal(new.scores, old.scores) and new.scores.dtype == np.float32
        assert np.array_equal(new.starts_s, old.starts_s)
        assert (new.status, new.reason, new.seconds, new.events) == (
            old.status,
            old.reason,
            old.seconds,
            old.events,
        )
    assert partial.holds("a.ogg", [10, 20])
    assert not partial.holds("a.ogg", [10, 99]) and not partial.holds("c.ogg", [10, 20])
    partial.close(delete=True)
    assert list(tmp_path.iterdir()) == []


def test_parts_of_a_recording_are_put_together(tmp_path, rng):
    scores = rng.random((2, 7, 3), np.float32)
    whole = recording(scores=scores, status="truncated", reason="cut", seconds=34.0)
    partial = PartialResults(tmp_path / "x.partial", {})
    partial.add(
        replace(whole, scores=scores[:, :6] * 0, starts_s=whole.starts_s[:6]), [1, 1]
    )  # of an earlier file
    for first, last in ((0, 3), (3, 5)):
        part = replace(
            whole,
            scores=scores[:, first:last],
            starts_s=whole.starts_s[first:last],
            status="unfinished",
        )
        partial.add(part, [2, 2], first)
        partial.add(recording(f"other{first}"), [1, 1])
    partial.close()
    partial = PartialResults(tmp_path / "x.partial", {})
    assert not partial.holds("a.ogg", [2, 2])
    assert (partial.n_windows("a.ogg", [2, 2]), partial.n_windows("a.ogg", [1, 1])) == (5, 0)
    assert partial.n_windows("b.ogg", [2, 2]) == 0
    partial.add(replace(whole, scores=scores[:, 5:], starts_s=whole.starts_s[5:]), [2, 2], first=5)
    assert partial.holds("a.ogg", [2, 2])
    found = partial["a.ogg"]
    assert np.array_equal(found.scores, scores) and np.array_equal(found.starts_s, whole.starts_s)
    assert (found.status, found.reason, found.seconds) == ("truncated", "cut", 34.0)
    partial.close()


def test_the_last_part_has_the_state_to_the_bit_and_its_frames(tmp_path, rng):
    arrays = {
        "f8": rng.standard_normal((3, 2)),
        "f4": np.array([np.nan, 1e-45], "f4"),
        "none": np.zeros((0, 5)),
    }
    arrays |= {"bool": np.array([True, False]), "i8": np.array([2**62, -1])}
    partial = PartialResults(tmp_path / "x.partial", {})
    frames = partial.frames_path("sub/a.ogg")
    frames.parent.mkdir(parents=True)
    frames.write_bytes(b"123456789, and more")
    counted = {"n_bytes": 9, "crc32": 0xCBF43926}  # the check value of CRC-32
    part = recording(
        "sub/a.ogg", status="unfinished", events=(Event(2.5, 3.0, 1, 0.5), Event(0.5, 1.0, 0, 0.5))
    )
    partial.add(part, [1, 1], 0, {"frames": None})
    partial.add(part, [1, 1], 2, {"frames": counted, "arrays": arrays, "number": 7})
    partial.close()
    partial = PartialResults(tmp_path / "x.partial", {})
    assert partial.state("sub/a.ogg", [1, 2]) is None and partial.state("b.ogg", [1, 1]) is None
    state = partial.state("sub/a.ogg", [1, 1])
    assert state["number"] == 7 and state["frames"] == counted
    for name, array in arrays.items():
        again = state["arrays"][name]
        assert (again.dtype, again.shape, again.tobytes()) == (
            array.dtype,
            array.shape,
            array.tobytes(),
        )
    partial.add(recording("sub/a.ogg", events=(Event(0.0, 9.0, 2, 0.5),)), [1, 1], 4)
    assert partial.state("sub/a.ogg", [1, 1]) is None and not frames.exists()
    assert [event.start_s for event in partial["sub/a.ogg"].events] == [0.0, 0.5, 0.5, 2.5, 2.5]
    partial.close(delete=True)
    assert list(tmp_path.iterdir()) == []


def test_a_line_cut_off_anywhere_costs_that_recording_alone(tmp_path):
    path = tmp_path / "x.partial"
    partial = PartialResults(path, {"model": "m"})
    partial.add(recording("a.ogg"), [1, 1])
    whole = path.stat().st_size
    partial.add(recording("b.ogg"), [2, 2])
    partial.close()
    content = path.read_bytes()
    for length in (whole, whole + 1, whole + 50, len(content) - 1):
        path.write_bytes(content[:length])
        partial = PartialResults(path, {"model": "m"})
        assert partial.holds("a.ogg", [1, 1]) and not partial.holds("b.ogg", [2, 2])
        partial.add(recording("b.ogg"), [2, 2])
        assert np.array_equal(partial["b.ogg"].scores, partial["a.ogg"].scores)
        partial.close()
        assert path.read_bytes() == content


def test_other_settings_start_anew_and_say_which(tmp_path, caplog):
    path = tmp_path / "x.partial"
    partial = PartialResults(path, {"model": "m", "stride_s": 5})
    partial.add(recording(), [1, 1])
    partial.frames_path("sub/b.ogg").parent.mkdir(parents=True)
    partial.frames_path("sub/b.ogg").write_bytes(b"frames")
    partial.close()
    with caplog.at_level(logging.WARNING):
        partial = PartialResults(path, {"model": "m", "stride_s": 2})
    assert "stride_s changed" in caplog.text and "model" not in caplog.text
    left = {one.name for one in tmp_path.iterdir()}
    assert not partial.holds("a.ogg", [1, 1]) and left == {"x.partial", "x.partial.lock"}
    partial.close()


def test_a_second_run_is_kept_out(tmp_path):
    partial = PartialResults(tmp_path / "x.partial", {})
    with pytest.raises(UserError, match="another run"):
        PartialResults(tmp_path / "x.partial", {})
    partial.close()
