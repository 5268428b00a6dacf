"""Which setting follows from which fact: a table of rules, each with its evidence.

A rule looks at the facts and at the settings that the rules above it have chosen. It gives a value,
or LEAVE where the recipe or the default stands.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from audio.mel import count_empty_bands
from network.memory_format import pick_format
from planning.facts import Facts

LEAVE = object()
NO_EVIDENCE = "no evidence: a rule of thumb"
USUAL_RATES = (16_000, 24_000, 32_000, 48_000, 96_000, 192_000, 256_000, 384_000)  # Hz
USUAL = 32_000  # Hz, of every competition's networks
FEW, SMALL = 5, 50  # recordings of the median species
RECIPE_EPOCHS = {"few_shot": 10, "small_set": 16, "single_label": 30, "birdclef_2023": 50}
MOST_OF_DISK = 0.5  # that prepared recordings may take
USED_FOR_EPOCHS = 0.85  # of the hours: the rest is preparing, the probe and checkpoints

Chosen = Mapping[str, Any]


@dataclass(frozen=True)
class Rule:
    """How one setting is decided.

    Attributes:
        setting: field of Config; `recipe` is the file that the others start from.
        fact: what is looked at.
        threshold: where the decision turns.
        decide: facts and settings chosen so far to a value, or LEAVE.
        reason: one line, with fields of Facts in braces.
        source: the evidence, or NO_EVIDENCE.
    """

    setting: str
    fact: str
    threshold: str
    decide: Callable[[Facts, Chosen], Any]
    reason: str
    source: str

    def why(self, facts: Facts) -> str:
        """The reason with this archive's numbers."""
        return self.reason.format_map(vars(facts))


# Decisions ----------------------------------------------------------------------------------------


def _recipe(facts: Facts, _: Chosen) -> str:
    if facts.median <= FEW and not facts.has_backgrounds:
        return "few_shot"
    if facts.median > SMALL or facts.is_annotated:
        return "birdclef_2023"
    return "small_set" if facts.has_backgrounds or facts.background_share else "single_label"


def _sample_rate(facts: Facts, _: Chosen) -> int:
    wanted = 2 * min(facts.used_hz, facts.high_hz * 1.1)
    if facts.usual_rate >= USUAL and USUAL_RATES[0] < wanted <= USUAL:
        return USUAL
    fitting = [rate for rate in USUAL_RATES if rate >= 0.98 * wanted]
    return min(
        fitting[0] if fitting else USUAL_RATES[-1], max(USUAL_RATES[0], _nearest(facts.usual_rate))
    )


def _nearest(rate: float) -> int:
    return min(USUAL_RATES, key=lambda one: abs(math.log(one / rate)))


def _fmin(facts: Facts, _: Chosen) -> float:
    return 20.0 if facts.low_hz < 100 else 50.0


def _fmax(facts: Facts, chosen: Chosen) -> float:
    wanted = 500 * math.ceil(1.1 * facts.high_hz / 500)
    return float(min(chosen["sample_rate"] / 2, max(8000, wanted)))


def _n_fft(facts: Facts, chosen: Chosen) -> int:
    size = 2 ** round(math.log2(0.064 * chosen["sample_rate"]))
    return size // 2 if facts.short_call_s < 0.03 and facts.call_s < 0.06 else size


def _hop_length(facts: Facts, chosen: Chosen) -> int:
    wanted_s = min(0.016, max(0.010, facts.short_call_s / 4))
    return 32 * round(wanted_s * chosen["sample_rate"] / 32)


def _n_mels(facts: Facts, chosen: Chosen) -> int:
    names = ("sample_rate", "n_fft", "fmin", "fmax")
    bank = {name: chosen[name] for name in names}
    return next((n for n in (224, 192, 160, 128) if not count_empty_bands(n_mels=n, **bank)), 64)


def _period(facts: Facts, _: Chosen) -> float:
    if facts.is_annotated and facts.label_s > 0:
        return float(min(10, max(3, math.ceil(facts.label_s))))
    if facts.call_s > 3 and facts.seconds >= 10:
        return 10.0
    return float(min(5, max(1, math.ceil(facts.longest_s))))


def _max_seconds(facts: Facts, chosen: Chosen) -> Any:
    if facts.is_annotated:
        return LEAVE
    kept = disk_gb(facts, chosen["sample_rate"], 30.0, "int16")
    if kept <= MOST_OF_DISK * facts.disk_gb:
        return 60.0 if facts.median <= FEW and facts.longest_s > 30 else 30.0
    return float(max(5, math.floor(30 * MOST_OF_DISK * facts.disk_gb / kept)))


def _audio_dtype(facts: Facts, chosen: Chosen) -> str:
    kept = disk_gb(facts, chosen["sample_rate"], chosen["max_seconds"], "float32")
    room = min(MOST_OF_DISK * facts.disk_gb, facts.memory_gb or math.inf)
    return "int16" if kept > room else "float32"


def _n_folds(facts: Facts, _: Chosen) -> int:
    if facts.published_folds:
        return facts.published_folds
    return 5 if facts.median >= 5 else 4


def _fold_group(facts: Facts, chosen: Chosen) -> Any:
    if facts.published_folds:
        return "fold"
    fitting = [
        one.column
        for one in facts.groupings
        if one.scorable >= 0.8 and one.n_groups >= 2 * chosen["n_folds"]
    ]
    return fitting[0] if fitting else LEAVE


def _sampling(facts: Facts, _: Chosen) -> str:
    return "square_root" if facts.most >= 10 * max(1, facts.least) else "rows"


def _loss_name(facts: Facts, chosen: Chosen) -> str:
    if chosen["recipe"] in ("few_shot", "small_set", "single_label"):
        return "cross_entropy"
    return "cross_entropy" if facts.background_share < 0.05 else "bce_2way"


def _no_bird(facts: Facts, chosen: Chosen) -> Any:
    return LEAVE if facts.has_backgrounds else False


def _zero_without_backgrounds(facts: Facts, _: Chosen) -> Any:
    return LEAVE if facts.has_backgrounds else 0.0


def _valid_clips(facts: Facts, chosen: Chosen) -> int:
    if facts.is_annotated:
        return 1
    return int(min(6, max(1, facts.longest_s // chosen["period"])))


def _backbone(facts: Facts, _: Chosen) -> str:
    is_large = facts.device != "cpu" and facts.n_recordings > 2000
    return "tf_efficientnet_b0.ns_jft_in1k" if is_large else "tf_efficientnet_lite0"


def _channels_last(facts: Facts, chosen: Chosen) -> str:
    chosen_format = pick_format(chosen["base_model_name"], facts.device)
    return "on" if chosen_format.name == "channels_last" else "off"


def _train_bs(facts: Facts, chosen: Chosen) -> int:
    wanted = 64 if chosen["recipe"] == "birdclef_2023" else 16
    return min(wanted, facts.pace.batch) if facts.pace else wanted


def _num_workers(facts: Facts, _: Chosen) -> int:
    by_memory = int(facts.memory_gb // 2) if facts.memory_gb else 8
    return max(0, min(8, facts.cores, by_memory))


def _rare_birds(facts: Facts, _: Chosen) -> list[str]:
    return []


def _probe_below(facts: Facts, _: Chosen) -> Any:
    return 100_000 if facts.n_recordings < 20_000 else LEAVE


def _folds(facts: Facts, chosen: Chosen) -> list[int]:
    everything = list(range(chosen["n_folds"]))
    if facts.hours_wanted is None or facts.pace is None:
        return everything
    wanted = RECIPE_EPOCHS[chosen["recipe"]]
    fitting = facts.hours_wanted * 3600 * USED_FOR_EPOCHS / (epoch_s(facts, chosen) * wanted / 2)
    return everything[: max(1, int(fitting))]


def _epochs(facts: Facts, chosen: Chosen) -> int:
    wanted = RECIPE_EPOCHS[chosen["recipe"]]
    if facts.hours_wanted is None or facts.pace is None:
        return wanted
    for_a_fold = facts.hours_wanted * 3600 * USED_FOR_EPOCHS / len(chosen["folds"])
    most = wanted if chosen["frozen_epochs"] else 2 * wanted
    return max(1, min(most, int(for_a_fold / epoch_s(facts, chosen))))


def _scheduler_params(_: Facts, chosen: Chosen) -> Any:
    if chosen["scheduler_name"] != "linear_warmup_cosine":
        return LEAVE
    return {"warmup_epochs": round(chosen["epochs"] / 10, 1)}


def disk_gb(facts: Facts, sample_rate: int, max_seconds: float, dtype: str) -> float:
    """Room that prepared recordings take, in GB, taking all for as long as the mean."""
    mean_s = facts.hours * 3600 / max(1, facts.n_recordings)
    n_bytes = {"float32": 4, "int16": 2}[dtype]
    return facts.n_recordings * min(mean_s, max_seconds) * sample_rate * n_bytes / 1e9


def epoch_s(facts: Facts, chosen: Chosen) -> float:
    """Seconds that an epoch takes at the measured pace, with its validation."""
    assert facts.pace is not None
    n_held_back = facts.n_recordings / chosen["n_folds"]
    n_trained = (facts.n_recordings - n_held_back) * chosen["clips_per_recording"]
    return (
        n_trained / facts.pace.train_per_s
        + n_held_back * chosen["valid_clips"] / facts.pace.valid_per_s
    )


# The table ----------------------------------------------------------------------------------------

MEASURED = "docs/recipes.md"
RULES = (
    Rule(
        "recipe", "recordings of the median species; labels a recording; backgrounds",
        f"{FEW} and {SMALL} recordings", _recipe,
        "median species: {median:g} recordings; {background_share:.0%} with a further label",
        f"{MEASURED}: small_set.yaml against its probe; the others: no evidence here",
    ),
    Rule(
        "sample_rate", "99 % of what stands out, the native rates",
        "twice the highest frequency; 32 kHz where it fits", _sample_rate,
        "99 % of what stands out lies below {high_hz:.0f} Hz; recorded up to {used_hz:.0f} Hz, "
        "at {usual_rate} Hz",
        "32 kHz in every placed entry of BirdCLEF 2021 to 2026",
    ),
    Rule(
        "fmin", "1 % of what stands out", "100 Hz", _fmin,
        "99 % of what stands out lies above {low_hz:.0f} Hz",
        "20 to 50 Hz in most placed entries of BirdCLEF; " + NO_EVIDENCE,
    ),
    Rule(
        "fmax", "99 % of what stands out", "a tenth above it, 8 kHz at least", _fmax,
        "99 % of what stands out lies below {high_hz:.0f} Hz",
        "14 to 16 kHz in placed entries of BirdCLEF; the fit to the archive: " + NO_EVIDENCE,
    ),
    Rule(
        "n_fft", "length of calls", "30 and 60 ms", _n_fft,
        "frames of 64 ms; calls last {call_s:.2f} s, short ones {short_call_s:.3f} s",
        "2048 at 32 kHz in most placed entries of BirdCLEF",
    ),
    Rule(
        "hop_length", "the shortest calls", "a quarter of it, 10 to 16 ms",
        _hop_length, "a tenth of what stands out is in calls of up to {short_call_s:.3f} s",
        "BirdCLEF 2026, 7th place: 128 bands with hop 320 lifted 0.92 to 0.94",
    ),
    Rule(
        "n_mels", "rows that the weights were made for; empty bands",
        "224, fewer where a band would hold no frequency", _n_mels,
        "weights of ImageNet were made for 224 rows",
        "ESC-10, frozen lite0: 128, 224, 384 bands reach 87.0, 91.5, 88.3 % (five folds, 1.1)",
    ),
    Rule(
        "period", "length of recordings, calls and labels", "5 s; 10 s where calls last over 3 s",
        _period, "recordings last {seconds:.1f} s, calls {call_s:.2f} s",
        "5 s where competitions label 5 s; 2025: 20 s helped, 2023 and 2026: nothing or worse",
    ),
    Rule(
        "max_seconds", "free disk; recordings a species", "half of the free disk", _max_seconds,
        "{hours:.1f} h of recordings, {disk_gb:.0f} GB free", NO_EVIDENCE,
    ),
    Rule(
        "audio_dtype", "disk and memory", "half of the disk, all of the memory", _audio_dtype,
        "{disk_gb:.0f} GB of disk and {memory_gb:.0f} GB of memory", NO_EVIDENCE,
    ),
    Rule(
        "n_folds", "recordings of the median species; a column `fold`", "5 recordings", _n_folds,
        "median species: {median:g} recordings; published folds: {published_folds}",
        NO_EVIDENCE,
    ),
    Rule(
        "fold_group", "sites, authors, days",
        "the coarsest that leaves 80 % of the species in two groups", _fold_group,
        "a model may know the microphone in place of the bird",
        NO_EVIDENCE,
    ),
    Rule(
        "rare_birds", "species with few recordings", "none by name", _rare_birds,
        "rarest species: {least} recordings; train.py keeps species in training by itself",
        "the default names three species of BirdCLEF 2023",
    ),
    Rule(
        "sampling", "recordings of the largest and the smallest species", "ten times", _sampling,
        "{most} recordings of the commonest species, {least} of the rarest",
        "BirdCLEF 2023, 1st place: frequency to the power of -0.5; never measured alone",
    ),
    Rule(
        "loss_name", "labels a recording", "5 % with a further label", _loss_name,
        "{labels_a_row:.2f} labels a recording",
        "one label: cross-entropy (2024 to 2026 1st places, ESC recipes); many: BCE or focal",
    ),
    Rule(
        "no_bird_class", "backgrounds", "a folder of them", _no_bird,
        "no --background-dir is given", "the class is made of backgrounds",
    ),
    Rule(
        "negative_share", "backgrounds", "a folder of them", _zero_without_backgrounds,
        "no --background-dir is given", "negatives are made of backgrounds",
    ),
    Rule(
        "p_background", "backgrounds", "a folder of them", _zero_without_backgrounds,
        "no --background-dir is given", "2023 1st place: mixed in at 0.5; 2026 2nd place: no",
    ),
    Rule(
        "valid_clips", "length of recordings and clips", "up to 6 clips", _valid_clips,
        "recordings last {seconds:.1f} s, the longest tenth {longest_s:.1f} s and more",
        f"{MEASURED}: the probe was measured with 6",
    ),
    Rule(
        "base_model_name", "device; recordings", "a GPU and 2,000 recordings", _backbone,
        "{n_recordings} recordings on {device}",
        f"{MEASURED}: lite0; B0 stands within 0.015 mAP of the best transformer on BirdSet",
    ),
    Rule(
        "channels_last", "family of the backbone; device", "on CUDA not for NFNets, RegNets",
        _channels_last, "faster for EfficientNets",
        "timm's tables (RTX 3090): + 27 % EfficientNet-B0, - 56 % NFNet-L0, - 29 % RegNetY-032",
    ),
    Rule(
        "train_bs", "the recipe; what fits", "16 on small sets, else up to 64", _train_bs,
        "the largest batch that fits {device}, up to the recipe's",
        "placed entries of BirdCLEF: 32 to 64; small sets: 16 (" + MEASURED + ")",
    ),
    Rule(
        "num_workers", "processors, memory", "8; 2 GB each", _num_workers,
        "{cores} processors, {memory_gb:.0f} GB of memory", NO_EVIDENCE,
    ),
    Rule(
        "probe_below", "recordings", "20,000", _probe_below,
        "the probe takes minutes with {n_recordings} recordings, and training has to beat it",
        f"{MEASURED}: on small sets the defaults train to less than the probe",
    ),
    Rule(
        "folds", "--hours and the measured pace", "half of the recipe's epochs", _folds,
        "as many folds as get half of the recipe's epochs", NO_EVIDENCE,
    ),
    Rule(
        "epochs", "--hours and the measured pace", "the recipe's; twice them at most", _epochs,
        "the recipe's; with --hours as many as these allow",
        "at least 30 epochs or 10,000 steps on small sets; BirdCLEF 12 to 50",
    ),
    Rule(
        "scheduler_params", "epochs", "a tenth of them", _scheduler_params,
        "warm-up for a tenth of the epochs", "a tenth of the steps in most recipes",
    ),
)  # fmt: skip
