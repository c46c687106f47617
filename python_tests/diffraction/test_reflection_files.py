"""Reflections from MTZ and CIF: the same table, and the same image to the bit, as from the rows that they stand for."""

import itertools
import tracemalloc

import gemmi
import numpy as np
import pytest
import torch

from sem.diffraction import Beam, Crystal, Detector, Reflections, Simulator, experiment_from
from sem.diffraction.files.reflection_list import open_reflections, unique_reflections, write_mtz

CELL = (30.0, 40.0, 50.0, 90.0, 90.0, 90.0)
COLUMNS = (("FP", "F"), ("SIGFP", "Q"))


def mtz(path, rows, columns=COLUMNS, group="P 21 21 21", cell=CELL, change=None):
    made = gemmi.Mtz(with_base=True)
    made.spacegroup = gemmi.SpaceGroup(group)
    made.set_cell_for_all(gemmi.UnitCell(*cell))
    made.add_dataset("native").wavelength = 0.97
    for label, kind in columns:
        made.add_column(label, kind)
    made.set_data(np.array(rows, np.float32))
    if change is not None:
        change(made)
    made.write_to_file(str(path))
    return path


def asymmetric_unit(high=4, seed=0):
    """Rows ``h k l F sigma`` of positive indices."""
    draw = np.random.default_rng(seed)
    places = [row for row in itertools.product(range(high), repeat=3) if any(row)]
    return [[*place, np.float32(draw.uniform(1, 90)), 1] for place in places]


def signs(h, k, m):
    """What is equivalent in P 21 21 21, with Friedel mates."""
    return {(a * h, b * k, c * m) for a, b, c in itertools.product((1, -1), repeat=3)}


def text(path, rows, equivalents=signs):
    lines = {place: row[3] for row in rows for place in equivalents(*row[:3])}
    path.write_text("".join(f"{h} {k} {m} {float(value)!r}\n" for (h, k, m), value in lines.items()))
    return path


def same(one, other):
    return one.first == other.first and torch.equal(one.table, other.table)


def image_of(reflections, cells=(6, 6, 6), **more):
    crystal = Crystal(CELL, cells=cells, misset=(10, 25, 40))
    return Simulator(crystal, Beam(1.0), Detector((64, 64), 0.4, 60.0, oversample=1), reflections, **more)()


@pytest.mark.parametrize("more", [{}, {"physics": "exact"}, {"interpolate": True, "cells": (2, 2, 2)}])
def test_mtz_to_image_to_mtz_is_the_same_to_the_bit(tmp_path, more):
    rows = asymmetric_unit()
    plain = Reflections.read(text(tmp_path / "a.hkl", rows))
    first = Reflections.read(mtz(tmp_path / "a.mtz", rows))
    image = image_of(plain, **more)
    assert float(image.max()) > 10 and torch.equal(image_of(first, **more), image)
    for group in ("P 1", "P 21 21 21"):
        write_mtz(tmp_path / "b.mtz", first.listed(CELL, group))
        again = Reflections.read(tmp_path / "b.mtz")
        assert same(again, first) and torch.equal(image_of(again, **more), image)
    assert len(open_reflections(tmp_path / "b.mtz").source.array) == len(rows)


def test_the_command_line_takes_mtz_where_it_takes_rows(tmp_path):
    rows = asymmetric_unit()
    flags = "-cell 30 40 50 90 90 90 -N 6 -detpixels 48 -pixel 0.4 -distance 60 -lambda 1 -oversample 1"
    images = [
        experiment_from([*flags.split(), "-hkl", str(path)]).simulator()
        for path in (text(tmp_path / "a.hkl", rows), mtz(tmp_path / "no_suffix", rows))
    ]
    assert float(images[0].max()) > 10 and torch.equal(*images)
    both = [*rows[0], 3.0]
    mtz(tmp_path / "b.mtz", [both], (("F1", "F"), ("SIG", "Q"), ("F2", "F")))
    chosen = experiment_from([*flags.split(), "-hkl", str(tmp_path / "b.mtz"), "-hkl_column", "F2"]).simulator
    assert float(chosen.reflections.table.max()) == 3
    with pytest.raises(ValueError, match="b.mtz: expected the name of one column of F1, F2"):
        experiment_from([*flags.split(), "-hkl", str(tmp_path / "b.mtz")])
    with pytest.raises(ValueError, match="a.hkl: expected MTZ or CIF to go with column 'F'"):
        experiment_from([*flags.split(), "-hkl", str(tmp_path / "a.hkl"), "-hkl_column", "F"])


def test_a_group_that_turns_indices_into_one_another(tmp_path):
    def equivalents(h, k, m):
        turned = [(h, k, m), (-k, h, m), (-h, -k, m), (k, -h, m)]
        return {*turned, *((-a, -b, -c) for a, b, c in turned)}

    cell = (40.0, 40.0, 50.0, 90.0, 90.0, 90.0)
    rows = [[1, 2, 3, 7, 1], [2, 1, 3, 9, 1], [0, 0, 4, 5, 1]]
    found = Reflections.read(mtz(tmp_path / "a.mtz", rows, group="P 41", cell=cell))
    assert same(found, Reflections.read(text(tmp_path / "a.hkl", rows, equivalents)))
    write_mtz(tmp_path / "b.mtz", found.listed(cell, "P 41"))
    assert same(Reflections.read(tmp_path / "b.mtz"), found)
    with pytest.raises(ValueError, match="expected equal amplitudes of equivalents in P 41 21 2, got others at"):
        write_mtz(tmp_path / "b.mtz", found.listed(cell, "P 41 21 2"))


def test_a_group_with_three_axes_at_120_degrees(tmp_path):
    """h, k and i = -(h + k) go round together: what a rotation does to indices is not what it does to places."""
    cell = (40.0, 40.0, 50.0, 90.0, 90.0, 120.0)
    found = open_reflections(mtz(tmp_path / "a.mtz", [[1, 2, 3, 7, 1]], group="P 3", cell=cell)).read()
    turned = {(1, 2, 3), (2, -3, 3), (-3, 1, 3)}
    assert {tuple(place) for place in found.indices.tolist()} == turned | {(-h, -k, -m) for h, k, m in turned}


def test_a_centred_group_counts_each_rotation_once(tmp_path):
    rows = [[1, 1, 2, 7, 1], [2, 0, 0, 9, 1]]
    found = open_reflections(mtz(tmp_path / "a.mtz", rows, group="C 2 2 2")).read()
    assert {tuple(place) for place in found.indices.tolist()} == signs(1, 1, 2) | signs(2, 0, 0)


def test_intensities_friedel_pairs_and_missing_values(tmp_path):
    nothing = float("nan")
    rows = [[1, 0, 0, 9, 1], [2, 0, 0, -4, 1], [3, 0, 0, nothing, 1]]
    found = open_reflections(mtz(tmp_path / "i.mtz", rows, (("IMEAN", "J"), ("SIGIMEAN", "Q")))).read()
    assert found.indices[:, 0].tolist() == [-2, -1, 1, 2] and found.amplitudes.tolist() == [0, 3, 3, 0]
    pairs = (("F(+)", "G"), ("SIGF(+)", "L"), ("F(-)", "G"), ("SIGF(-)", "L"))
    rows = [[1, 2, 3, 5, 1, 6, 1], [1, 2, 4, nothing, 1, 8, 1], [0, 2, 4, 3, 1, nothing, 1]]
    found = open_reflections(mtz(tmp_path / "p.mtz", rows, pairs)).read()
    table = dict(zip(map(tuple, found.indices.tolist()), found.amplitudes.tolist(), strict=True))
    assert found.column == "F(+),F(-)"
    assert [table[place] for place in ((1, 2, 3), (-1, -2, 3), (-1, -2, -3), (1, 2, -3))] == [5, 5, 6, 6]
    assert [table[place] for place in ((1, 2, 4), (-1, -2, -4), (0, 2, 4), (0, -2, -4))] == [8, 8, 3, 3]


def test_mates_that_differ_become_two_columns(tmp_path):
    table = torch.zeros(3, 1, 1, dtype=torch.float64)
    table[0], table[2] = 2.5, 4
    written = Reflections(0.0, table, (-1, 0, 0))
    write_mtz(tmp_path / "a.mtz", written.listed(CELL))
    assert [column.name for column in open_reflections(tmp_path / "a.mtz").columns] == ["F(+),F(-)"]
    assert same(Reflections.read(tmp_path / "a.mtz"), written)


def test_resolution_and_the_default_of_what_is_missing(tmp_path):
    path = mtz(tmp_path / "a.mtz", asymmetric_unit())
    found = open_reflections(path)
    assert found.resolution() == pytest.approx((50, 1 / np.sqrt((3 / 30) ** 2 + (3 / 40) ** 2 + (3 / 50) ** 2)))
    some = found.read(d_min=15, d_max=45)
    spacing = 1 / np.linalg.norm(some.indices / np.array(CELL[:3]), axis=1)
    assert 15 <= spacing.min() < spacing.max() <= 45 and 0 < len(some.indices) < len(found.read().indices)
    with pytest.raises(ValueError, match=r"a\.mtz: expected reflections with values in column FP, found none"):
        found.read(d_min=60)
    assert Reflections.read(path, default=4.0).table[3, 3, 3] == 4  # 0 0 0


@pytest.mark.parametrize(
    ("columns", "taken"),
    [
        ("FC:F FP:F PHI:P", "FP"),
        ("FC:F FWT:F", None),
        ("F-model:F", "F-model"),
        ("IMEAN:J F:F", "F"),
        ("I(+):K SI:M I(-):K SJ:M", "I(+),I(-)"),
        ("IMEAN:J F(+):G S:L F(-):G T:L", "F(+),F(-)"),
        ("F:F FOBS:F", None),
        ("PHI:P FOM:W", "none"),
    ],
)
def test_the_column_that_is_meant(tmp_path, columns, taken):
    pairs = [tuple(word.split(":")) for word in columns.split()]
    found = open_reflections(mtz(tmp_path / "a.mtz", [[1, 2, 3, *([2] * len(pairs))]], pairs))
    if taken == "none":
        with pytest.raises(ValueError, match="expected a column of amplitudes or intensities, found none"):
            found.choose(None)
    elif taken is None:
        with pytest.raises(ValueError, match="expected the name of one column of F"):
            found.choose(None)
    else:
        assert found.choose(None).name == taken
    with pytest.raises(ValueError, match=r"a\.mtz: expected a column of amplitudes or intensities that is one of"):
        found.choose("nonsense")


CIF = """data_r1abcsf
_cell.length_a 30
_cell.length_b 40
_cell.length_c 50
_cell.angle_alpha 90
_cell.angle_beta 90
_cell.angle_gamma 90
_symmetry.space_group_name_H-M 'P 21 21 21'
loop_
_refln.index_h
_refln.index_k
_refln.index_l
_refln.{name}
_refln.status
{rows}
"""


def cif(rows, name="F_meas_au"):
    return CIF.format(name=name, rows="\n".join(f"{h} {k} {m} {float(value)!r} o" for h, k, m, value, _ in rows))


def test_cif_is_read_as_mtz_is(tmp_path):
    rows = [[*row[:3], round(float(row[3]), 2), 1] for row in asymmetric_unit()]
    plain = Reflections.read(text(tmp_path / "a.hkl", rows))
    (tmp_path / "a.cif").write_text(cif(rows))
    assert same(Reflections.read(tmp_path / "a.cif"), plain)
    squares = [[*row[:3], row[3] ** 2, 1] for row in rows]
    (tmp_path / "r1abcsf.ent").write_text(cif(squares, "intensity_meas").replace("1 2 3 ", "# 1 2 3 "))
    found = Reflections.read(tmp_path / "r1abcsf.ent")
    assert float(found.table[3 + 1, 3 + 2, 3 + 3]) == 0  # the row that was taken out
    known = found.table > 0
    np.testing.assert_allclose(found.table[known].detach(), plain.table[known].detach(), rtol=1e-6)


def test_cif_with_several_blocks(tmp_path):
    rows = [[1, 2, 3, 4, 1]]
    (tmp_path / "a.cif").write_text(cif(rows) + cif([[1, 2, 3, 6, 1]]).replace("r1abcsf", "r1abcAsf"))
    with pytest.raises(ValueError, match="expected the name of one column of r1abcsf:F_meas_au, r1abcAsf:F_meas_au"):
        Reflections.read(tmp_path / "a.cif")
    assert float(Reflections.read(tmp_path / "a.cif", column="r1abcAsf:F_meas_au").table.max()) == 6


def unmerged(made):
    made.batches.append(gemmi.Mtz.Batch())


def renamed(made):
    for column in list(made.columns)[:3]:
        column.type = "R"


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda raw: raw[:90], "expected an MTZ file"),
        (lambda raw: raw[: len(raw) // 2], "expected an MTZ file"),
        (lambda raw: raw[:-100], "expected an MTZ file that is complete, got one whose header does not end"),
        (lambda raw: raw[:4], "expected an MTZ file"),
        (
            lambda raw: raw.replace(b"NCOL        5           63", b"NCOL        5    429496729"),
            "expected 429496729 reflections of 5 columns, 8589934660 bytes as its header says, got",
        ),
        (lambda raw: raw.replace(np.float32(3).tobytes(), np.float32(3.5).tobytes(), 1), "expected whole indices"),
        (lambda raw: raw.replace(np.float32(3).tobytes(), np.float32(1e9).tobytes(), 1), "expected whole indices"),
        (lambda raw: raw[:80] + np.float32(np.inf).tobytes() + raw[84:], "expected whole indices"),
        (lambda raw: raw[:92] + np.float32(np.inf).tobytes() + raw[96:], "expected finite values, got infinite ones"),
        (lambda raw: raw[:92] + np.float32(-7).tobytes() + raw[96:], "expected amplitudes >= 0, got one below 0"),
    ],
)
def test_a_damaged_mtz_is_a_sentence_and_asks_for_little_memory(tmp_path, damage, complaint):
    raw = mtz(tmp_path / "good.mtz", asymmetric_unit()).read_bytes()
    path = tmp_path / "a.mtz"
    path.write_bytes(damage(raw))
    assert path.read_bytes() != raw
    tracemalloc.start()
    try:
        with pytest.raises(ValueError) as error:
            Reflections.read(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()
    assert complaint in str(error.value) and "\n" not in str(error.value) and str(error.value).startswith(f"{path}:")


def test_mtz_files_that_hold_something_else(tmp_path):
    rows = [[1, 2, 3, 4, 1]]
    for change, complaint in ((renamed, "indices H K L, got H K L"), (unmerged, "expected merged reflections")):
        with pytest.raises(ValueError, match=complaint):
            open_reflections(mtz(tmp_path / "a.mtz", rows, change=change))
    with pytest.raises(ValueError, match="expected indices that span at most"):
        Reflections.read(mtz(tmp_path / "a.mtz", [[9999, 9999, 9999, 1, 1]]))
    (tmp_path / "a.cif").write_text("data_x\n_cell.length_a 3\n")
    with pytest.raises(ValueError, match=r"a\.cif: expected a CIF file with merged reflections"):
        Reflections.read(tmp_path / "a.cif")
    (tmp_path / "a.cif").write_text("data_x\nloop_\n_refln.index_h\n1 2 'unfinished\n")
    with pytest.raises(ValueError, match=r"a\.cif: expected reflections as CIF that are complete") as error:
        Reflections.read(tmp_path / "a.cif")
    assert "\n" not in str(error.value)
    (tmp_path / "a.cif").write_text(cif(rows).replace("'P 21 21 21'", "'P 99'"))
    with pytest.raises(ValueError, match="expected a space group that is known"):
        Reflections.read(tmp_path / "a.cif")


def test_of_a_reflection_given_twice_the_last_counts():
    indices = np.array([[1, 0, 0], [0, -1, 0], [1, 0, 0]], np.int32)
    places, values = unique_reflections(indices, np.array([1.0, 2.0, 3.0]))
    assert places.tolist() == [[0, -1, 0], [1, 0, 0]] and values.tolist() == [2, 3]


def test_without_gemmi_the_error_names_the_extra(tmp_path, monkeypatch):
    path = mtz(tmp_path / "a.mtz", [[1, 2, 3, 4, 1]])
    monkeypatch.setitem(__import__("sys").modules, "gemmi", None)
    with pytest.raises(ImportError, match=r"an MTZ file needs gemmi: pip install .*\[crystallography\]"):
        Reflections.read(path)
