import errno

import pytest
from monai.data import DataLoader, Dataset
from monai.transforms import Compose, Lambdad

from pulmozoo.bundle.errors import BadInput, innermost_reason


def refuse(value: object) -> None:
    raise BadInput(f"it is {value}: expected a chest CT")


def test_innermost_reason_looks_through_monai():
    with pytest.raises(RuntimeError, match="applying transform") as caught:
        Compose([Lambdad("image", refuse)])({"image": 0})
    assert innermost_reason(caught.value) == "it is 0: expected a chest CT"
    with pytest.raises(RuntimeError) as caught:
        Compose([Lambdad("image", lambda value: 1 / value)])({"image": 0})
    assert innermost_reason(caught.value) == "ZeroDivisionError: division by zero"


def test_innermost_reason_looks_through_a_worker_process():
    loader = DataLoader(Dataset([{"image": 0}], Lambdad("image", refuse)), num_workers=1)
    with pytest.raises(RuntimeError, match="DataLoader worker process") as caught:
        next(iter(loader))
    assert innermost_reason(caught.value) == "it is 0: expected a chest CT"


def test_chain_that_bites_its_tail_ends():
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    assert innermost_reason(first) == "ValueError: second"


def chained(outer: Exception, inner: Exception, explicit: bool = False) -> Exception:
    """``outer`` as raised while ``inner`` was handled."""
    try:
        try:
            raise inner
        except Exception:
            if explicit:
                raise outer from inner
            raise outer  # noqa: B904
    except Exception as error:
        return error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (chained(RuntimeError("out"), chained(BadInput("say"), EOFError("in"), explicit=True)), "say"),
        (chained(RuntimeError("out"), ValueError("in")), "ValueError: in"),
        (chained(RuntimeError("out"), KeyError("in")), "RuntimeError: out"),
        (chained(RuntimeError("out"), KeyError("in"), explicit=True), "KeyError: 'in'"),
        (chained(RuntimeError("out"), StopIteration()), "RuntimeError: out"),
        (MemoryError(), "MemoryError"),
        (ValueError("two\n  lines"), "ValueError: two lines"),
        (OSError(errno.ENOSPC, "No space left", "/out/a"), "the disk is full: free some space and run again (/out/a)"),
        (
            EOFError("Compressed file ended before the end-of-stream marker was reached"),
            "the file is truncated (its compressed data ends early): copy or download it again",
        ),
        (
            RuntimeError(
                "Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
                "ctsunet_code.bundle.errors.BadInput: say\n\nThe above ...\nRuntimeError: applying transform X\n"
            ),
            "say",
        ),
        (
            RuntimeError(
                "Caught OSError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
                "  File x, line 1\nFileNotFoundError: nowhere\n"
            ),
            "FileNotFoundError: nowhere",
        ),
    ],
)
def test_innermost_reason(error, reason):
    assert innermost_reason(error) == reason
