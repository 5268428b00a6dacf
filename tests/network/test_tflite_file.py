"""Texts in a TFLite file, and the interpreter that opens it."""

import sys

import pytest

from network.tflite_file import add_texts, open_interpreter, read_text


def test_texts_lie_behind_the_graph_and_are_read_again(tmp_path):
    paths = [tmp_path / "one.tflite", tmp_path / "two.tflite"]
    graph = bytes(range(256)) * 40
    for path in paths:
        path.write_bytes(graph)
        add_texts(path, {"labels.txt": "Grünfink\nblack redstart\n", "other": "{}"})
    assert read_text(paths[0], "labels.txt") == "Grünfink\nblack redstart\n"
    assert read_text(paths[0], "other") == "{}" and read_text(paths[0], "none") is None
    made = paths[0].read_bytes()
    assert made.startswith(graph) and made == paths[1].read_bytes()


def test_a_file_of_someone_else_has_no_texts(tmp_path):
    path = tmp_path / "other.tflite"
    path.write_bytes(b"a graph and nothing behind it")
    assert read_text(path, "labels.txt") is None


def test_a_file_is_opened_with_what_was_asked_for(tmp_path, fake_litert):
    interpreter = open_interpreter(tmp_path / "a.tflite", 3, every_tensor=True)
    assert interpreter.given == {"num_threads": 3, "experimental_preserve_all_tensors": True}
    assert interpreter.path == str(tmp_path / "a.tflite") and interpreter.is_allocated


def test_without_the_library_the_error_names_it(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "ai_edge_litert.interpreter", raising=False)
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    with pytest.raises(ModuleNotFoundError, match="ai_edge_litert"):
        open_interpreter(tmp_path / "a.tflite")
