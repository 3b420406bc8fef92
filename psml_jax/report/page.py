"""The report as files: one picture per plot and one page that needs no other file."""

import base64
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from psml_jax import _files
from psml_jax.report import export, plots, schema, tables, text
from psml_jax.report.columns import Table
from psml_jax.report.schema import Summary

_CAPTIONS = {
  'zoo': (
    'The zoo by latency and accuracy. Specs in the shaded region are served, all '
    'others refused; crosses are the probes that fingerprint the medium victim, '
    'those beyond the axes drawn on their edge. Dominated models are named where '
    'there is room.'
  ),
  'extraction': (
    'Accuracy and fidelity of surrogates at equal bills, mean and 95 % interval; '
    'hollow points are under the strongest value of a defense attacked here that keeps '
    'the goodput target of {target} (the weakest where none does).'
  ),
  'protection': (
    'Accuracy and fidelity of surrogates of the medium victim against the goodput '
    'that a defense leaves, and goodput against its knob; mean and 95 % interval. '
    'Protection is to the lower right: weak surrogates at a goodput above {target}.'
  ),
  'goodput': (
    'Goodput against the knob of each defense, mean and 95 % interval; the target is '
    '{target}.'
  ),
}


def write(
  summary: Summary | Mapping[str, Any], directory: str | os.PathLike[str]
) -> list[Path]:
  """Writes the pictures, tables and page of a report, each file whole or not at all.

  Args:
    summary: the experiment, a `Summary` or what JSON has of one.
    directory: where to write; made where it is missing, `~` expanded.

  Returns:
    The paths written: `zoo.png`; `extraction.png` and `protection.png` where the
    summary has such rows (`goodput.png` where it has goodput alone); `tables/NAME.csv`
    and `tables/NAME.tex` for every table with rows; `report.html`, the last.

  Raises:
    ValueError: what is no summary; the directory is no path of this machine.
  """
  directory = _files.local('directory', directory)
  summary = schema.checked(summary)
  contents = tables.build(summary)
  images = plots.draw(summary)
  files = {f'{name}.png': image for name, image in images.items()}
  first = {'claims': contents['claims'], 'setting': contents['setting']}
  target = f'{100 * summary.target_goodput:g} %'
  page = render(
    tables.title(summary),
    'Fingerprinting and securing an inference-serving system: '
    f'seeds: {summary.seeds}, device: {summary.device}, '
    f'{sum(summary.wall_seconds.values()):,.1f} s in all.',
    first | contents,
    images,
    {name: text.format(target=target) for name, text in _CAPTIONS.items()},
  )
  return write_files(directory, contents, files, page)


def write_study(
  directory: Path,
  title: str,
  note: str,
  contents: Mapping[str, Table],
  images: Mapping[str, bytes],
  captions: Mapping[str, str],
  files: dict[str, bytes],
) -> list[Path]:
  """Writes a study's results.md, pictures, tables and report.html (the last).

  Args:
    directory: where to.
    title: as in `render`, and so on.
    note: likewise.
    contents: likewise.
    images: likewise.
    captions: likewise.
    files: the pictures by the names of their files.

  Returns:
    The paths written, but for results.md.
  """
  markdown = text.as_markdown(title, contents.values())
  _files.write_bytes(directory / 'results.md', markdown.encode())
  html = render(title, note, contents, images, captions)
  return write_files(directory, contents, files, html)


def write_files(
  directory: Path, contents: Mapping[str, Table], files: dict[str, bytes], page: str
) -> list[Path]:
  """Writes pictures, every table with rows as CSV and LaTeX, and the page, the last."""
  for name, table in contents.items():
    if table.rows:
      files[f'tables/{name}.csv'] = export.to_csv(table).encode()
      files[f'tables/{name}.tex'] = export.to_latex(table).encode()
  files['report.html'] = page.encode()
  (directory / 'tables').mkdir(parents=True, exist_ok=True)
  for name, data in files.items():
    _files.write_bytes(directory / name, data)
  return [directory / name for name in files]


def render(
  title: str,
  note: str,
  contents: Mapping[str, Table],
  images: Mapping[str, bytes],
  captions: Mapping[str, str],
) -> str:
  """The page that holds all tables and pictures.

  Args:
    title: of the page.
    note: what stands below it.
    contents: the tables by name, in their order.
    images: PNG files, each above the table of its name.
    captions: of the images.

  Returns:
    HTML that needs no other file.
  """
  loader = jinja2.FileSystemLoader(Path(__file__).parent)
  environment = jinja2.Environment(
    loader=loader,
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  return environment.get_template('report.html').render(
    title=title,
    note=note,
    tables=contents,
    images={name: base64.b64encode(image).decode() for name, image in images.items()},
    captions=captions,
  )
