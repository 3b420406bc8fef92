"""Official files: where they are, where they come from, and which is which."""

import contextlib
import dataclasses
import functools
import gzip
import hashlib
import pathlib
import shutil
import tempfile
import zlib
from collections.abc import Callable, Mapping

import pooch
from absl import logging

from psml_jax import _files
from psml_jax.data._splits import DATASETS, Entry, Images


@dataclasses.dataclass(frozen=True)
class Source:
  """The official files of one data set.

  Attributes:
    name: the data set's.
    folder: in data_dir, holds the files.
    files: file -> its official md5, '' where no publisher states it.
    url: of the archive that holds the folder, or of what the files' names follow.
    archive_md5: of the archive; '' where the files come one by one.
  """

  name: str
  folder: str
  files: Mapping[str, str]
  url: str
  archive_md5: str = ''

  @property
  def downloads(self) -> dict[str, str]:
    """URL -> md5 of what is to be downloaded."""
    if self.archive_md5:
      return {self.url: self.archive_md5}
    return {self.url + file: md5 for file, md5 in self.files.items()}


SOURCES: dict[str, Source] = {}
_GZIP = b'\x1f\x8b'


def register(
  source: Source, make: Callable[[dict[pathlib.Path, bytes]], Images]
) -> None:
  """Adds a data set of official files.

  Args:
    source: of the files.
    make: the images of what `contents` gives; a ValueError for damaged files.
  """
  SOURCES[source.name] = source

  def read(data_dir: pathlib.Path | None) -> Images:
    images = make(contents(source, data_dir))
    assert images.x_test is not None
    if len(images.x_train) < len(images.x_test):
      raise ValueError(
        f'{source.folder} in {data_dir} holds {len(images.x_train)} training and '
        f'{len(images.x_test)} test images; there must be no fewer training than test '
        'images, so files are swapped'
      )
    return images

  entry = Entry(read, functools.partial(files, source))
  DATASETS.register(source.name, entry)


def contents(
  source: Source, data_dir: pathlib.Path | None
) -> dict[pathlib.Path, bytes]:
  """Reads the files of a data set, downloading them where its folder is absent.

  A file may be there with or without the suffix .gz, the latter first; its first bytes
  say whether it is packed.

  Args:
    source: the data set's.
    data_dir: the folder that holds the data set's folder, or is to hold it.

  Returns:
    Path without .gz -> content, unpacked, in the order of `source.files`.

  Raises:
    ValueError: no `data_dir`; files that are absent and cannot be downloaded; a file
      that is missing, is damaged gzip, a Git LFS pointer or an HTML page, is officially
      another one, or holds the same images as another.
  """
  if data_dir is None:
    raise ValueError(
      f'data_dir is None; {source.name} needs the folder that holds {source.folder}, '
      'or one to download it to'
    )
  folder = data_dir / source.folder
  if not folder.is_dir():
    _download(source, folder)
  owners = {
    md5: (other.name, file)
    for other in SOURCES.values()
    for file, md5 in other.files.items()
  }
  found: dict[pathlib.Path, bytes] = {}
  unofficial = []
  for file, md5 in source.files.items():
    path = _find(folder, file)
    if path is None:
      raise ValueError(
        f'{folder / file} is missing; {source.folder} must hold '
        f'{", ".join(source.files)}'
      )
    raw = path.read_bytes()
    content = _unpack(source, path, raw)
    _files.check_content(path, content[:256])
    published = raw if file.endswith('.gz') else content
    digest = hashlib.md5(published, usedforsecurity=False).hexdigest()
    owner = owners.get(digest, (source.name, file))
    if owner != (source.name, file):
      raise ValueError(
        f'{path} is the official {owner[1]} of {owner[0]}; it must be {file} of '
        f'{source.name}, so files are swapped'
      )
    unpacked = file.endswith('.gz') and raw is content
    if not unpacked and md5 not in ('', digest):
      unofficial.append(file)
    for other, earlier in found.items():
      if content == earlier and 'labels' not in file:
        raise ValueError(
          f'{path} is the same as {other.name}; one of the two is another file copied '
          'or renamed'
        )
    found[folder / file.removesuffix('.gz')] = content
  if unofficial:
    logging.warning(
      'In %s these do not have their official checksum, and are taken as subsets or '
      're-encodings: %s. If they should be official, they are corrupt.',
      folder,
      ', '.join(unofficial),
    )
  return found


def files(source: Source, data_dir: pathlib.Path) -> list[pathlib.Path]:
  """The files of a data set that exist, in the order of `source.files`."""
  found = (_find(data_dir / source.folder, file) for file in source.files)
  return [path for path in found if path is not None]


def _find(folder: pathlib.Path, file: str) -> pathlib.Path | None:
  plain = file.removesuffix('.gz')
  paths = (folder / plain, folder / f'{plain}.gz')
  return next((path for path in paths if path.is_file()), None)


def _unpack(source: Source, path: pathlib.Path, raw: bytes) -> bytes:
  try:
    while raw.startswith(_GZIP):
      raw = gzip.decompress(raw)
    return raw
  except (OSError, EOFError, zlib.error) as error:
    raise ValueError(
      f'{path} is truncated, corrupt or no gzip file ({error}); it must be {path.name} '
      f'of {source.name}'
    ) from error


def _download(source: Source, folder: pathlib.Path) -> None:
  """Puts the official files into `folder`: all of them, verified, or none."""
  data_dir = folder.parent
  made = [path for path in (data_dir, *data_dir.parents) if not path.exists()]
  try:
    data_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=data_dir, prefix=f'.{source.name}-') as name:
      scratch = pathlib.Path(name)
      for url, md5 in source.downloads.items():
        path = pooch.retrieve(
          url,
          f'md5:{md5}',
          fname=url.rpartition('/')[2],
          path=scratch if source.archive_md5 else scratch / source.folder,
          progressbar=True,
        )
        if source.archive_md5:
          shutil.unpack_archive(path, scratch, filter='data')
      (scratch / source.folder).rename(folder)
  except (OSError, ValueError) as error:
    raise ValueError(
      f'data_dir is {str(data_dir)!r}, where {source.folder} is absent and could not '
      f'be downloaded ({error}); put {", ".join(source.files)} into {folder}, from '
      f'{", ".join(source.downloads)}'
    ) from error
  finally:
    for path in made:
      with contextlib.suppress(OSError):  # Not empty, for it went well.
        path.rmdir()
