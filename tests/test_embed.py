"""embed.py from prepared recordings to a file of vectors, and probe.py on it."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import embed
import probe
from catalog.vectors import About, read_vectors, write_vectors
from configs import UserError
from training.teachers import Teacher


def mean_and_power(waveforms: np.ndarray) -> np.ndarray:
    return np.stack([waveforms.mean(1), np.square(waveforms).mean(1)], axis=1)


def test_windows_follow_each_other_and_a_rest_of_a_second_counts():
    teacher = Teacher("", "", 1000, 2000, mean_and_power)
    waveform = np.random.default_rng(1).standard_normal(5_500).astype(np.float32)
    starts, vectors = embed.embed_recording(waveform, teacher, None)
    np.testing.assert_array_equal(starts, [0, 2, 4])
    np.testing.assert_allclose(vectors[1, 0], waveform[2000:4000].mean(), atol=1e-6)
    assert len(embed.embed_recording(waveform[:4_900], teacher, None)[0]) == 2
    assert len(embed.embed_recording(waveform[:300], teacher, None)[0]) == 1
    np.testing.assert_array_equal(embed.embed_recording(waveform, teacher, 1.5)[0], [0, 1.5, 3])


def test_a_timm_networks_vectors_tell_tones_apart(df, config, tmp_path, capsys):
    path = tmp_path / "vectors.npz"
    flags = f"--root {config.root} --no-pretrained --n-mels 32 --period 1 --device cpu"
    embed.main(["timm:test_efficientnet", str(path), "--licence", "Apache-2.0", *flags.split()])
    assert "Apache-2.0" in capsys.readouterr().out
    vectors = read_vectors(path)
    assert (vectors.about.window_s, vectors.about.licence) == (1.0, "Apache-2.0")

    config = replace(config, teacher_embeddings=path, teacher_features="alone")
    summary = probe.run(df, config)
    assert summary["mean"]["macro_ap"] > 0.9


@pytest.mark.parametrize("features", ["alone", "joined"])
def test_the_probe_hears_what_vectors_say(features, df, config, tmp_path):
    """Vectors that name the species decide the scores, even where the sound says otherwise."""
    names = [name.removesuffix(".npy") for name in df["filepath"]]
    says = (pd.factorize(df["primary_label"], sort=True)[0] + 1) % 3  # a class too far
    shuffled = df.assign(primary_label=[f"bird{number}" for number in says])
    shuffled["labels"] = shuffled["primary_label"]
    shuffled = shuffled.assign(primary_label=np.roll(shuffled["primary_label"], 5))
    shuffled["labels"] = shuffled["primary_label"]
    vector = np.eye(3)[pd.factorize(shuffled["primary_label"], sort=True)[0]]
    path = tmp_path / "vectors.npz"
    write_vectors(path, names, np.zeros(len(names)), vector, About("oracle", "CC0", 2.5))

    config = replace(config, teacher_embeddings=path, teacher_features=features)
    summary = probe.run(shuffled, config)
    assert summary["mean"]["macro_ap"] == pytest.approx(1.0)
    folder = config.models_dir / "Exp_47_probe/fold_0"
    assert not list(folder.glob("*.pth"))
    assert "oracle (CC0)" in (folder / "config.yaml").read_text()
    assert len(np.load(folder / "valid_predictions.npz")["scores"]) == (df["kfold"] == 0).sum()


def test_a_file_without_some_recordings_is_refused(df, config, tmp_path):
    path = tmp_path / "vectors.npz"
    write_vectors(path, ["bird0/0.ogg"], np.zeros(1), np.ones((1, 2)), About("", "", 1.0))
    config = replace(config, teacher_embeddings=path, teacher_features="alone")
    with pytest.raises(UserError, match="no vectors of 23 of 24 recordings"):
        probe.run(df, config)


def test_mistakes_are_one_line(tmp_path):
    with pytest.raises(UserError, match=r"ends in \.npz or \.parquet"):
        embed.main(["birdnet", str(tmp_path / "vectors.csv")])
    with pytest.raises(UserError, match="--step"):
        embed.main(["birdnet", str(tmp_path / "vectors.npz"), "--step", "0"])
