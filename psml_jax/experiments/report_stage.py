"""The report stage: summary.json, the plots and the HTML page."""

from psml_jax import report
from psml_jax.experiments import workdir
from psml_jax.experiments.experiment import Experiment
from psml_jax.experiments.summary import summarise


def run(experiment: Experiment) -> None:
  """Writes summary.json, results.md, the PNG plots and report.html."""
  summary = summarise(experiment)
  workdir.write_json(experiment.directory / 'summary.json', summary)
  text = report.markdown(summary)
  workdir.write(
    experiment.directory / 'results.md',
    lambda temporary: temporary.write_text(text, 'utf-8'),
  )
  report.write(summary, experiment.directory)
