"""Are the files found that a path argument means, and their bytes?"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import rdata
from rdata.dataset.errors import InputFilesError, InputNotFoundError
from rdata.dataset.formats.paths import (
    InputFile,
    compression_of,
    expand_paths,
    format_suffix,
    open_content,
    open_file,
    read_bytes,
)
from rdata.errors import OptionError

SUFFIXES = (".csv", ".tsv")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    names = ["b.csv", "a.csv.gz", "sub/c.tsv", "notes.txt", "_SUCCESS.csv", ".hidden.csv"]
    for name in [*names, "_temporary/d.csv", ".git/e.csv", "sub/UPPER.CSV"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def names(files: tuple[InputFile, ...], below: Path) -> list[str]:
    return [str(Path(file.path).relative_to(below)) for file in files]


def test_a_file_a_path_and_a_file_url_are_the_same(folder: Path) -> None:
    file = folder / "b.csv"
    expected = (InputFile(str(file), size_bytes=5),)
    assert expand_paths(str(file), SUFFIXES) == expected
    assert expand_paths(file, SUFFIXES) == expected
    assert expand_paths(f"file://{file}", SUFFIXES) == expected


def test_a_relative_path_is_made_absolute(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert expand_paths("b.csv", SUFFIXES) == (InputFile(str(folder / "b.csv"), 5),)


def test_a_folder_is_walked_without_hidden_files(folder: Path) -> None:
    files = expand_paths(folder, SUFFIXES)
    assert names(files, folder) == ["a.csv.gz", "b.csv", "sub/UPPER.CSV", "sub/c.tsv"]


def test_a_list_keeps_its_order(folder: Path) -> None:
    files = expand_paths([folder / "b.csv", str(folder / "a.csv.gz"), folder / "sub"], SUFFIXES)
    assert names(files, folder) == ["b.csv", "a.csv.gz", "sub/UPPER.CSV", "sub/c.tsv"]


def test_a_file_named_itself_may_have_any_suffix(folder: Path) -> None:
    assert len(expand_paths(folder / "notes.txt", SUFFIXES)) == 1
    assert len(expand_paths(folder / ".hidden.csv", SUFFIXES)) == 1


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.csv", ["_SUCCESS.csv", "b.csv"]),
        ("[!_]*.csv*", ["a.csv.gz", "b.csv"]),
        ("**/*.tsv", ["sub/c.tsv"]),
        ("**/*.csv", ["_SUCCESS.csv", "_temporary/d.csv", "b.csv"]),
        ("**/[sc]*/**/*.tsv", ["sub/c.tsv"]),
        ("sub/**", ["sub/UPPER.CSV", "sub/c.tsv"]),
        ("**/su?", ["sub/UPPER.CSV", "sub/c.tsv"]),
        ("su?", ["sub/UPPER.CSV", "sub/c.tsv"]),
        ("[ab].csv*", ["a.csv.gz", "b.csv"]),
    ],
)
def test_a_glob_is_sorted(folder: Path, pattern: str, expected: list[str]) -> None:
    assert names(expand_paths(str(folder / pattern), SUFFIXES), folder) == expected


def test_a_name_with_brackets_is_no_glob_if_it_exists(tmp_path: Path) -> None:
    (tmp_path / "part[1].csv").write_bytes(b"a\n")
    assert len(expand_paths(tmp_path / "part[1].csv", SUFFIXES)) == 1


def test_an_empty_list_is_refused() -> None:
    with pytest.raises(InputFilesError, match="list of paths is empty"):
        expand_paths([], SUFFIXES)


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (None, "a path must be a string or a pathlib.Path, not NoneType"),
        (5, "not int"),
        (b"a.csv", "not bytes"),
        ([None], "not NoneType"),
        ([["a.csv"]], "not list"),
        (io.StringIO("a\n1\n"), "not StringIO; read it yourself.* from_pandas"),
        ("", r"a path is empty; the current folder is '\.'"),
        (["", "a.csv"], "a path is empty"),
    ],
)
def test_what_is_no_path_is_refused(folder: Path, paths: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        expand_paths(paths, SUFFIXES)


def test_an_open_file_is_no_list_of_paths(folder: Path) -> None:
    with (folder / "b.csv").open() as file, pytest.raises(OptionError, match="not TextIOWrapper"):
        expand_paths(file, SUFFIXES)  # type: ignore[arg-type]


def test_options_for_fsspec_are_a_dict(folder: Path) -> None:
    with pytest.raises(OptionError, match=r"storage_options must be a dict .*, not 'x'"):
        expand_paths(folder, SUFFIXES, "x")  # type: ignore[arg-type]


def test_a_missing_file_is_named_with_its_neighbour(folder: Path) -> None:
    with pytest.raises(InputNotFoundError, match=r"bb\.csv: no such file.*did you mean b\.csv\?"):
        expand_paths(folder / "bb.csv", SUFFIXES)
    with pytest.raises(FileNotFoundError, match=r"folder .*nowhere does not exist either"):
        expand_paths(folder / "nowhere" / "b.csv", SUFFIXES)


def test_a_link_back_to_a_folder_is_not_followed(folder: Path) -> None:
    expected = names(expand_paths(folder, SUFFIXES), folder)
    (folder / "self").symlink_to(".")
    (folder / "sub" / "up").symlink_to("..")
    assert names(expand_paths(folder, SUFFIXES), folder) == expected
    assert names(expand_paths(folder / "**/*.tsv", SUFFIXES), folder) == ["sub/c.tsv"]


def test_a_glob_follows_links_to_other_folders(folder: Path) -> None:
    (folder / "linked").symlink_to("sub")
    expected = ["linked/c.tsv", "sub/c.tsv"]
    assert names(expand_paths(folder / "**/*.tsv", SUFFIXES), folder) == expected


def test_a_link_to_another_folder_is_followed(folder: Path) -> None:
    (folder / "again").symlink_to("sub")
    files = names(expand_paths(folder, SUFFIXES), folder)
    assert [name for name in files if "again" in name] == ["again/UPPER.CSV", "again/c.tsv"]


@pytest.mark.parametrize("path", ["", "*.csv", "gone.csv"])
def test_a_link_that_leads_nowhere_is_named(folder: Path, path: str) -> None:
    (folder / "gone.csv").symlink_to("nowhere.csv")
    with pytest.raises(
        InputNotFoundError, match=rf"^{folder}/gone\.csv: no such .* link to nowhere\.csv, which"
    ):
        expand_paths(folder / path, SUFFIXES)


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputFilesError, match="pipe can be read only once"):
        expand_paths(tmp_path / "pipe", (".csv",), None)


def test_a_glob_without_match_is_named(folder: Path) -> None:
    with pytest.raises(InputNotFoundError, match=r"no file matches .*\*\.parquet"):
        expand_paths(str(folder / "*.parquet"), SUFFIXES)


def test_a_folder_without_such_files_says_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(InputFilesError, match=r"holds no file ending in \.csv.*holds nothing"):
        expand_paths(tmp_path, SUFFIXES)
    (tmp_path / "data.parquet").write_bytes(b"")
    with pytest.raises(InputFilesError, match=r"it holds data\.parquet"):
        expand_paths(tmp_path, SUFFIXES)


class TestUrls:
    @pytest.fixture(autouse=True)
    def store(self) -> None:
        memory = fsspec.filesystem("memory")
        memory.store.clear()
        for name in ["/in/b.csv", "/in/a.csv", "/in/_c.csv", "/in/_tmp/d.csv", "/in/sub/e.tsv"]:
            memory.pipe(name, name.encode())

    def test_a_file(self) -> None:
        files = expand_paths("memory://in/b.csv", SUFFIXES)
        assert [file.size_bytes for file in files] == [9]
        with open_file(files[0].path) as file:
            assert file.read() == b"/in/b.csv"
        assert read_bytes(files[0].path, 4, 3) == b"b.c"

    def test_a_folder(self) -> None:
        files = expand_paths("memory://in", SUFFIXES)
        contents = [read_bytes(file.path, 0, 100) for file in files]
        assert contents == [b"/in/a.csv", b"/in/b.csv", b"/in/sub/e.tsv"]

    def test_a_glob(self) -> None:
        files = expand_paths("memory://in/[ab].csv", SUFFIXES)
        assert [read_bytes(file.path, 0, 100) for file in files] == [b"/in/a.csv", b"/in/b.csv"]

    @pytest.mark.parametrize("url", ["memory://in/x.csv", "memory://in/*.parquet"])
    def test_what_is_not_there(self, url: str) -> None:
        with pytest.raises(InputNotFoundError, match=r"no (such )?file"):
            expand_paths(url, SUFFIXES)

    def test_a_folder_without_such_files(self) -> None:
        with pytest.raises(InputFilesError, match=r"holds no file ending in \.parquet"):
            expand_paths("memory://in", (".parquet",))

    def test_an_unknown_protocol(self) -> None:
        with pytest.raises(InputFilesError, match="fsspec cannot open such a URL"):
            expand_paths("nosuch://in/a.csv", SUFFIXES)

    def test_a_chain(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr("inner.csv", "a\n1\n")
        files = expand_paths(f"zip://inner.csv::file://{tmp_path}/a.zip", SUFFIXES)
        assert [file.size_bytes for file in files] == [4]
        with open_file(files[0].path) as file:
            assert file.read() == b"a\n1\n"

    @pytest.mark.parametrize(
        ("inside", "expected"),
        [
            ("*.csv", ["_c.csv", "a.csv"]),
            ("**/*.tsv", ["sub/e.tsv"]),
            ("", ["a.csv", "b.csv.gz", "sub/e.tsv"]),
            ("sub", ["sub/e.tsv"]),
        ],
    )
    def test_a_glob_and_a_folder_in_a_chain(
        self, tmp_path: Path, inside: str, expected: list[str]
    ) -> None:
        archive = f"file://{tmp_path}/a.zip"
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as written:
            for name in ["b.csv.gz", "a.csv", "_c.csv", "_tmp/d.csv", "sub/e.tsv", "f.txt"]:
                written.writestr(name, name)
        files = expand_paths(f"zip://{inside}::{archive}", SUFFIXES)
        assert [file.path for file in files] == [f"zip://{name}::{archive}" for name in expected]
        assert [read_bytes(file.path, 0, 100).decode() for file in files] == expected

    def test_caches_come_first_in_a_chain(self, tmp_path: Path) -> None:
        options = {"simplecache": {"cache_storage": str(tmp_path)}}
        files = expand_paths("simplecache::memory://in/*.csv", SUFFIXES, options)
        contents = [read_bytes(file.path, 0, 100, options) for file in files]
        assert contents == [b"/in/_c.csv", b"/in/a.csv", b"/in/b.csv"]

    def test_a_cache_before_an_archive_serves_one_file_after_another(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            for name in ["a.csv", "b.csv"]:
                archive.writestr(name, name)
        url = f"simplecache::zip://*.csv::file://{tmp_path}/a.zip"
        contents = []
        for _ in range(2):
            for found in expand_paths(url, SUFFIXES):
                with open_file(found.path) as file:
                    contents.append(file.read())
        assert contents == [b"a.csv", b"b.csv"] * 2
        fsspec.get_filesystem_class("simplecache").clear_instance_cache()

    def test_nothing_in_a_chain(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr("inner.csv", "a\n1\n")
        with pytest.raises(InputNotFoundError, match=r"no file matches zip://\*\.tsv::"):
            expand_paths(f"zip://*.tsv::{tmp_path}/a.zip", SUFFIXES)


def test_suffixes_see_through_compression() -> None:
    assert [format_suffix(name) for name in ("a.csv", "a.TSV.gz", "a.gz", "a")] == [
        ".csv",
        ".tsv",
        "",
        "",
    ]
    assert [compression_of(name) for name in ("a.csv", "a.csv.GZ", "b.zst")] == [
        None,
        "gzip",
        "zstd",
    ]
    assert compression_of("zip://a.csv.gz::s3://bucket/a.zip") == "gzip"
    assert compression_of("simplecache::s3://bucket/a.csv.gz") == "gzip"


@pytest.mark.parametrize("suffix", ["", ".gz", ".bz2", ".xz", ".zst", ".lz4"])
def test_content_is_decompressed_by_suffix(tmp_path: Path, suffix: str) -> None:
    content = b"a,b\n" * 100_000
    path = tmp_path / f"a.csv{suffix}"
    write = {
        "": lambda: path.write_bytes(content),
        ".gz": lambda: path.write_bytes(gzip.compress(content)),
        ".bz2": lambda: path.write_bytes(bz2.compress(content)),
        ".xz": lambda: path.write_bytes(lzma.compress(content)),
        ".zst": lambda: pa.output_stream(path, compression="zstd").write(content),
        ".lz4": lambda: pa.output_stream(path, compression="lz4").write(content),
    }
    write[suffix]()
    buffer = bytearray(len(content) + 1)
    with open_content(str(path)) as file:
        size = 0
        while count := file.readinto(memoryview(buffer)[size:]):  # type: ignore[attr-defined]
            size += count
    assert bytes(buffer[:size]) == content


@pytest.mark.parametrize("suffix", ["", ".gz", ".bz2", ".xz", ".zst", ".lz4"])
def test_a_file_of_no_bytes_has_no_content(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.csv{suffix}"
    path.write_bytes(b"")
    with open_content(str(path)) as file:
        assert file.readinto(bytearray(4)) == 0  # type: ignore[attr-defined]


def test_a_file_that_is_gone_when_opened(tmp_path: Path) -> None:
    with pytest.raises(InputNotFoundError, match="no such file"):
        open_file(str(tmp_path / "gone.csv"))


def test_local_paths_do_not_load_fsspec(folder: Path) -> None:
    program = (
        "import sys; from rdata.dataset.formats.paths import *\n"
        f"expand_paths([{str(folder)!r}, 'file://{folder}/b.csv'], ('.csv',))\n"
        f"open_content({str(folder / 'b.csv')!r}).close()\n"
        "assert not {'fsspec', 'pyarrow', 'numpy'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


class FromTheStart(io.BytesIO):
    """As fsspec's file behind an HTTP server that does not know ranges."""

    def readinto(self, buffer: Any) -> int:
        if self.tell():
            raise ValueError("The server doesn't support range requests.")
        return super().readinto(buffer)

    def read(self, size: int | None = -1) -> bytes:
        if self.tell():
            raise ValueError("The server doesn't support range requests.")
        return super().read(size)


class WholeFiles(fsspec.AbstractFileSystem):  # type: ignore[misc]
    def info(self, path: str, **_: Any) -> dict[str, Any]:
        if path.startswith("/down/"):
            raise FileNotFoundError(path) from OSError("connection refused")
        return {"name": path, "type": "file", "size": Path(path).stat().st_size}

    def open(self, path: str, *_: Any, **__: Any) -> FromTheStart:
        return FromTheStart(Path(path).read_bytes())


def test_a_server_that_knows_no_ranges_is_named_with_the_remedy(tmp_path: Path) -> None:
    fsspec.register_implementation("whole", WholeFiles, clobber=True)
    pq.write_table(pa.table({"x": range(100_000)}), tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text("x\n1\n")
    for name, read in (("a.csv", rdata.read_csv), ("a.parquet", rdata.read_parquet)):
        url = f"whole://{tmp_path}/{name}"
        with pytest.raises(InputFilesError, match=rf"range requests.*pass 'simplecache::{url}'"):
            read(url)


def test_why_a_server_finds_nothing_is_said() -> None:
    fsspec.register_implementation("whole", WholeFiles, clobber=True)
    with pytest.raises(InputNotFoundError, match=r"no such file or folder \(connection refused\)"):
        expand_paths("whole:///down/a.csv", SUFFIXES)
