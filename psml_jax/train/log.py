"""What a training leaves on disk: checkpoints, metrics and its settings."""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from psml_jax import _files
from psml_jax._validate import InputError
from psml_jax.train import checkpoints

METRICS = 'metrics.jsonl'
SETTINGS = 'settings.json'


class Log:
  """Checkpoints and metrics of one training; remembers nothing without a directory.

  Attributes:
    epoch: of the checkpoint that it continues from; 0 where there is none.
    state: of that checkpoint.
    records: of the epochs so far.
  """

  def __init__(
    self,
    directory: pathlib.Path | None,
    keep: int,
    abstract: Any,
    settings: dict[str, Any],
  ) -> None:
    """Opens a directory, or makes it.

    Args:
      directory: absolute; None keeps nothing.
      keep: how many checkpoints.
      abstract: shapes and dtypes of the state.
      settings: what the training in the directory must have been given too.

    Raises:
      InputError: the directory is damaged, or another training's.
    """
    self.records: list[dict[str, Any]] = []
    self.epoch = 0
    self.state: Any = None
    self._manager: ocp.CheckpointManager | None = None
    if directory is None:
      return
    self._directory = directory
    (self._directory / 'checkpoints').mkdir(parents=True, exist_ok=True)
    settings = json.loads(json.dumps(settings, default=lambda number: number.item()))
    self._require_same(settings)
    self._manager = ocp.CheckpointManager(
      self._directory / 'checkpoints',
      options=ocp.CheckpointManagerOptions(
        max_to_keep=keep,
        create=False,
        multiprocessing_options=checkpoints.options(),
      ),
    )
    self.epoch = self._manager.latest_step() or 0
    if self.epoch:
      self.state = self._restore(abstract)
    lines = self._directory / METRICS
    self.records = self._recorded(lines)
    _files.write_text(
      lines, ''.join(json.dumps(record) + '\n' for record in self.records)
    )
    _files.write_text(self._directory / SETTINGS, json.dumps(settings) + '\n')
    import tensorboardX  # Takes seconds where PyTorch is installed.

    self._events = tensorboardX.SummaryWriter(
      str(self._directory / 'events'), purge_step=self.epoch + 1
    )

  def _restore(self, abstract: Any) -> Any:
    assert self._manager is not None
    directory = self._directory / 'checkpoints' / str(self.epoch)
    try:
      with checkpoints.whole(directory):
        checkpoints.require_same(directory / 'default', abstract)
        return self._manager.restore(
          self.epoch, args=ocp.args.StandardRestore(checkpoints.on_device(abstract))
        )
    except InputError:
      self._manager.close()
      raise

  def _require_same(self, settings: dict[str, Any]) -> None:
    path = self._directory / SETTINGS
    if not path.exists():
      return
    try:
      stored = dict(json.loads(path.read_text('utf-8')))
    except (TypeError, ValueError) as error:
      raise self._damaged(path, error) from error
    for name, value in settings.items():
      if stored.get(name) != value:
        raise InputError(
          f'directory is {str(self._directory)!r}, which holds another training: its '
          f'{name} is {stored.get(name)}, not {value}; give a new directory'
        )

  def _recorded(self, path: pathlib.Path) -> list[dict[str, Any]]:
    """The records of the epochs up to the checkpoint, all of which must be there."""
    text = path.read_text('utf-8', 'replace') if path.exists() else ''
    # A line that was cut off when the training was killed has no end.
    whole = text.splitlines(keepends=True)
    try:
      records = [json.loads(line) for line in whole if line.endswith('\n')]
      kept = [record for record in records if record['epoch'] <= self.epoch]
      epochs = [record['epoch'] for record in kept]
    except (KeyError, TypeError, ValueError) as error:
      raise self._damaged(path, error) from error
    if epochs != [*range(1, self.epoch + 1)]:
      raise self._damaged(
        path, f'the checkpoint is of epoch {self.epoch}, its records of {epochs}'
      )
    return kept

  def _damaged(self, path: pathlib.Path, reason: object) -> InputError:
    return InputError(
      f'{path} is damaged ({reason}); remove {self._directory} and the run makes it '
      'anew'
    )

  def write(self, record: dict[str, Any], state: Any) -> None:
    """Adds an epoch's record and saves the state after it, while the next one runs."""
    self.records.append(record)
    if self._manager is None:
      return
    with (self._directory / METRICS).open('a', encoding='utf-8') as file:
      file.write(json.dumps(record) + '\n')
      file.flush()
      os.fsync(file.fileno())
    for name in sorted(record.keys() - {'epoch'}):
      values = np.ravel(record[name])
      self._events.add_scalar(name, float(values.mean()), record['epoch'])
    self._events.flush()
    # The next epoch overwrites the state while it is being saved.
    copied = jax.tree.map(lambda leaf: np.array(leaf, copy=True), state)
    with self._explained():
      self._manager.save(record['epoch'], args=ocp.args.StandardSave(copied))

  def close(self) -> None:
    """Waits for the last checkpoint."""
    if self._manager is None:
      return
    self._events.close()
    with self._explained():
      self._manager.wait_until_finished()
      self._manager.close()

  @contextlib.contextmanager
  def _explained(self) -> Iterator[None]:
    try:
      yield
    except Exception as error:
      folder = self._directory / 'checkpoints'
      whole = max(
        (int(p.name) for p in folder.iterdir() if p.name.isdigit()), default=0
      )
      raise OSError(
        f'a checkpoint could not be written to {folder} ({error}); the last whole one '
        f'is of epoch {whole}, and the same call continues there'
      ) from error
