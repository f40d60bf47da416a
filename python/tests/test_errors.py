"""The exceptions: their tree, their facts, pickling, errno."""

from __future__ import annotations

import errno
import logging
import pathlib
import pickle

import numpy
import pytest
import tensorkeep
import tensorkeep.numpy
from tensorkeep import _errors


def saved(name: str = "e.tkeep") -> pathlib.Path:
    tensorkeep.save({"model": {"w": numpy.arange(1000.0)}}, name)
    return pathlib.Path(name)


@pytest.mark.parametrize("name", _errors.__all__)
def test_every_class_pickles_with_its_facts(name: str) -> None:
    made = getattr(tensorkeep, name)("what failed", object="a/b", byte=7, help="do this", causes=["because"])
    again = pickle.loads(pickle.dumps(made))
    assert type(again) is type(made) and str(again) == "what failed; do this"
    assert (again.object, again.byte, again.help, again.__notes__) == ("a/b", 7, "do this", ["because: because"])
    assert issubclass(type(made), tensorkeep.Error)


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("NotFound", LookupError),
        ("FileNotFound", FileNotFoundError),
        ("AlreadyExists", FileExistsError),
        ("Damaged", ValueError),
        ("Foreign", _errors.Damaged),
        ("CannotStore", TypeError),
        ("Mismatch", ValueError),
        ("LimitExceeded", MemoryError),
        ("NoSpace", OSError),
        ("IoError", OSError),
        ("ClosedError", RuntimeError),
        ("ForkedError", RuntimeError),
    ],
)
def test_errors_are_what_python_would_raise(name: str, base: type) -> None:
    assert issubclass(getattr(tensorkeep, name), base)


def test_a_missing_file_is_a_file_not_found_error() -> None:
    with pytest.raises(FileNotFoundError) as missing:
        tensorkeep.load("no/such/file.tkeep")
    assert missing.value.errno == 2
    assert isinstance(missing.value, tensorkeep.NotFound)
    assert str(missing.value) == "no/such/file.tkeep: there is no such file"


def test_a_file_is_missing_in_the_same_words_for_all_calls() -> None:
    def into(path: str) -> None:
        tensorkeep.load_into(path, {"w": numpy.zeros(2)})

    for act in (tensorkeep.load, tensorkeep.open, tensorkeep.numpy.load_file, tensorkeep.numpy.safe_open, into):
        with pytest.raises(FileNotFoundError, match="^no.tkeep: there is no such file"):
            act("no.tkeep")
        for words in ("latest", "7", "best:loss"):
            with pytest.raises(FileNotFoundError, match="^no/run: there is no such folder"):
                act(f"no/run@{words}")
        with pytest.raises(FileNotFoundError, match="^me@home.tkeep: there is no such file"):
            act("me@home.tkeep")


def test_what_the_system_said_is_in_the_message() -> None:
    saved()
    with pytest.raises(tensorkeep.IoError, match="e.tkeep/inner: .*: Not a directory") as failed:
        tensorkeep.load("e.tkeep/inner")
    assert failed.value.errno == errno.ENOTDIR and not hasattr(failed.value, "__notes__")
    again = pickle.loads(pickle.dumps(failed.value))
    assert (str(again), again.causes) == (str(failed.value), failed.value.causes)


def test_a_missing_tensor_is_told_with_the_nearest_name() -> None:
    saved()
    with tensorkeep.open("e.tkeep") as checkpoint, pytest.raises(LookupError, match="model/w"):
        checkpoint.tensors["model/v"]


@pytest.mark.parametrize("mmap", [True, False])
def test_a_flipped_bit_names_file_tensor_and_byte(mmap: bool) -> None:
    path = saved()
    info = tensorkeep.open(path).infos()["model/w"]
    damaged = bytearray(path.read_bytes())
    damaged[info.offset + 100] ^= 4
    path.write_bytes(damaged)
    with pytest.raises(tensorkeep.Damaged) as found:
        tensorkeep.load(path, mmap=mmap)
    error = found.value
    assert (error.kind, error.object, error.tensor) == ("damaged", "e.tkeep", "model/w")
    assert error.expected and error.found and error.byte is not None
    assert tensorkeep.load(path, verify="never", mmap=mmap)["model"]["w"].shape == (1000,)
    assert tensorkeep.open(path).verify().damage


def test_foreign_newer_and_empty_files_are_told_apart() -> None:
    pathlib.Path("foreign").write_bytes(b"PK\x03\x04" + bytes(1000))
    with pytest.raises(tensorkeep.Foreign):
        tensorkeep.load("foreign")
    pathlib.Path("empty").write_bytes(b"")
    with pytest.raises(tensorkeep.Error):
        tensorkeep.load("empty")


def test_a_folder_that_is_missing_leaves_an_io_error_with_errno() -> None:
    with pytest.raises(tensorkeep.NotFound) as failed:
        tensorkeep.save({"a": 1}, "no/such/folder/file.tkeep")
    assert failed.value.errno == 2


def test_a_failed_save_leaves_the_old_file() -> None:
    path = saved()
    before = path.read_bytes()
    with pytest.raises(tensorkeep.CannotStore):
        tensorkeep.save({"model": {"w": print}}, path)
    assert path.read_bytes() == before


def test_a_file_is_saved_without_a_metric_that_is_not_finite(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "tensorkeep"):
        tensorkeep.save({"a": 1}, "m.tkeep", metrics={"loss": float("nan"), "lr": 0.5, "norm": float("inf")})
    assert tensorkeep.open("m.tkeep").metrics == {"lr": 0.5}
    assert [record.getMessage() for record in caplog.records] == [
        "m.tkeep: saved without the metric 'loss', which is nan and would rank nothing",
        "m.tkeep: saved without the metric 'norm', which is inf and would rank nothing",
    ]


def test_a_closed_checkpoint_says_so() -> None:
    saved()
    checkpoint = tensorkeep.open("e.tkeep")
    array = checkpoint.tensors["model/w"].numpy()
    checkpoint.close()
    with pytest.raises(tensorkeep.Invalid, match="closed"):
        checkpoint.names()
    assert array[999] == 999.0


def test_mismatches_are_told_all_before_a_byte_is_written() -> None:
    saved()
    target = {"w": numpy.zeros(10), "bias": numpy.zeros(2)}
    with pytest.raises(tensorkeep.Mismatch) as found:
        tensorkeep.load_into("e.tkeep", target)
    report = found.value.report
    assert report.mismatched == {"w": ("f64 [10]", "f64 [1000]")} and report.missing == ["bias"]
    assert not target["w"].any()
