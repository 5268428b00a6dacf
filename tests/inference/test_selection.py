"""Which species and detections are written, and their names."""

import pytest

from configs import UserError
from inference import selection as selection_module
from tests.inference.written import CLASSES, NAMES


@pytest.mark.parametrize("header", [
    "TAXON_ORDER,CATEGORY,SPECIES_CODE,SCI_NAME,PRIMARY_COM_NAME", "x,y,primary_label,scientific_name,common_name",
])  # fmt: skip
def test_taxonomies_of_ebird_and_birdclef_are_read(tmp_path, header):
    (tmp_path / "t.csv").write_text(
        f"{header}\n1,species,bird0,Turdus merula,Common Blackbird\n", "utf-8-sig"
    )
    assert selection_module.read_taxonomy(tmp_path / "t.csv") == {
        "bird0": ("Turdus merula", "Common Blackbird")
    }


def test_what_is_no_taxonomy_is_refused_with_its_columns(tmp_path):
    (tmp_path / "t.csv").write_text("code,name\n")
    with pytest.raises(UserError, match="columns code, name, not species_code"):
        selection_module.read_taxonomy(tmp_path / "t.csv")


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
