"""Labels with a time: every table that labs have, read to the same spans; windows by hand."""

import pytest

from catalog.annotations import parse_seconds, read_annotations
from configs import UserError

RECORDINGS = ["site_a/day_0.wav", "site_a/day_1.wav", "site_b/night.flac"]
SPANS = [("site_a/day_0.wav", 2.0, 3.0, "wren"), ("site_a/day_0.wav", 4.0, 5.5, "robin")]

RAVEN_HEADER = (
    "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)"
)
RAVEN = (
    f"{RAVEN_HEADER}\tSpecies\n"
    "1\tWaveform 1\t1\t2.0\t3.0\t1000\t6000\twren\n"
    "1\tSpectrogram 1\t1\t2.0\t3.0\t1000\t6000\twren\n"
    "2\tSpectrogram 1\t1\t4.0\t5.5\t1000\t6000\trobin\n"
)
RAVEN_COMBINED = (
    f"{RAVEN_HEADER}\tBegin Path\tFile Offset (s)\tCommon Name\n"
    "1\tSpectrogram 1\t1\t3602.0\t3603.0\t1000\t6000\tC:\\field\\site_a\\day_0.wav\t2.0\twren\n"
    "2\tSpectrogram 1\t1\t3604.0\t3605.5\t1000\t6000\tC:\\field\\site_a\\day_0.wav\t4.0\trobin\n"
)
BIRDNET = (
    "Start (s),End (s),Scientific name,Common name,Confidence,File\n"
    "2.0,3.0,Troglodytes troglodytes,wren,0.91,/data/field/site_a/day_0.wav\n"
    "4.0,5.5,Erithacus rubecula,robin,0.55,/data/field/site_a/day_0.wav\n"
)
AUDACITY = "2.000000\t3.000000\twren\n\\\t1000.0\t6000.0\n4.000000\t5.500000\trobin\n"


def read(tmp_path, name, text):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return read_annotations(path, RECORDINGS)


def rows(table):
    return list(table.itertuples(index=False, name=None))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("day_0.selections.txt", RAVEN),
        ("day_0.Table.1.selections.txt", RAVEN),
        ("day_0.txt", AUDACITY),
        ("all.txt", RAVEN_COMBINED),
        ("spans.csv", "filename,start,end,label\nday_0.wav,2,3,wren\nday_0.wav,4,5.5,robin\n"),
        ("spans.csv", "file;start_time;end_time;annotation\nday_0;2;3;wren\nday_0;4;5,5;robin\n"),
        (
            "spans.tsv",
            "onset\toffset\tspecies\tfile\n2\t3\twren\tday_0.wav\n4\t5.5\trobin\tday_0\n",
        ),
        (
            "clock.csv",
            "filename,start,end,label\nday_0.wav,00:00:02,0:03,wren\nday_0.wav,0:04,0:05.5,robin\n",
        ),
        (
            "hot.csv",
            "file,start_time,end_time,robin,wren\nday_0.wav,2,3,0,1\nday_0.wav,4,5.5,1,0\n",
        ),
        ("day_0.BirdNET.results.txt", "2.0\t3.0\twren\t0.91\n4.0\t5.5\trobin\t0.55\n"),
        ("day_0.txt", "2,000000\t3,000000\twren\r\n\\\t1000,0\t6000,0\r\n4,0\t5,5\trobin\r\n"),
        (
            "day_0.txt",
            RAVEN.replace("End Time (s)", "Delta Time (s)")
            .replace("3.0\t1000", "1.0\t1000")
            .replace("5.5\t", "1.5\t"),
        ),
        (
            "day_0.Table.2.selections.txt",
            RAVEN + "2\tSpectrogram 1\t2\t4.0\t5.5\t1000\t6000\trobin\n",
        ),
        (
            "kaleidoscope.csv",
            "INDIR,FOLDER,IN FILE,OFFSET,DURATION,MANUAL ID\n"
            "x,site_a,day_0.wav,2,1,wren\nx,site_a,day_0.wav,4,1.5,robin\n",
        ),
        ("spans.csv", "filename,tmin,tmax,label\nday_0.wav,2,3,wren\nday_0.wav,4,5.5,robin\n"),
        ("spans.csv", "file,from,to,tag\nday_0.wav,2 s,3s,wren\nday_0.wav,4 sec,5.5,robin\n"),
        (
            "spans.csv",
            "filename,start_ms,end_ms,label\nday_0.wav,2000,3000,wren\nday_0.wav,4000,5500,robin\n",
        ),
        (
            "cornell.csv",
            "Filename,Start Time (s),End Time (s),Low Freq (Hz),High Freq (Hz),Species eBird Code\n"
            "day_0.wav,2,3,1000,6000,wren\nday_0.wav,4,5.5,1000,6000,robin\n",
        ),
    ],
)
def test_every_kind_of_table_gives_the_same_spans(tmp_path, name, text):
    assert rows(read(tmp_path, name, text)) == SPANS


def test_birdnets_table_is_read_by_its_scientific_names(tmp_path):
    found = read(tmp_path, "out.csv", BIRDNET)
    assert list(found["label"]) in (
        ["Troglodytes troglodytes", "Erithacus rubecula"],
        ["wren", "robin"],
    )
    assert list(found["filename"].unique()) == ["site_a/day_0.wav"]


def test_a_folder_of_tables_may_hold_both_kinds(tmp_path):
    (tmp_path / "tables" / "site_b").mkdir(parents=True)
    (tmp_path / "tables" / "day_0.selections.txt").write_text(RAVEN)
    (tmp_path / "tables" / "site_b" / "night.txt").write_text("1\t2\towl\n")
    (tmp_path / "tables" / "README.txt").write_text("these tables are mine\n")
    found = read_annotations(tmp_path / "tables", RECORDINGS)
    assert rows(found) == [*SPANS, ("site_b/night.flac", 1.0, 2.0, "owl")]


def test_birdclefs_labelled_windows(tmp_path):
    text = "row_id,site,audio_id,seconds,birds\nnight_5,B,1,5,owl wren\nnight_10,B,1,10,nocall\n"
    assert rows(read(tmp_path, "train_soundscape_labels.csv", text)) == [
        ("site_b/night.flac", 0.0, 5.0, "owl"),
        ("site_b/night.flac", 0.0, 5.0, "wren"),
        ("site_b/night.flac", 5.0, 10.0, ""),
    ]


def test_an_annotated_recording_without_birds_is_kept_as_empty(tmp_path):
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "day_1.selections.txt").write_text(f"{RAVEN_HEADER}\tSpecies\n")
    (tmp_path / "t" / "day_0.selections.txt").write_text(RAVEN)
    assert ("site_a/day_1.wav", 0.0, 0.0, "") in rows(read_annotations(tmp_path / "t", RECORDINGS))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("filename,start,end,label\nday_0.wav,3,2,wren\n", r"row 2: starts at 3 s and ends at 2 s"),
        ("filename,start,end,label\nday_0.wav,-1,2,wren\n", r"row 2: '-1' is no time|starts at -1"),
        ("filename,start,end,label\nday_0.wav,soon,2,wren\n", r"row 2: 'soon' is no time"),
        ("filename,when,what\nday_0.wav,1,wren\n", r"no columns for start and end"),
        ("filename,start,end\nday_0.wav,1,2\n", r"no column for the label"),
        ("filename,start,end,label\nelsewhere.wav,1,2,wren\n", r"no labels with times"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_row(tmp_path, text, said):
    with pytest.raises(UserError, match=said):
        read(tmp_path, "spans.csv", text)


def test_a_name_that_fits_two_recordings_is_refused_and_a_path_tells_them_apart(tmp_path):
    recordings = ["a/20230501_050000.WAV", "b/20230501_050000.WAV"]
    table = tmp_path / "spans.csv"
    table.write_text("filename,start,end,label\n20230501_050000.WAV,1,2,wren\n")
    with pytest.raises(UserError, match="row 2.*fits a/20230501_050000.WAV and b/2023"):
        read_annotations(table, recordings)
    table.write_text("filename,start,end,label\nb/20230501_050000.WAV,1,2,wren\n")
    assert rows(read_annotations(table, recordings)) == [
        ("b/20230501_050000.WAV", 1.0, 2.0, "wren")
    ]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("62.5", 62.5), ("62,5", 62.5), ("1:02.5", 62.5), ("01:01:02", 3662.0), (" 0 ", 0.0)],
)
def test_times_by_hand(text, seconds):
    assert parse_seconds(text, "here") == seconds


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_audacitys_labels_in_any_encoding(tmp_path, encoding):
    path = tmp_path / "day_0.txt"
    path.write_bytes("2.0\t3.0\tpic \u00e9peiche\r\n".encode(encoding))
    found = rows(read_annotations(path, RECORDINGS))
    assert found == [("site_a/day_0.wav", 2.0, 3.0, "pic \u00e9peiche")]


def test_a_row_without_times_and_label_says_that_nothing_sings(tmp_path):
    text = "filename,start,end,label\nday_0.wav,,,nocall\nday_1.wav,,,\nnight.flac,1,2,owl\n"
    assert rows(read(tmp_path, "spans.csv", text)) == [
        ("site_a/day_0.wav", 0.0, 0.0, ""),
        ("site_a/day_1.wav", 0.0, 0.0, ""),
        ("site_b/night.flac", 1.0, 2.0, "owl"),
    ]
    with pytest.raises(UserError, match="row 2: '' is no time"):
        read(tmp_path, "spans.csv", "filename,start,end,label\nday_0.wav,,,wren\n")


def test_labels_are_spelled_alike_whatever_wrote_their_spaces_and_accents(tmp_path):
    composed, apart = "\u00c9tourneau", "E\u0301tourneau"
    text = f"0\t1\t{composed}\n2\t3\t{apart} \n4\t5\tGreat  tit\n"
    assert list(read(tmp_path, "day_0.txt", text)["label"]) == [composed, composed, "Great tit"]


def test_of_ravens_views_the_one_with_a_label_counts(tmp_path):
    text = (
        f"{RAVEN_HEADER}\tSpecies\n"
        "1\tWaveform 1\t1\t2.0\t3.0\t1000\t6000\t\n"
        "1\tSpectrogram 1\t1\t2.0\t3.0\t1000\t6000\twren\n"
        "2\tSpectrogram 1\t1\t4.0\t5.5\t1000\t6000\trobin\n"
        "2\tSpectrogram 1\t2\t4.0\t5.5\t1000\t6000\trobin\n"
        "2\tSpectrogram 1\t2\t4.0\t5.5\t1000\t6000\towl\n"
    )
    found = rows(read(tmp_path, "day_0.txt", text))
    assert found == [SPANS[0], ("site_a/day_0.wav", 4.0, 5.5, "owl"), SPANS[1]]


def test_an_empty_table_of_birdnet_says_that_its_recording_is_empty(tmp_path):
    (tmp_path / "t").mkdir()
    header = f"{RAVEN_HEADER}\tBegin Path\tCommon Name\n"
    (tmp_path / "t/day_1.BirdNET.selection.table.txt").write_text(header)
    assert rows(read_annotations(tmp_path / "t", RECORDINGS)) == [
        ("site_a/day_1.wav", 0.0, 0.0, "")
    ]


def test_what_a_program_was_unsure_of_is_said_to_be_taken_as_labels(tmp_path, caplog):
    read(tmp_path, "spans.csv", "filename,start,end,label\nday_0.wav,2,3,wren\n")
    assert "confidence" not in caplog.text
    read(tmp_path, "out.csv", BIRDNET)
    assert "1 tables have a column of confidence" in caplog.text
