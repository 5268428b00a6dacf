"""How likely species are at a site, and how far that moves their scores there."""

import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from configs import UserError
from files import original_cell
from inference.text_files import read_records

SITE_COLUMNS = ("site", "species", "prior")
LEAST_PRIOR, MOST_PRIOR = 1e-3, 1 - 1e-3  # a table says nothing surer than this


def read_site_shifts(
    path: Path, class_names: Sequence[str], weight: float
) -> dict[str, np.ndarray]:
    """Read what is added to the logits at each site.

    The shift of a species at a site is weight * (logit(prior) - logit(mean prior over the sites of
    the table)). A species that the table does not name at a site is not shifted there.

    Args:
        path: CSV with the columns site, species and prior, a chance from 0 to 1.
        class_names: C labels.
        weight: 0 leaves scores as they are; 0.5 served in BirdCLEF 2026.

    Returns:
        (C,) float64 by site.

    Raises:
        UserError: it cannot be read, lacks a column, has a prior that is none, or names no class.
    """
    rows, header = read_records(path, f"--site-prior {path}: cannot be read")
    if missing := [name for name in SITE_COLUMNS if name not in header]:
        raise UserError(f"--site-prior {path}: no column {missing[0]}; it has {', '.join(header)}")

    priors: dict[str, dict[str, float]] = defaultdict(dict)  # by species and site
    for line, row in enumerate(rows, 2):
        site, species = original_cell(row["site"]), original_cell(row["species"])
        where = f"--site-prior {path}: row {line}"
        prior = _read_prior(row["prior"], where)
        if priors[species].setdefault(site, prior) != prior:
            raise UserError(f"{where}: {species} has another prior at {site} above; keep one")
    if not priors.keys() & set(class_names):
        raise UserError(f"--site-prior {path}: none of its species is a class of the model")

    sites = {site for of_species in priors.values() for site in of_species}
    shifts = {site: np.zeros(len(class_names)) for site in sites}
    for number, species in enumerate(class_names):
        of_species = priors.get(species, {})
        for site, prior in of_species.items():
            mean = sum(of_species.values()) / len(of_species)
            shifts[site][number] = weight * (_logit(prior) - _logit(mean))
    return shifts


def _read_prior(text: str, where: str) -> float:
    try:
        prior = float(text.replace(",", "."))
    except (TypeError, ValueError):
        prior = math.nan
    if not 0 <= prior <= 1:
        raise UserError(f"{where}: the prior {text!r} is no number from 0 to 1")
    return prior


def _logit(chance: float) -> float:
    clipped = min(max(chance, LEAST_PRIOR), MOST_PRIOR)
    return math.log(clipped / (1 - clipped))
