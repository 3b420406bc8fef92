"""The defense as a routing plug-in of LiteLLM, which narrows a zoo to the model drawn.

LiteLLM's router asks its plug-ins before it picks a deployment; of the model drawn it
then takes one that is healthy. The spec is in the metadata of a call, `min_accuracy`
and `max_latency_ms`, numbers or their text; or in the headers `x-min-accuracy` and
`x-max-latency-ms` that LiteLLM's proxy puts there.

A plug-in sees no answers, and LiteLLM's tell the model in many ways: its name and its
vendor's, counts of tokens, the text of errors. `ask` is a call whose answer tells
nothing of it. The proxy's own answers and headers do; in front of it `Middleware` has
the same defense, with a name of the proxy for every model.

Draws are queries, each billed. What failed is not tried again by another model, or a
client would choose by what makes the others fail: a retry or a fallback is an error.
"""

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import msgspec

from psml_jax.serving import openai
from psml_jax.serving._extra import needs
from psml_jax.serving.answers import Completion
from psml_jax.serving.asgi import Headers
from psml_jax.serving.dialects import HEADERS, take_spec
from psml_jax.serving.guard import Guard
from psml_jax.serving.protocol import RequestError

_AGAIN = (
  'attempted_fallbacks',
  'attempted_retries',
  'previous_models',
  'request_retry_count',
)
_LOG = logging.getLogger('psml_jax.serving')


class CallError(Exception):
  """A call that gets no answer; its text tells nothing of a model.

  Attributes:
    status_code: of HTTP, as in `middleware`; LiteLLM's proxy answers with it.
  """

  def __init__(self, status: int, text: str) -> None:
    super().__init__(text)
    self.status_code = status


class Plugin:
  """A plug-in for `litellm.Router(plugins=[...])` or the proxy's `router_settings`.

  Args:
    guard: decides; its backends are the `model` in the `litellm_params` of the zoo's
      deployments. A shadow narrows nothing.
    client: who asks, by a call's metadata; all are client 0 unless given. What a
      client can write there itself must not decide it.
  """

  def __init__(
    self, guard: Guard, client: Callable[[Mapping[str, Any]], int] = lambda _: 0
  ) -> None:
    self._guard, self._client = guard, client
    self._zoo = frozenset(guard.backends)

  async def run(self, context: Any) -> Any:
    """Narrows the candidates of a call to the model drawn.

    Args:
      context: LiteLLM's `RoutingContext`; one without models of the zoo stays as it is.

    Returns:
      The context.

    Raises:
      CallError: 400, a spec that is none; 404, a call to a part of the zoo; 412,
        refused; 504, a retry or a fallback.
    """
    if self._zoo.isdisjoint(context.candidate_models):
      return context
    if not self._guard.enforce:
      try:
        self._drawn(context)
      except CallError:
        pass  # It is in the log.
      except Exception:
        _LOG.exception('a shadow failed')
      return context
    drawn = self._drawn(context)
    context.candidate_models = [m for m in context.candidate_models if m == drawn]
    return context

  def _drawn(self, context: Any) -> str:
    client, metadata = None, context.metadata
    try:
      if not self._zoo.issuperset(context.candidate_models) or not (
        self._zoo.issubset(context.candidate_models)
      ):
        raise RequestError(404, 'no such model')
      if any(map(metadata.get, _AGAIN)):
        raise RequestError(504, 'no answer')
      client = self._client(metadata)
      spec = take_spec({}, _headers(metadata))
    except RequestError as failure:
      self._guard.reject(failure.status, client)
      raise CallError(failure.status, failure.text) from None
    model = self._guard.decide(client, *spec)
    if model is None:
      raise CallError(412, 'refused')
    return model


def router(
  guard: Guard,
  name: str,
  params: Callable[[str], Mapping[str, Any]],
  client: Callable[[Mapping[str, Any]], int] = lambda _: 0,
) -> Any:
  """A `litellm.Router` of a zoo, defended, that tries nothing twice.

  Args:
    guard: decides; its backends are models as LiteLLM names them.
    name: of the zoo: the model that calls name.
    params: of a backend, the `litellm_params` besides its `model`.
    client: see `Plugin`.

  Returns:
    The router. Its asynchronous calls are defended; LiteLLM lets no other one pass.

  Raises:
    InputError: the extra `litellm` is missing.
  """
  with needs('litellm'):
    import litellm
  models = [
    {'model_name': name, 'litellm_params': {**params(backend), 'model': backend}}
    for backend in guard.backends
  ]
  return litellm.Router(
    model_list=models, plugins=[Plugin(guard, client)], num_retries=0
  )


async def ask(router: Any, name: str, **call: Any) -> Any:
  """A chat completion of a zoo, as its client may see it.

  Args:
    router: of LiteLLM, with the plug-in.
    name: of the zoo.
    **call: of `litellm.Router.acompletion`, such as messages, metadata and stream.

  Returns:
    A chat completion as a dictionary; for a stream, an iterator of its chunks.

  Raises:
    CallError: as `Plugin.run`; 504 for whatever else goes wrong.
  """
  answer = Completion(name, openai.PATHS[0])
  try:
    given = await router.acompletion(model=name, **call)
    if call.get('stream'):
      return _chunks(given, answer)
    body, _ = answer.whole(given.model_dump_json().encode(), [])
    return msgspec.json.decode(body)
  except CallError:
    raise
  except Exception:
    _LOG.exception('what should answer a call failed')
  raise CallError(504, 'no answer')


async def _chunks(given: Any, answer: Completion) -> AsyncIterator[Any]:
  try:
    async for chunk in given:
      seen = answer.event(chunk.model_dump_json().encode())
      if seen is not None:
        yield msgspec.json.decode(seen)
    return
  except Exception:
    _LOG.exception('what should answer a call failed')
  raise CallError(504, 'no answer')


def _headers(metadata: Mapping[str, Any]) -> Headers:
  """The spec of a call as headers."""
  given = metadata.get('headers')
  named = dict(given) if isinstance(given, Mapping) else {}
  found = [(str(name).lower().encode(), value) for name, value in named.items()]
  found += [(HEADERS[name], metadata[name]) for name in HEADERS if name in metadata]
  return [(name, str(value).encode('latin-1', 'replace')) for name, value in found]
