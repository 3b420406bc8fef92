"""The report of an experiment: plots, tables and one self-contained HTML page.

Everything here is a pure function of one `Summary`, which also JSON can give;
accuracies, fidelities and goodputs are fractions in [0, 1], latencies milliseconds.
"""

from psml_jax.report.page import write
from psml_jax.report.schema import Summary
from psml_jax.report.text import claims_table, markdown

__all__ = ['Summary', 'claims_table', 'markdown', 'write']
