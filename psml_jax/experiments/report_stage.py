"""The report stage: summary.json, the plots and the HTML page."""

from psml_jax import _files, report
from psml_jax.experiments.artifacts import SUMMARY
from psml_jax.experiments.experiment import Experiment
from psml_jax.experiments.summary import summarise


def run(experiment: Experiment) -> None:
  """Writes summary.json, results.md, the PNG plots and report.html."""
  summary = summarise(experiment)
  SUMMARY.write(experiment.directory, summary)
  _files.write_text(experiment.directory / 'results.md', report.markdown(summary))
  report.write(summary, experiment.directory)
