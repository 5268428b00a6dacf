"""Facts of a made-up archive: a hundred recordings of ten species on a small machine."""

from dataclasses import replace

from planning.facts import Facts

PLAIN = Facts(
    n_recordings=1200, hours=6.0, seconds=18.0, longest_s=30.0, n_species=10, least=80, median=120,
    most=160, labels_a_row=1.3, background_share=0.2, usual_rate=44_100, used_hz=18_000,
    low_hz=400, high_hz=9_000, call_s=0.2, short_call_s=0.1, active_share=0.2, stereo_share=0.1,
    clipped_share=0.0, silent_share=0.0, loudness_db=-25, n_copies=0, groupings=(),
    published_folds=0, is_annotated=False, label_s=0.0, has_backgrounds=False, cores=4,
    memory_gb=16, device="cpu", device_gb=0, disk_gb=100,
)  # fmt: skip


def facts(**changes) -> Facts:
    return replace(PLAIN, **changes)
