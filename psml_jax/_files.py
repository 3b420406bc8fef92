"""Files: paths as users write them, what a file really is, and whole writes."""

import hashlib
import os
import pathlib
import re
import tempfile
from collections.abc import Callable
from typing import Any

UNFINISHED = '.unfinished-'
"""Prefix of files that are being written."""


def local(name: str, path: str | os.PathLike[str]) -> pathlib.Path:
  """The path of a file or folder of this machine, `~` expanded.

  Args:
    name: of the argument, for the error.
    path: as the user wrote it.

  Returns:
    The path.

  Raises:
    ValueError: no path, an empty one, a URL such as gs://, or a home that is unknown.

  >>> local('workdir', 'runs/x').as_posix()
  'runs/x'
  """
  text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
  if not isinstance(text, str) or '\0' in text:
    raise ValueError(f'{name} is {path!r}; it must be a path')
  if not text:
    raise ValueError(f'{name} is empty; it must be a path')
  # pathlib makes one slash of two; one letter is a drive.
  if re.match(r'[A-Za-z][\w+.-]+:/', text):
    raise ValueError(
      f'{name} is {text!r}, a URL; it must be a path of this machine (mount or copy it)'
    )
  try:
    return pathlib.Path(text).expanduser()
  except RuntimeError as error:
    raise ValueError(f'{name} is {text!r}; {error}') from None


def check_content(path: pathlib.Path, head: bytes) -> None:
  """Checks that a file is not what stands in its place after a failed download.

  Args:
    path: of the file, for the error.
    head: its first bytes, 64 or more where it has them.

  Raises:
    ValueError: a Git LFS or git-annex pointer, or an HTML or XML page.
  """
  if re.match(rb'version https://(git-lfs|hawser)', head):
    raise ValueError(
      f'{path} is a Git LFS pointer, not the file itself; run `git lfs pull` there'
    )
  if head.startswith(b'/annex/objects/'):
    raise ValueError(
      f'{path} is a git-annex pointer, not the file itself; run `git annex get` there'
    )
  page = rb'(\xef\xbb\xbf)?\s*<(!doctype|html|head|body|\?xml|!--)'
  if re.match(page, head, re.I):
    raise ValueError(
      f'{path} is an HTML or XML page, not the file itself; download it anew by its '
      'raw link'
    )


def digest(path: pathlib.Path) -> str:
  """The content of a file as 32 hexadecimal digits."""
  with path.open('rb') as file:
    return hashlib.file_digest(
      file, lambda: hashlib.blake2b(digest_size=16)
    ).hexdigest()


def write(path: pathlib.Path, fill: Callable[[pathlib.Path], Any]) -> None:
  """Writes a file so that it exists whole or not at all.

  Args:
    path: the file.
    fill: writes the content to the path that it is given, in the same directory and
      with the same suffix.
  """
  handle, name = tempfile.mkstemp(
    dir=path.parent, prefix=UNFINISHED, suffix=path.suffix
  )
  os.close(handle)
  temporary = pathlib.Path(name)
  try:
    fill(temporary)
    with temporary.open('rb') as file:
      os.fsync(file.fileno())
    temporary.chmod(0o644)
    temporary.replace(path)
  finally:
    temporary.unlink(missing_ok=True)


def write_bytes(path: pathlib.Path, data: bytes) -> None:
  """Writes a file's content, whole or not at all."""
  write(path, lambda temporary: temporary.write_bytes(data))


def write_text(path: pathlib.Path, text: str) -> None:
  """Writes a text file, whole or not at all."""
  write_bytes(path, text.encode())
