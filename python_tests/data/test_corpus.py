"""Finding text, reading it, holding some of it out."""

from __future__ import annotations

import shutil
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from sem.data.corpus import Corpus, Documents, load_corpus


def texts(documents: Documents) -> list[bytes]:
    return [documents[index].tobytes() for index in range(len(documents))]


def everything(corpus: Corpus) -> list[bytes]:
    return sorted(texts(corpus.train) + texts(corpus.validation))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Forty different text files in two levels."""
    root = tmp_path / "texts"
    (root / "inner").mkdir(parents=True)
    for index in range(40):
        parent = root / "inner" if index % 2 else root
        (parent / f"{index}.txt").write_bytes(b"%d\r\n\xff text\n" % index * (index + 1))
    return root


@pytest.fixture(scope="module")
def stdlib() -> Corpus:
    return load_corpus()


def test_stdlib_is_megabytes_of_source_without_tests_and_tables(stdlib: Corpus) -> None:
    total = stdlib.train.num_bytes + stdlib.validation.num_bytes
    assert 6e6 < total < 14e6
    assert 0.015 < stdlib.validation.num_bytes / total < 0.12
    library = Path(sysconfig.get_paths()["stdlib"])
    found = set(everything(stdlib))
    assert (library / "argparse.py").read_bytes() in found
    assert (library / "json" / "decoder.py").read_bytes() in found
    assert (library / "encodings" / "cp1252.py").read_bytes() not in found


def test_documents_are_whole_files_and_split_without_overlap(folder: Path) -> None:
    corpus = load_corpus([folder], validation_share=0.3)
    assert everything(corpus) == sorted(path.read_bytes() for path in folder.rglob("*.txt"))
    assert not set(texts(corpus.train)) & set(texts(corpus.validation))
    assert corpus.train.data.dtype == np.uint8


def test_split_is_stable_across_places_and_edits(folder: Path, tmp_path: Path) -> None:
    corpus = load_corpus([folder], validation_share=0.3)
    copied = load_corpus([shutil.copytree(folder, tmp_path / "elsewhere" / "copy")], validation_share=0.3)
    assert copied.train.fingerprint() == corpus.train.fingerprint()
    assert copied.validation.fingerprint() == corpus.validation.fingerprint()
    held_out = texts(corpus.validation)
    for path in folder.rglob("*.txt"):
        path.write_bytes(path.read_bytes() + b"edited")
    edited = load_corpus([folder], validation_share=0.3)
    assert texts(edited.validation) == [text + b"edited" for text in held_out]


def test_split_of_known_names_does_not_change(folder: Path) -> None:
    corpus = load_corpus([folder], validation_share=0.3)
    assert [int(text.split()[0]) for text in texts(corpus.validation)] == [14, 37, 25, 26, 27, 30, 5, 21, 11]


def test_share_is_met_on_many_files(tmp_path: Path) -> None:
    for index in range(1000):
        (tmp_path / f"{index}.txt").write_text(f"{index}")
    corpus = load_corpus([tmp_path], validation_share=0.2)
    assert 160 < len(corpus.validation) < 240


def test_copies_of_a_file_count_once(folder: Path) -> None:
    before = load_corpus([folder], validation_share=0.3)
    for path in list(folder.rglob("*.txt")):
        shutil.copy(path, path.with_suffix(".bak"))
    after = load_corpus([folder], validation_share=0.3)
    assert everything(after) == everything(before)
    assert not set(texts(after.train)) & set(texts(after.validation))


def test_files_globs_and_folders_may_be_mixed(folder: Path) -> None:
    corpus = load_corpus([folder / "0.txt", f"{folder}/**/1?.txt", str(folder / "inner" / "3.txt")])
    numbers = sorted(int(text.split()[0]) for text in everything(corpus))
    assert numbers == [0, 3, *range(10, 20)]
    assert everything(load_corpus(str(folder))) == everything(load_corpus([folder]))


def test_a_file_whose_name_looks_like_a_glob_is_itself(tmp_path: Path) -> None:
    (tmp_path / "[a].txt").write_text("one\n" * 40)
    (tmp_path / "a.txt").write_text("other\n" * 40)
    assert b"other" not in b"".join(everything(load_corpus([tmp_path / "[a].txt"])))


def test_folders_leave_out_binary_hidden_and_empty_files(folder: Path) -> None:
    before = everything(load_corpus([folder]))
    (folder / "image.bin").write_bytes(b"ab\0cd")
    (folder / ".hidden").write_bytes(b"secret")
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_bytes(b"ref")
    (folder / "empty.txt").write_bytes(b"")
    assert everything(load_corpus([folder])) == before
    assert b"ab\0cd" in everything(load_corpus([folder, folder / "image.bin"]))


def test_one_file_is_cut_at_a_line_near_its_end(tmp_path: Path) -> None:
    path = tmp_path / "one.txt"
    text = b"".join(b"line %d\n" % index for index in range(1000))
    path.write_bytes(text)
    (tmp_path / "empty.txt").write_bytes(b"")
    corpus = load_corpus([tmp_path / "empty.txt", path], validation_share=0.1)
    (train,), (held_out,) = texts(corpus.train), texts(corpus.validation)
    assert train + held_out == text
    assert train.endswith(b"\n")
    assert 0.1 <= len(held_out) / len(text) < 0.11


def test_one_file_without_lines_is_cut_at_the_share(tmp_path: Path) -> None:
    path = tmp_path / "one.txt"
    path.write_bytes(b"first\n" + b"x" * 994)
    corpus = load_corpus([path], validation_share=0.1)
    assert (corpus.train.num_bytes, corpus.validation.num_bytes) == (900, 100)


def test_both_sides_get_a_file_even_of_two(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name * 10)
    for share in (0.01, 0.99):
        corpus = load_corpus([tmp_path], validation_share=share)
        assert (len(corpus.train), len(corpus.validation)) == (1, 1)


def test_missing_paths_are_all_named(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"data.paths: no such file.*: nowhere.txt, no\*where"):
        load_corpus(["nowhere.txt", folder, "no*where"])


def test_folder_and_files_without_text(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="data.paths = .*: expected text, found no text file"):
        load_corpus([tmp_path])
    (tmp_path / "empty.txt").write_bytes(b"")
    with pytest.raises(ValueError, match="data.paths = .*: expected text, found only empty files"):
        load_corpus([tmp_path / "empty.txt"])


def test_unknown_corpus_and_impossible_share(folder: Path) -> None:
    with pytest.raises(ValueError, match="data.corpus = 'wiki': expected one of stdlib"):
        load_corpus(corpus="wiki")
    with pytest.raises(ValueError, match="data.validation_share = 0"):
        load_corpus([folder], validation_share=0)


def test_documents_index_like_a_sequence_of_bytes() -> None:
    documents = Documents.from_bytes([b"ab", b"", b"c"])
    assert texts(documents) == [b"ab", b"", b"c"]
    assert documents.num_bytes == 3
    with pytest.raises(IndexError, match="document 3 of 3"):
        documents[3]


def test_fingerprint_sees_bytes_and_boundaries() -> None:
    prints = {Documents.from_bytes(parts).fingerprint() for parts in ([b"abc"], [b"ab", b"c"], [b"abd"])}
    assert len(prints) == 3
    assert Documents.from_bytes([b"ab", b"c"]).fingerprint() in prints
