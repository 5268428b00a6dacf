"""Which species and detections are written, and their names."""

import numpy as np
import pandas as pd
import pytest

from configs import Config, UserError
from inference import selection as selection_module
from inference.detections import Event
from inference.formats import write
from tests.inference.written import CLASSES, NAMES, one, selection


@pytest.mark.parametrize(
    "header",
    [
        "TAXON_ORDER,CATEGORY,SPECIES_CODE,SCI_NAME,PRIMARY_COM_NAME",
        "x,y,primary_label,scientific_name,common_name",
    ],
)
def test_taxonomies_of_ebird_and_birdclef_are_read(tmp_path, header):
    (tmp_path / "t.csv").write_text(
        f"{header}\n1,species,bird0,Turdus merula,Common Blackbird\n", "utf-8-sig"
    )
    assert selection_module.read_taxonomy(tmp_path / "t.csv") == {
        "bird0": ("Turdus merula", "Common Blackbird")
    }


def test_a_taxonomy_may_have_semicolons_and_rows_that_end_early(tmp_path):
    text = "species_code;sci_name;primary_com_name\nbird0;Turdus merula;Merle noir\nbird1\n"
    (tmp_path / "t.csv").write_text(text)
    found = selection_module.read_taxonomy(tmp_path / "t.csv")
    assert found == {"bird0": ("Turdus merula", "Merle noir"), "bird1": ("", "")}


def test_metadata_give_names_where_they_have_them(tmp_path):
    table = tmp_path / "m.csv"
    config = Config(root=tmp_path, metadata_path=table)
    assert selection_module.read_metadata_names(config) == {}  # not there
    table.write_text("primary_label,filename\nbird1,a.ogg\n")
    assert selection_module.read_metadata_names(config) == {}
    table.write_text("primary_label,scientific_name,common_name\nbird1,Aves una,First bird\n")
    assert selection_module.read_metadata_names(config) == {"bird1": ("Aves una", "First bird")}


def test_what_is_no_taxonomy_is_refused_with_its_columns(tmp_path):
    (tmp_path / "t.csv").write_text("code,name\n")
    with pytest.raises(UserError, match="columns code, name, not species_code"):
        selection_module.read_taxonomy(tmp_path / "t.csv")


def test_a_species_list_may_have_accents_as_a_mac_writes_them(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("E\u0301tourneau\n", encoding="utf-8")
    found = selection_module.read_species(path, ["bird0", "\u00c9tourneau"], {})
    assert found.tolist() == [False, True]


def test_a_species_list_takes_labels_names_and_birdnets_lines(tmp_path, caplog):
    path = tmp_path / "list.txt"
    for line in ("bird0", "Turdus merula", "Common Blackbird", "Turdus merula_Common Blackbird"):
        path.write_text(f"# those of the site\n\n{line}\nDodo\n")
        assert selection_module.read_species(path, CLASSES, NAMES).tolist() == [True, False, False]
    assert "1 species are no classes of the model (Dodo)" in caplog.text
    path.write_text("Turdus merula\n")
    with pytest.raises(
        UserError, match="none of its 1 lines is a class of the model; give a --taxonomy"
    ):
        selection_module.read_species(path, CLASSES, {})


def test_each_species_has_its_own_threshold_in_every_list(tmp_path):
    """The scores are 0.9 0.1 0.3, then 0.2 0.6 0.7, then 0.1 0.2 0.3."""
    thresholds = np.array([0.3, 0.65, 0.7])
    chosen = selection(thresholds=thresholds, threshold=0.3)
    found = [(event.start_s, event.species) for event in chosen.found(one(), 0.3)]
    assert found == [(0, 0), (5, 2)]

    events = (Event(0.0, 1.0, 0, 0.4), Event(0.0, 1.0, 1, 0.4), Event(2.0, 3.0, 2, 0.7))
    chosen = selection(thresholds=thresholds, threshold=0.3, events=True)
    found = [event.species for event in chosen.found(one(events=events), 0.3)]
    assert found == [0, 2]

    chosen = selection(thresholds=thresholds, threshold=0.3)
    write(tmp_path / "s.csv", "submission-2021", [one()], chosen)
    assert pd.read_csv(tmp_path / "s.csv")["birds"].tolist() == ["bird0", "22961", "nocall"]
