"""Official files: where they are, where they come from, and which is which."""

import contextlib
import dataclasses
import gzip
import hashlib
import pathlib
import shutil
import tempfile
import zlib
from collections.abc import Mapping

import pooch
from absl import logging

from psml_jax import _files


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


CIFAR10 = Source(
  'cifar10',
  'cifar-10-batches-bin',
  {
    'data_batch_1.bin': '5dd7e06a14cb22eb9f671a540d1b7c25',
    'data_batch_2.bin': '5ea93a67294ea407fff1d09f752e9692',
    'data_batch_3.bin': '942cd6a4bcdd0dd3c604fbe906cb4421',
    'data_batch_4.bin': 'ae636b3ba5c66a11e91e8cb52e771fcb',
    'data_batch_5.bin': '53f37980c15c3d472c316c40844f3f0d',
    'test_batch.bin': '803d5f7f4d78ea53de84dbe85f74fb6d',
  },
  'https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz',
  'c32a1d4ab5d03f1284b67883e8d87530',
)
CIFAR100 = Source(
  'cifar100',
  'cifar-100-binary',
  {'train.bin': '', 'test.bin': ''},
  'https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz',
  '03b5dce01913d631647c71ecec9e9cb8',
)
SVHN = Source(
  'svhn',
  'svhn',
  {
    'train_32x32.mat': 'e26dedcc434d2e4c54c9b2d4a06d8373',
    'test_32x32.mat': 'eb5a983be6a315427106f1b164d9cef3',
  },
  'http://ufldl.stanford.edu/housenumbers/',
)
MNIST = Source(
  'mnist',
  'mnist',
  {
    'train-images-idx3-ubyte.gz': 'f68b3c2dcbeaaa9fbdd348bbdeb94873',
    'train-labels-idx1-ubyte.gz': 'd53e105ee54ea40749a09fcbcd1e9432',
    't10k-images-idx3-ubyte.gz': '9fb629c4189551a2d022fa330f9573f3',
    't10k-labels-idx1-ubyte.gz': 'ec29112dd5afa0611ce80d1b7f02629c',
  },
  'https://ossci-datasets.s3.amazonaws.com/mnist/',
)
FASHION_MNIST = Source(
  'fashion_mnist',
  'fashion_mnist',
  {
    'train-images-idx3-ubyte.gz': '8d4fb7e6c68d591d4c3dfef9ec88bf0d',
    'train-labels-idx1-ubyte.gz': '25c81989df183df01b3e8a0aad5dffbe',
    't10k-images-idx3-ubyte.gz': 'bef4ecab320f06d8554ea6380940ec79',
    't10k-labels-idx1-ubyte.gz': 'bb300cfdad3c16e7a12a480ee83cd310',
  },
  'http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/',
)
SOURCES = {
  source.name: source for source in (CIFAR10, CIFAR100, SVHN, MNIST, FASHION_MNIST)
}
_GZIP = b'\x1f\x8b'
_OWNERS = {
  md5: (source.name, file)
  for source in SOURCES.values()
  for file, md5 in source.files.items()
  if md5
}


def read(
  source: Source, data_dir: str | pathlib.Path | None
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
    ValueError: no `data_dir`, or a URL; files that are absent and cannot be
      downloaded; a file that is missing, is damaged gzip, a Git LFS pointer or an HTML
      page, or is officially another one.
  """
  if data_dir is None:
    raise ValueError(
      f'data_dir is None; {source.name} needs the folder that holds {source.folder}, '
      'or one to download it to'
    )
  folder = _files.local('data_dir', data_dir) / source.folder
  if not folder.is_dir():
    _download(source, folder)
  contents, unofficial = {}, []
  for file, md5 in source.files.items():
    path = _find(source, folder, file)
    raw = path.read_bytes()
    content = _unpack(source, path, raw)
    _files.check_content(path, content[:256])
    published = raw if file.endswith('.gz') else content
    digest = hashlib.md5(published, usedforsecurity=False).hexdigest()
    owner = _OWNERS.get(digest)
    if owner and owner != (source.name, file):
      raise ValueError(
        f'{path} is the official {owner[1]} of {owner[0]}; it must be {file} of '
        f'{source.name}, so files are swapped'
      )
    unpacked = file.endswith('.gz') and raw is content
    if not unpacked and md5 not in ('', digest):
      unofficial.append(file)
    contents[folder / file.removesuffix('.gz')] = content
  if unofficial:
    logging.warning(
      'In %s these do not have their official checksum, and are taken as subsets or '
      're-encodings: %s. If they should be official, they are corrupt.',
      folder,
      ', '.join(unofficial),
    )
  return contents


def files(source: Source, data_dir: str | pathlib.Path | None) -> list[pathlib.Path]:
  """The files of a data set that exist, in the order of `source.files`."""
  if data_dir is None:
    return []
  folder = _files.local('data_dir', data_dir) / source.folder
  found = (_candidates(folder, file) for file in source.files)
  return [paths[0] for paths in found if paths]


def check_different(contents: Mapping[pathlib.Path, bytes]) -> None:
  """Checks that no two files of images are the same.

  Raises:
    ValueError: two that are.
  """
  seen: dict[bytes, pathlib.Path] = {}
  for path, content in contents.items():
    if content in seen:
      raise ValueError(
        f'{path} is the same as {seen[content].name}; one of the two is another file '
        'copied or renamed'
      )
    seen[content] = path


def check_counts(
  train: pathlib.Path, num_train: int, test: pathlib.Path, num_test: int
) -> None:
  """Checks that there are no fewer training than test images.

  Raises:
    ValueError: there are.
  """
  if num_train < num_test:
    raise ValueError(
      f'{train} holds {num_train} images and {test.name} {num_test}; there must be no '
      'fewer training than test images, so the two are swapped'
    )


def _candidates(folder: pathlib.Path, file: str) -> list[pathlib.Path]:
  plain = file.removesuffix('.gz')
  paths = (folder / plain, folder / f'{plain}.gz')
  return [path for path in paths if path.is_file()]


def _find(source: Source, folder: pathlib.Path, file: str) -> pathlib.Path:
  for path in _candidates(folder, file):
    return path
  raise ValueError(
    f'{folder / file} is missing; {source.folder} must hold {", ".join(source.files)}'
  )


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
