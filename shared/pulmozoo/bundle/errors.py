"""What the user is told when a scan cannot be processed: one sentence, whatever MONAI wrapped around it."""

import errno
import re
from collections.abc import Iterator

# A DataLoader worker keeps of an exception only its printed traceback, in which the first cause comes first.
_WORKER_BAD_INPUT = re.compile(r"^(?:\w+\.)*BadInput: (.+)$", flags=re.MULTILINE)
_WORKER_ERROR = re.compile(r"^(?:\w+\.)*(\w+(?:Error|Exception|Interrupt): .+)$", flags=re.MULTILINE)


class BadInput(ValueError):
    """The input cannot be used; the text says what was expected, what came and what to do."""


def innermost_reason(error: BaseException) -> str:
    """One line saying why: the sentence of a :class:`BadInput` anywhere in the chain, else of the first cause.

    MONAI raises ``RuntimeError("applying transform ...")`` from the true exception, and a parser or an engine may
    wrap once more; those outer layers tell the user nothing.
    """
    chain = list(_chain(error))
    reason = next((str(link) for link in chain if isinstance(link, BadInput)), None)
    return " ".join((_sentence(chain[-1]) if reason is None else reason).split())


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception, then what caused it, and so on."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        yield link
        seen.add(id(link))
        link = link.__cause__ or _meaningful_context(link)


def _meaningful_context(error: BaseException) -> BaseException | None:
    """What was being handled when the exception was raised, unless that is only a failed lookup on the way."""
    context = error.__context__
    is_lookup = isinstance(context, (LookupError, AttributeError, StopIteration))
    return None if error.__suppress_context__ or is_lookup else context


def _sentence(error: BaseException) -> str:
    text = str(error)
    if "in DataLoader worker process" in text:
        found = _WORKER_BAD_INPUT.search(text) or _WORKER_ERROR.search(text)
        if found:
            return found[1]
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"the disk is full: free some space and run again ({error.filename or error.strerror})"
    if isinstance(error, EOFError) and "end-of-stream" in text:
        return "the file is truncated (its compressed data ends early): copy or download it again"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
