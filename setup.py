"""Installs psml_jax; `pip install -e '.[dev]'` for work on it."""

import pathlib
import runpy

import setuptools

setuptools.setup(
  name='psml-jax',
  version=runpy.run_path('psml_jax/_version.py')['__version__'],
  description='Fingerprinting and securing inference-serving systems, in JAX',
  long_description=pathlib.Path('README.md').read_text('utf-8'),
  long_description_content_type='text/markdown',
  python_requires='>=3.11',
  packages=setuptools.find_packages(include=['psml_jax', 'psml_jax.*']),
  package_data={
    'psml_jax': ['py.typed', 'report/*.html'],
    'psml_jax.profiles': ['*.csv', '*.md', '*.txt'],
  },
  install_requires=[
    'absl-py>=2.3.1',
    'chex>=0.1.91',
    'flax>=0.12.0',
    'jax>=0.8.0',
    'jinja2>=3.1',
    'matplotlib>=3.9',
    'ml_collections>=1.0',
    'msgspec>=0.19.0',
    'numpy>=2.0',
    'optax>=0.2.5',
    'orbax-checkpoint>=0.11.25',
    'pooch>=1.8',
    'safetensors>=0.6.1',
    'scikit-learn>=1.5',
    'scipy>=1.13',
    'tensorboardX>=2.6.2.2',
    'tqdm>=4.66',
  ],
  extras_require={
    'cuda12': ['jax[cuda12]>=0.8.0'],
    'http': ['httpx>=0.27'],
    'litellm': ['litellm>=1.110,<1.111'],
    'serve': ['aiohttp>=3.14.4', 'httpx>=0.27', 'ray[serve]>=2.60'],
    'torch': ['torch>=2.4'],
    'dev': [
      'aiohttp>=3.14.4',
      'httpx>=0.27',
      'hypothesis>=6.100',
      'ipykernel>=6.29',
      'mypy>=1.13',
      'nbclient>=0.10',
      'nbformat>=5.10',
      'pytest>=8.2',
      'pytest-xdist>=3.6.1',
      'ray[serve]>=2.60',
      'ruff>=0.8',
      'setuptools>=68',
      'tritonclient[http]>=2.57',
    ],
  },
)
