"""A small archive for plans: three species, one recording that is no sound."""

from pathlib import Path

import numpy as np
import soundfile

RATES = (16_000, 32_000)


def make_planned(root: Path) -> None:
    """Twelve recordings in data/, and a table with authors; the first is no sound."""
    rows = ["primary_label,secondary_labels,author,filename"]
    rng = np.random.default_rng(4)
    for number in range(12):
        label = ("robin", "wren", "tit")[number % 3]
        rate = RATES[number % 2]
        time = np.arange(3 * rate) / rate
        tone = np.sin(2 * np.pi * (1500 + 1500 * (number % 3)) * time) * (time % 1 < 0.3)
        waveform = 0.3 * tone + 0.002 * rng.standard_normal(len(time))

        path = root / "data/train_audio" / label / f"r{number}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        stereo = np.stack([waveform] * 2, axis=1)
        soundfile.write(path, stereo if number == 5 else waveform, rate)
        others = "['wren']" if number == 0 else "[]"
        rows.append(f"{label},{others},{'Ann' if number < 6 else 'Bo'},{label}/r{number}.flac")
    (root / "data/train_audio/robin/r0.flac").write_bytes(b"fLaC and then nothing")
    (root / "data/train_metadata.csv").write_text("\n".join(rows) + "\n")
