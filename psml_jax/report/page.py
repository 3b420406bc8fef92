"""The report as files: one picture per plot and one page that needs no other file."""

import base64
import io
import os
from pathlib import Path

import jinja2
from matplotlib.figure import Figure

from psml_jax.report import plots, tables
from psml_jax.report.summary import Summary

_CAPTIONS = {
  'zoo': (
    'The zoo by latency and accuracy. Specs in the shaded region are served, all '
    'others refused; crosses are the probes that fingerprint the medium victim, '
    'those beyond the axes drawn on their edge. Dominated models are named where '
    'there is room.'
  ),
  'extraction': (
    'Accuracy and fidelity of surrogates at equal bills, mean and 95 % interval; '
    'broken lines are under the strongest defense attacked here that keeps the '
    'goodput target (the weakest where none does).'
  ),
  'protection': (
    'Accuracy and fidelity of surrogates of the medium victim against the goodput '
    'that the defense leaves, and goodput against the noise; mean and 95 % interval. '
    'Protection is to the lower right: weak surrogates at high goodput.'
  ),
  'goodput': 'Goodput against the scale of the noise, mean and 95 % interval.',
}


def write(summary: Summary, directory: str | os.PathLike[str]) -> list[Path]:
  """Writes the pictures and the page of a report, each file whole or not at all.

  Args:
    summary: the experiment, see `psml_jax.report.Summary`.
    directory: where to write; made where it is missing.

  Returns:
    The paths written: `zoo.png`; `extraction.png` and `protection.png` where the
    summary has such rows (`goodput.png` where it has goodput alone); `report.html`.

  Raises:
    ValueError: the summary lacks a key or names an impossible victim.
  """
  contents = tables.build(summary)
  images = {name: _png(figure) for name, figure in plots.figures(summary).items()}
  files = {f'{name}.png': image for name, image in images.items()}
  files['report.html'] = _render(summary, contents, images).encode()
  directory = Path(directory)
  directory.mkdir(parents=True, exist_ok=True)
  for name, data in files.items():
    _replace(directory / name, data)
  return [directory / name for name in files]


def _render(
  summary: Summary, contents: dict[str, tables.Table], images: dict[str, bytes]
) -> str:
  loader = jinja2.FileSystemLoader(Path(__file__).parent)
  environment = jinja2.Environment(
    loader=loader,
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  first = {'claims': contents['claims'], 'setting': contents['setting']}
  return environment.get_template('report.html').render(
    title=tables.title(summary),
    seeds=summary['seeds'],
    device=summary['device'],
    seconds=f'{sum(summary["wall_seconds"].values()):,.1f}',
    tables=first | contents,
    images={name: base64.b64encode(image).decode() for name, image in images.items()},
    captions=_CAPTIONS,
  )


def _png(figure: Figure) -> bytes:
  data = io.BytesIO()
  figure.savefig(data, format='png', metadata={'Software': None})
  return data.getvalue()


def _replace(path: Path, data: bytes) -> None:
  temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
  try:
    temporary.write_bytes(data)
    temporary.replace(path)
  finally:
    temporary.unlink(missing_ok=True)
