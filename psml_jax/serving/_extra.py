"""Packages that only an extra installs."""

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def needs(extra: str) -> Iterator[None]:
  """Tells, in one line, which extra an import that fails here needs.

  Args:
    extra: of setup.py.

  Raises:
    InputError: a module is missing that is not this package's.

  >>> with needs('serve'):
  ...   import no_such_module
  Traceback (most recent call last):
  ...
  psml_jax._validate.InputError: no_such_module is missing; install the extra 'serve': \
pip install 'psml-jax[serve]'
  """
  try:
    yield
  except ModuleNotFoundError as error:
    if (error.name or '').startswith('psml_jax'):
      raise
    # It imports JAX, which a keeper needs not.
    from psml_jax._validate import InputError

    raise InputError(
      f"{error.name} is missing; install the extra '{extra}': "
      f"pip install 'psml-jax[{extra}]'"
    ) from error
