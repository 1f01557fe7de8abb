"""One large file over https: resumed where it was cut off, tried again, and never from a place that was not asked for.

What arrives is kept as ``NAME.part`` until it is whole. Whether a file on a server is still the same is told by its
length, and in the end by its checksum.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import logging
import re
import ssl
import time
import urllib.request
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from tqdm import tqdm

from detector.data.fetching.archives import Archive
from detector.data.fetching.disk import write_all
from detector.durable import checksum, rename, sync_file, sync_folder
from detector.errors import DatasetError, MachineError, one_line, quote

_log = logging.getLogger(__name__)
_BLOCK = 2**18
_TIMEOUT_S = 60
# So often in a row may a server bring nothing new.
_TRIES = 5
_TOO_BUSY = (408, 429)


class _Fault(Exception):  # noqa: N818, most are mended by trying again
    """A transfer failed; ``lasting`` says that trying again would not help."""

    def __init__(self, message: str, lasting: bool = False) -> None:
        super().__init__(message)
        self.lasting = lasting


def download(archive: Archive, target: Path) -> None:
    """Fetches an archive, from the first of its places that has it.

    Raises:
        MachineError: none has it, the network fails or the disk is full; what arrived is kept for the next call.
    """
    part = target.with_name(target.name + ".part")
    faults = []
    for url in archive.urls:
        try:
            _from_place(url, archive.size, part)
        except _Fault as fault:
            faults.append(f"{urlsplit(url).hostname}: {fault}")
            continue
        sync_file(part)
        rename(part, target)
        sync_folder(target.parent)
        return
    raise MachineError(
        f"{archive.name}: cannot be fetched: {'; '.join(faults)}; see to the network (HTTPS_PROXY names a proxy), "
        "then start again: it goes on where it stopped"
    )


def verify(archive: Archive, path: Path) -> None:
    """Compares size and sha256 of a fetched archive.

    Raises:
        DatasetError: they differ; the file was deleted.
    """
    _log.info("%s: checking its sha256", archive.name)
    size = path.stat().st_size
    if size != archive.size:
        difference = f"is of {size} bytes instead of {archive.size}"
    elif (found := checksum(path)) != archive.sha256:
        difference = f"has the sha256 {found[:12]}... instead of {archive.sha256[:12]}..."
    else:
        return
    path.unlink()
    raise DatasetError(f"{one_line(path)}: {difference}: it was damaged or is another file, and was deleted; try again")


def _from_place(url: str, size: int, part: Path) -> None:
    most, failures = _size_of(part), 0
    while True:
        try:
            return _transfer(url, size, part)
        except _Fault as fault:
            have = _size_of(part)
            # A server that cannot resume starts over each time: only what exceeds all earlier tries is progress.
            failures = 1 if have > most else failures + 1
            most = max(most, have)
            if fault.lasting or failures == _TRIES:
                raise
            _log.warning("%s: %s; trying again in %d s", part.stem, fault, 2 ** (failures - 1))
            time.sleep(2 ** (failures - 1))


def _transfer(url: str, size: int, part: Path) -> None:
    """Asks once for what is missing."""
    have = _size_of(part)
    if have > size:
        part.unlink()
        have = 0
    if have == size:
        return
    headers = {"User-Agent": "detector/fetch_dataset", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    with _open(urllib.request.Request(url, headers=headers), part) as response:
        start = _start_of(response, have, size)
        with open(part, "ab" if start else "wb") as file:
            _copy(response, file.fileno(), part, start, size)


def _copy(response: http.client.HTTPResponse, descriptor: int, part: Path, start: int, size: int) -> None:
    """Writes what arrives, from byte ``start`` to the end."""
    have = start
    with tqdm(
        desc=part.stem, total=size, initial=start, unit="B", unit_scale=True, leave=False, disable=None
    ) as progress:
        while block := _read(response):
            have += len(block)
            if have > size:
                raise _Fault(f"sends more than the {size} bytes expected", lasting=True)
            write_all(descriptor, block, part)
            progress.update(len(block))
    if have < size:
        raise _Fault(f"cut off after {have} of {size} bytes")


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(_BLOCK)
    except (OSError, http.client.HTTPException) as error:
        raise _Fault(_reason(error)) from None


def _start_of(response: http.client.HTTPResponse, have: int, size: int) -> int:
    """The position of the first byte that a server sends."""
    if response.status == 206:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
        if found is None or (int(found[1]), int(found[2])) != (have, size):
            raise _Fault(f"has another file: {quote(response.headers.get('Content-Range'))} of {size}", lasting=True)
        return have
    length = response.headers.get("Content-Length", str(size))
    if response.status != 200 or length != str(size):
        raise _Fault(
            f"sends {quote(length)[1:-1]} bytes instead of {size} (a login page of the network, or another file)",
            lasting=True,
        )
    if have:
        _log.warning("the server cannot resume: starting over")
    return 0


def _open(request: urllib.request.Request, part: Path) -> http.client.HTTPResponse:
    if not _is_allowed(request.full_url):
        raise _Fault("only https is allowed", lasting=True)
    try:
        response: http.client.HTTPResponse = _opener().open(request, timeout=_TIMEOUT_S)
    except HTTPError as error:
        error.close()
        if error.code == 416:  # what we have is no beginning of what the server has
            part.unlink(missing_ok=True)
        passing = error.code >= 500 or error.code in (416, *_TOO_BUSY)
        raise _Fault(f"HTTP {error.code} {quote(error.reason)[1:-1]}", lasting=not passing) from None
    except URLError as error:
        reason = error.reason
        raise _Fault(_reason(reason), lasting=isinstance(reason, ssl.SSLCertVerificationError)) from None
    except (OSError, http.client.HTTPException) as error:
        raise _Fault(_reason(error)) from None
    except ValueError as error:  # an address that cannot be one
        raise _Fault(_reason(error), lasting=True) from None
    return response


def _reason(error: object) -> str:
    """What befell, in a few words."""
    if isinstance(error, ssl.SSLError):
        return f"no secure connection: {quote(getattr(error, 'verify_message', '') or error.reason, 80)[1:-1]}"
    if isinstance(error, TimeoutError):
        return f"no answer within {_TIMEOUT_S} s"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return quote(text or type(error).__name__, 80)[1:-1]


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows to https alone."""

    def redirect_request(self, *args: object) -> urllib.request.Request | None:
        """The request to the new address, which is the last argument.

        Raises:
            _Fault: that is not https.
        """
        if urlsplit(str(args[-1])).scheme != "https":
            raise _Fault(f"redirects to {quote(args[-1])}, which is not https", lasting=True)
        return super().redirect_request(*args)  # type: ignore[arg-type]


def _opener() -> urllib.request.OpenerDirector:
    """Like urllib's own, proxies of the environment included, but without ftp, file and data addresses."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(context=ssl.create_default_context()),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
        _SafeRedirects(),
    ):
        opener.add_handler(handler)
    return opener


def _is_allowed(url: str) -> bool:
    """Whether an address is https or of this very machine."""
    parts = urlsplit(url)
    if parts.scheme == "http":
        with contextlib.suppress(ValueError):
            return ipaddress.ip_address(parts.hostname or "").is_loopback
    return parts.scheme == "https"


def _size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
