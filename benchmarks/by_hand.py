"""What a page of results says by hand, which a page made anew keeps."""

import pathlib


def kept(page: pathlib.Path, heading: str) -> str:
  """The heading and all below it, up to the next section.

  Args:
    page: a page that has been made before.
    heading: under which it is, a line.
  """
  below = page.read_text('utf-8').split(heading)[1].split('\n## ')[0]
  return f'{heading}\n\n{below.strip()}\n'
