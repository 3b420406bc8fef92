"""CSV files as users have them: what is read, and how the rest is refused."""

import gzip

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psml_jax import goodput
from psml_jax.core import ZooProfile

HEADER = 'model,top1,ms\n'


def zoo(path, **changes):
  columns = {
    'name_column': 'model',
    'accuracy_column': 'top1',
    'latency_column': 'ms',
    'accuracy_unit': 'percent',
  }
  return ZooProfile.from_csv(path, **(columns | changes))


def workload(path, **changes):
  columns = {
    'accuracy_column': 'top1',
    'latency_column': 'ms',
    'accuracy_unit': 'percent',
  }
  return goodput.load_workload(path, **(columns | changes))


@pytest.fixture
def save(tmp_path):
  def write(content):
    path = tmp_path / 'zoo.csv'
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path

  return write


READERS = pytest.mark.parametrize('read', [zoo, workload])


@READERS
@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (
      'model,top1,ms,ms\na,70,1,2\n',
      r"column 'ms' occurs twice in the header of .*zoo",
    ),
    ('top1,model,top1 ,top1,ms\n', r"column 'top1' occurs 3 times"),
    (HEADER + 'a,70,1,9\n', r'line 2 of .*zoo\.csv has 4 cells and the header 3'),
    (HEADER + 'a,70,1\n\nb,93,5,2\n', r'line 4 of .* has 4 cells and the header 3'),
    (HEADER + 'a,70,1,\n', r'line 2 of .* has 4 cells'),
    (HEADER + 'a,70,1\nb,80\n', r'line 3 of .* has 2 cells and the header 3'),
    (HEADER + '"a,70,1\nb,80,2\n', r'row that begins in line 2 of .* is no CSV'),
    (HEADER + 'a,70,1\nb,80,"2\nc,1,1', r'row that begins in line 3 of .* is no CSV'),
    (HEADER + '"a"b,70,1\n', r'row that begins in line 2 of .* is no CSV'),
    (HEADER + 'a,70,1\nb,,2\n', r'top1 in line 3 of .* is empty'),
    (HEADER, r'zoo\.csv has no rows'),
    (HEADER + '\n   \n\n', r'zoo\.csv has no rows'),
    ('', r'zoo\.csv is empty'),
    ('\n\n', r'zoo\.csv is empty'),
    ('\ufeff', r'zoo\.csv is empty'),
    ('model;top1;ms\na;70;1\n', r'zoo\.csv is separated by semicolons'),
    ('"model";"top1";"ms"\n"a";"70,5";"1"\n', r'is separated by semicolons'),
    ('model\ttop1\tms\na\t70\t1\n', r'is separated by tabs'),
    ('model|top1|ms\na|70|1\n', r'is separated by bars'),
    (
      'model,top1,latency\na,70,1\n',
      r"'ms' is missing in .*zoo\.csv; it has \['model'",
    ),
    ('model,Top1,ms\na,70,1\n', r"'top1' is missing .* \(did you mean 'Top1'\?\)"),
    ('a,70,1\n', r"is missing in .*; it has \['a', '70', '1'\]"),
    (HEADER.encode('utf-16'), r'must be a CSV file in UTF-8: it is in UTF-16'),
    ((HEADER + 'a,70,1\n').encode('utf-32'), r'it is in UTF-16 or UTF-32'),
    (HEADER + f'a,70,{"9" * 5000}\n', r'ms in line 2 of .* is 9{60}[,;]'),
    (HEADER + 'a,70,1\n\x1a', r'line 3 of .* has 1 cells and the header 3'),
    (HEADER + 'a,70,1\n' + HEADER, r"top1 in line 3 of .* is 'top1'"),
    (HEADER + 'a,70,\u22125\n', r"ms in line 2 of .* is '\u22125'"),
    (HEADER + f'a,70,1\n"{"x" * 200000}",1,1', r'begins in line 3 of .* limit'),
    (HEADER.encode('utf-16-le'), r'line 1 holds a zero byte, as UTF-16'),
    (HEADER + 'a,70,1\nb\0,80,2\n', r'line 3 holds a zero byte'),
    ((HEADER + 'é,70,1\n').encode('latin-1'), r'line 2 holds byte 0xe9 of another'),
    (gzip.compress(HEADER.encode(), mtime=0), r'packed by gzip; unpack it'),
    (b'PK\x03\x04\x14\0\x06\0', r'a spreadsheet or zip archive; export it as CSV'),
    ('version https://git-lfs.github.com/spec/v1\noid sha', r'zoo\.csv is a Git LFS'),
    ('<!DOCTYPE html>\n<html>', r'zoo\.csv is an HTML or XML page'),
    (HEADER + 'a,70,nan\n', r'ms in line 2 of .*zoo\.csv is nan; it must be .*>= 0'),
    (HEADER + 'a,nan,1\n', r'top1 in line 2 of .* is nan; it must be percent in'),
    (HEADER + 'a,inf,1\n', r'top1 in line 2 of .* is inf; it must be percent in'),
    (HEADER + 'a,70,1\nb,80,-inf\n', r'ms in line 3 of .* is -inf; it must be .*>= 0'),
    (HEADER + 'a,70,1\nb,80,-1\n', r'ms in line 3 of .* is -1; it must be .*>= 0'),
    (
      HEADER + 'a,70,1e39\n',
      r'ms in line 2 of .* is 1e39, which is infinite in float32',
    ),
    (HEADER + 'a,70,1e-60\n', r'ms in line 2 of .* is 1e-60, which is 0 in float32'),
    (HEADER + 'a,70,1e-400\n', r'ms in line 2 of .* is 1e-400, which is 0 in float32'),
    (HEADER + 'a,70,1e-40\n', r'ms in line 2 of .* is 1e-40, which is 0 in float32'),
    (HEADER + 'a,70,1\nb,1e-60,1\n', r'top1 in line 3 of .* is 1e-60, which is 0'),
    (HEADER + '\n\na,70,1\n\nb,80,x\n', r"ms in line 6 of .* is 'x'; .* a number$"),
    (HEADER + '"a\nof two",70,1\nb,80,x\n', r"ms in line 4 of .* is 'x'"),
    (HEADER.replace('\n', '\r') + 'a,70,1\rb,80,x\r', r"ms in line 3 of .* is 'x'"),
    (HEADER + 'a,70%,1\n', r"top1 in line 2 .* is '70%'; .*without a percent sign"),
    (
      HEADER + 'a,"70,5",1\n',
      r"top1 in line 2 .* is '70,5'; .*a point before decimals",
    ),
    (HEADER + 'a,70,"1,234.5"\n', r'ms in line 2 .*thousands not separated'),
    (HEADER + 'a,70,1_000\n', r"ms in line 2 of .* is '1_000'; .*thousands"),
    (HEADER + 'a,70,1 000\n', r'ms in line 2 of .*thousands not separated'),
    (HEADER + 'a,70,12ms\n', r"ms in line 2 of .* is '12ms'; .*without a unit"),
    (HEADER + 'a,70,N/A\n', r"ms in line 2 of .* is 'N/A'; it must be a number$"),
    (HEADER + 'a,101,1\n', r'top1 in line 2 of .* is 101; it must be percent in'),
    (HEADER + 'a,0.7,1\nb,0.93,2\n', r'top1 in .* at most 0\.93, in line 3; give acc'),
  ],
)
def test_refused(read, content, message, save):
  with pytest.raises(ValueError, match=message) as caught:
    read(save(content))
  assert '\n' not in str(caught.value)


@READERS
@pytest.mark.parametrize(
  ('content', 'message'),
  [
    ('a,70,1\n', r'top1 in line 2 .* is 70; .*percent: give accuracy_unit percent'),
    (
      'a,0.7,1\nb,300,1\n',
      r'top1 in line 3 .* is 300; it must be a fraction in \[0, 1\]$',
    ),
  ],
)
def test_refused_fractions(read, content, message, save):
  with pytest.raises(ValueError, match=message):
    read(save(HEADER + content), accuracy_unit='fraction')


@READERS
@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'latency_column': 'top1'}, "accuracy_column and latency_column are both 'top1'"),
    ({'latency_column': None}, 'latency_column is None; it must be the name'),
    (
      {'latency_unit': 'seconds'},
      r"latency_unit is 'seconds'; it must be one of \['ms",
    ),
    ({'accuracy_unit': '%'}, r"accuracy_unit is '%'; it must be one of \['fraction'"),
  ],
)
def test_refused_arguments(read, changes, message, save):
  with pytest.raises(ValueError, match=message):
    read(save(HEADER + 'a,70,1\n'), **changes)


@READERS
@pytest.mark.parametrize(
  ('path', 'message'),
  [
    ('s3://bucket/zoo.csv', 'path is .*, a URL; it must be a path of this machine'),
    ('', 'path is empty'),
    (None, 'path is None; it must be a path'),
    ('absent.csv', r"path is '.*absent.csv'; it must be a CSV file .*No such file"),
    ('.', 'it must be a CSV file .*Is a directory'),
  ],
)
def test_refused_paths(read, path, message):
  with pytest.raises(ValueError, match=message):
    read(path)


@pytest.mark.parametrize('value', ['inf', '1e400'])
def test_zoo_without_infinite_latency(value, save):
  with pytest.raises(ValueError, match=f'ms in line 2 of .* is {value}; .* be finite'):
    zoo(save(f'{HEADER}a,70,{value}\n'))


def test_workload_infinity_must_be_meant(save):
  path = save(HEADER + 'a,70,inf\nb,80,Infinity\n')
  np.testing.assert_array_equal(workload(path).max_latency_ms, [np.inf, np.inf])
  with pytest.raises(ValueError, match='is 1e400, which is infinite in float32'):
    workload(save(HEADER + 'a,70,1e400\n'))


def test_zoo_names_twice(save):
  path = save(HEADER + '\na,70,1\nb,80,2\n a ,90,3\n')
  with pytest.raises(ValueError, match=r"model in lines 3 and 5 of .*zoo\.csv is 'a'"):
    zoo(path)


@pytest.mark.parametrize(
  'content',
  [
    '\ufeffmodel,top1,ms\na,70,1.5\nb,80,2\n',
    '\n model , top1, ms \r\n\r\na, 70 ,1.5\r\n"b",80,2',
    'model,top1,ms\ra,70,1.5\rb,80,+2e0\r',
    '"model", "top1", "ms"\n"a", "70", "1.5"\n"b", "80", 2\n  \t\n',
    'id,id,,,ms,top1,model\n1,2,,,1.5,70,a\n1,2,,,2.0,80,b\n',
  ],
)
def test_served(content, save):
  read = zoo(save(content))
  assert read.names == ('a', 'b')
  np.testing.assert_allclose(read.accuracy, [0.7, 0.8])
  np.testing.assert_array_equal(read.latency_ms, [1.5, 2.0])


def test_home_is_expanded(save, tmp_path, monkeypatch):
  save(HEADER + 'a,70,1\n')
  monkeypatch.setenv('HOME', str(tmp_path))
  assert zoo('~/zoo.csv').names == ('a',)


@READERS
@pytest.mark.parametrize(
  ('unit', 'milliseconds'), [('s', 1500), ('ms', 1.5), ('us', 0.0015)]
)
def test_latency_units(read, unit, milliseconds, save):
  path = save(HEADER + 'a,70,1.5\nb,80,0\n')
  got = read(path, latency_unit=unit)
  latency = got.latency_ms if read is zoo else got.max_latency_ms
  np.testing.assert_allclose(latency, [milliseconds, 0], rtol=1e-6)


@READERS
def test_latency_is_within_float32_in_milliseconds(read, save):
  path = save(HEADER + 'a,70,1e36\n')
  read(path)
  with pytest.raises(ValueError, match='ms in line 2 of .* is 1e36, which is infinite'):
    read(path, latency_unit='s')


@READERS
def test_wide_types_and_strict_promotion(read, save):
  path = save(HEADER + 'a,70,1\n')
  with jax.enable_x64(True), jax.numpy_dtype_promotion('strict'):
    leaves = jax.tree.leaves(read(path))
  assert [leaf.dtype for leaf in leaves] == [jnp.float32] * 2


@READERS
def test_fractions_among_percent_are_warned_of(read, save):
  path = save(HEADER + 'a,70,1\nb,0.93,2\nc,1,3\nd,0,4\n')
  message = r'top1 in line 3 of .*zoo\.csv is 0\.93, .* in line 2 70; .* percent'
  with pytest.warns(UserWarning, match=message):
    read(path)


def test_latencies_that_float32_makes_equal_are_warned_of(save):
  path = save(HEADER + 'a,70,5\nb,80,1.00000001\nc,90,5\nd,95,1\n')
  message = r'ms in lines 3 and 5 of .* is 1\.00000001 and 1, .* equal in float32'
  with pytest.warns(UserWarning, match=message):
    zoo(path)
