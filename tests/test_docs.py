"""The README's code and commands, and the notebooks, do what they say."""

import pathlib
import re
import shlex

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / 'README.md').read_text('utf-8')


def _blocks(language):
  return re.findall(rf'```{language}\n(.*?)```', README, re.DOTALL)


@pytest.mark.parametrize('block', _blocks('python'))
def test_readme_code_runs_and_prints_what_it_says(block, capsys):
  exec(compile(block, 'README.md', 'exec'), {})
  printed = capsys.readouterr().out
  expected = re.findall(r'^print\(.*\)  # (.+)$', block, re.MULTILINE)
  for text in expected:
    assert text in printed, f'README says {text!r}, printed: {printed}'


def test_readme_commands_name_files_that_exist():
  commands = [
    line.strip()
    for block in _blocks('sh')
    for line in block.replace('\\\n', ' ').splitlines()
  ] + re.findall(r'`(python [^`]+)`', README)
  scripts = 0
  for command in commands:
    words = shlex.split(command, comments=True)
    if words[:1] == ['make']:
      assert re.search(rf'^{words[1]}:', (ROOT / 'Makefile').read_text(), re.MULTILINE)
    for word in words[1:]:
      path = word.removeprefix('--config=').split(':')[0]
      if path.startswith(('launch/', 'configs/')):
        assert (ROOT / path).is_file(), command
        scripts += 1
  assert scripts >= 8


def test_links_point_at_files_that_exist():
  for document in (ROOT / 'README.md', ROOT / 'docs' / 'design.md'):
    for target in re.findall(r'\]\((?!http)([^)#]+)', document.read_text('utf-8')):
      assert (document.parent / target).exists(), f'{document.name}: {target}'


@pytest.mark.parametrize('name', ['quickstart', 'leakage'])
def test_notebook_is_stored_clean_and_runs(name, tmp_path):
  notebook = nbformat.read(ROOT / 'colabs' / f'{name}.ipynb', as_version=4)
  for cell in notebook.cells:
    if cell.cell_type == 'code':
      assert not cell.outputs
      assert cell.execution_count is None
  NotebookClient(
    notebook, timeout=300, resources={'metadata': {'path': str(tmp_path)}}
  ).execute()


def test_results_are_there_with_their_command():
  results = sorted((ROOT / 'docs' / 'results').glob('*.md'))
  assert len(results) >= 3
  for path in results:
    text = path.read_text('utf-8')
    command = r'make demo|launch/(?:reproduce|leakage|ladder|threats|serve)\.py'
    assert re.search(command, text), path.name
    studies = ('leakage', 'ladder', 'live', 'threats')
    assert '## Claims' in text or path.stem in studies, path.name
