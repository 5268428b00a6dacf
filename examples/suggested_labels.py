r"""How many labels does `predict.py --suggest` save? Clips chosen as it does, against random ones.

    python examples/suggested_labels.py --pool 1600 --test 1600

makes clips of soundscapes: seven in ten hold no bird, and the commonest of eight invented species
sings eight times as often as the rarest. A linear head on measures of the log-mel is fitted to a
few labelled clips, suggests the next ones by the rule of inference/suggesting.py, is fitted again,
and so on; another one gets random clips. The table says what each reaches on other clips.
"""

import argparse
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np  # noqa: E402

from audio.mel import log_mel, mel_settings  # noqa: E402
from configs import Config  # noqa: E402
from examples.sample_songs import Recording, render_clip, render_recording  # noqa: E402
from inference.suggesting import POOL, farthest_first, unsureness  # noqa: E402

N_SPECIES = 8
SECONDS = 5.0  # of a clip
COMMONEST = 0.12  # share of the clips with the first species; the k-th has a k-th of it
UNHEARD = 0.02  # score of a species before it was heard
STRENGTH = 0.003  # inverse, of the regularisation of the head

Clips = tuple[np.ndarray, np.ndarray]  # features (n, d) and labels (n, N_SPECIES) of 0 and 1
Choose = Callable[[np.ndarray, np.ndarray, int, np.random.Generator], Sequence[int]]


# Clips --------------------------------------------------------------------------------------------


def make_clips(count: int, seed: int) -> Clips:
    """Make clips with none, one or several birds, by chance."""
    rng = np.random.default_rng(seed)
    labels = rng.random((count, N_SPECIES)) < COMMONEST / (1 + np.arange(N_SPECIES))
    config = Config(n_mels=64)
    features = [
        measure(render(np.flatnonzero(sings), (seed, number)), config)
        for number, sings in enumerate(labels)
    ]
    return np.stack(features), labels.astype(np.uint8)


def render(species: Sequence[int] | np.ndarray, seed: tuple[int, int]) -> np.ndarray:
    """Render a clip (n,) with these birds; without one, only the noise of its recording."""
    if not len(species):
        return render_clip(None, rng=np.random.default_rng(seed), seconds=SECONDS)
    first, *others = (int(one) for one in species)
    return render_recording(Recording("clip", first, tuple(others), SECONDS, seed))[:, 0]


def measure(waveform: np.ndarray, config: Config) -> np.ndarray:
    """Measure each mel band over time, and its changes: (5 * n_mels,) float32."""
    bands = log_mel(waveform, top_db=config.top_db, **mel_settings(config))  # (n_mels, n_frames)
    change = np.abs(np.diff(bands, axis=1))
    parts = [bands.mean(1), bands.std(1), bands.max(1), change.mean(1), change.max(1)]
    return np.concatenate(parts).astype(np.float32)


# Learning -----------------------------------------------------------------------------------------


def fit_scores(known: Clips, *others: np.ndarray) -> list[np.ndarray]:
    """Fit a head for each species, and score features (n, d) by it: (n, N_SPECIES) each."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    features, labels = known
    mean, deviation = features.mean(axis=0), features.std(axis=0) + 1e-4
    found = [np.full((len(one), N_SPECIES), UNHEARD) for one in others]
    for number in range(N_SPECIES):
        if labels[:, number].min() == labels[:, number].max():
            continue
        head = LogisticRegression(C=STRENGTH, max_iter=300)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            head.fit((features - mean) / deviation, labels[:, number])
        for scores, one in zip(found, others, strict=True):
            scores[:, number] = head.predict_proba((one - mean) / deviation)[:, 1]
    return found


def at_random(
    scores: np.ndarray, features: np.ndarray, count: int, rng: np.random.Generator
) -> Sequence[int]:
    """Choose any clips."""
    return rng.choice(len(scores), count, replace=False).tolist()


def as_suggested(
    scores: np.ndarray, features: np.ndarray, count: int, rng: np.random.Generator
) -> Sequence[int]:
    """Choose clips as predict.py --suggest does."""
    candidates = np.argsort(-unsureness(scores), kind="stable")[: POOL * count]
    return [int(candidates[place]) for place in farthest_first(features[candidates], count)]


CHOICES: dict[str, Choose] = {"random": at_random, "suggested": as_suggested}


def learn(
    pool: Clips, test: Clips, choose: Choose, *, batch: int, rounds: int, seed: int
) -> list[float]:
    """Label `batch` clips of the pool at random, then as many in each round as are chosen.

    Returns:
        Macro average precision on the test clips after each round, rounds + 1 numbers.
    """
    from sklearn.metrics import average_precision_score

    features, labels = pool
    rng = np.random.default_rng(seed)
    known = rng.choice(len(features), batch, replace=False)
    reached = []
    for number in range(rounds + 1):
        rest = np.setdiff1d(np.arange(len(features)), known)
        own, scores = fit_scores((features[known], labels[known]), features[rest], test[0])
        heard = [k for k in range(N_SPECIES) if test[1][:, k].any()]
        ap = [average_precision_score(test[1][:, k], scores[:, k]) for k in heard]
        reached.append(float(np.mean(ap)))
        if number < rounds:
            known = np.concatenate([known, rest[list(choose(own, features[rest], batch, rng))]])
    return reached


def labels_needed(counts: np.ndarray, random: np.ndarray, wanted: float) -> float:
    """Say how many random labels reach a score, between the rounds by a line; inf: none do."""
    best = np.maximum.accumulate(random)
    return float(np.interp(wanted, best, counts)) if wanted <= best[-1] else float("inf")


def main(args: Sequence[str] | None = None) -> None:
    """Make clips, let both learn, print what each reaches."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--pool", type=int, default=1600, help="clips to choose from (default: 1600)")
    add("--test", type=int, default=1600, help="clips to score on (default: 1600)")
    add("--batch", type=int, default=50, help="labels of a round (default: 50)")
    add("--rounds", type=int, default=7, help="rounds (default: 7)")
    add("--repeats", type=int, default=10, help="beginnings to average over (default: 10)")
    flags = parser.parse_args(args)

    pool, test = make_clips(flags.pool, 1), make_clips(flags.test, 2)
    how = {"batch": flags.batch, "rounds": flags.rounds}
    reached = {
        name: np.array([learn(pool, test, choose, seed=k, **how) for k in range(flags.repeats)])
        for name, choose in CHOICES.items()
    }
    counts = flags.batch * np.arange(1, flags.rounds + 2)
    mean = {name: scores.mean(axis=0) for name, scores in reached.items()}
    better = (reached["suggested"] > reached["random"]).sum(axis=0)
    print("labels  random  suggested  better in  random labels for the same score")
    for place, count in enumerate(counts):
        one, other = mean["random"][place], mean["suggested"][place]
        needed = labels_needed(counts, mean["random"], other)
        text = f"{needed:.0f}" if np.isfinite(needed) else f"over {counts[-1]}"
        wins = f"{better[place]} of {flags.repeats}"
        print(f"{count:6d}  {one:6.3f}  {other:9.3f}  {wins:>9}  {text}")


if __name__ == "__main__":
    main()
