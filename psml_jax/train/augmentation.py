"""Random changes of images that leave their classes as they are."""

import jax
import jax.numpy as jnp

_OPERATIONS = 10
_TURN, _SHEAR, _SHIFT, _FACTOR = jnp.pi / 6, 0.3, 0.3, 0.95
_GREY = 0.5


def augment(
  key: jax.Array,
  images: jax.Array,
  *,
  padding: int,
  flip: bool,
  rotation_degrees: float = 0.0,
) -> jax.Array:
  """Crops images at random out of a black frame, mirrors half of them, turns them.

  Args:
    key: consumed.
    images: f32[N, H, W, C].
    padding: width of the frame, in pixels.
    flip: whether to mirror.
    rotation_degrees: each is turned by an angle uniform up to this, either way.

  Returns:
    f32[N, H, W, C].
  """
  crop_key, flip_key, turn_key = jax.random.split(key, 3)
  if padding:
    frame = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    corners = jax.random.randint(crop_key, (len(images), 2), 0, 2 * padding + 1)
    crop = jax.vmap(
      lambda image, corner: jax.lax.dynamic_slice(
        image, (corner[0], corner[1], 0), images.shape[1:]
      )
    )
    images = crop(jnp.pad(images, frame), corners)
  if flip:
    mirrored = jax.random.bernoulli(flip_key, shape=(len(images), 1, 1, 1))
    images = jnp.where(mirrored, images[:, :, ::-1], images)
  if rotation_degrees:
    most = jnp.deg2rad(rotation_degrees)
    turn = jax.random.uniform(turn_key, (len(images),), minval=-most, maxval=most)
    images = warp(
      images, turn, jnp.zeros((len(images), 2)), jnp.zeros((len(images), 2))
    )
  return images


def warp(
  images: jax.Array, turn: jax.Array, shear: jax.Array, shift: jax.Array
) -> jax.Array:
  """Turns, shears and shifts images about their centres; what comes in is black.

  In two halves, one after the other: XLA fuses into each of its consumers what is no
  loop, and would compute every pixel several times.

  Args:
    images: f32[N, H, W, C].
    turn: f32[N], angles in radians.
    shear: f32[N, 2], of rows and of columns, pixels a pixel.
    shift: f32[N, 2], shares of the height and of the width.

  Returns:
    f32[N, H, W, C], bilinear between pixels.
  """
  return jax.lax.map(
    lambda row: _warp_one(*row),
    (images, turn, shear, shift),
    batch_size=max(1, len(images) // 2),
  )


def _warp_one(
  image: jax.Array, turn: jax.Array, shear: jax.Array, shift: jax.Array
) -> jax.Array:
  size = jnp.array(image.shape[:2], jnp.float32)
  centre = (size - 1) / 2
  down = jnp.arange(image.shape[0], dtype=jnp.float32)[:, None] - centre[0]
  right = jnp.arange(image.shape[1], dtype=jnp.float32)[None] - centre[1]
  down, right = down + shear[0] * right, shear[1] * down + right
  cosine, sine = jnp.cos(turn), jnp.sin(turn)
  start = centre - shift * size + 1  # In an image with a black frame of one pixel.
  row = jnp.clip(start[0] + cosine * down + sine * right, 0, size[0] + 1)
  column = jnp.clip(start[1] - sine * down + cosine * right, 0, size[1] + 1)
  top = jnp.minimum(row.astype(jnp.int32), image.shape[0])
  left = jnp.minimum(column.astype(jnp.int32), image.shape[1])
  lower, righter = (row - top)[..., None], (column - left)[..., None]
  framed = jnp.pad(image, ((1, 1), (1, 1), (0, 0)))

  def along(top: jax.Array) -> jax.Array:
    first = framed.at[top, left].get(mode='promise_in_bounds')
    second = framed.at[top, left + 1].get(mode='promise_in_bounds')
    return (1 - righter) * first + righter * second

  return (1 - lower) * along(top) + lower * along(top + 1)


def strong(key: jax.Array, images: jax.Array) -> jax.Array:
  """The strong augmentation of FixMatch: two random operations and a grey square.

  As RandAugment (Cubuk et al. 2020) in the form of Sohn et al. 2020, section 2.3. Each
  image gets two of ten operations, each of a strength drawn uniformly (turns to 30
  degrees, shears and shifts to 0.3; brightness, contrast and saturation by factors of
  0.05 to 1.95; solarisation; 4 to 8 bits), in this order, and then Cutout with a side
  of up to half of the image's. Of theirs, autocontrast, equalisation, sharpness and no
  change at all are left out.

  Args:
    key: consumed.
    images: f32[N, H, W, C], pixels in [0, 1].

  Returns:
    f32[N, H, W, C], pixels in [0, 1].

  >>> strong(jax.random.key(0), jnp.ones((2, 8, 8, 1))).shape
  (2, 8, 8, 1)
  """
  drawn = jax.random.uniform(key, (len(images), 7))  # At once: each draw costs a call.
  places = (drawn[:, :2] * jnp.array([[_OPERATIONS, _OPERATIONS - 1]])).astype(
    jnp.int32
  )
  first, second = places[:, :1], places[:, 1:]
  chosen = jnp.concatenate([first, second + (second >= first)], axis=-1)
  one_hot = jax.nn.one_hot(chosen, _OPERATIONS)
  strength = jnp.sum(one_hot * (2 * drawn[:, 2:4, None] - 1), axis=1)
  images = warp(
    images,
    _TURN * strength[:, 0],
    _SHEAR * strength[:, 1:3],
    _SHIFT * strength[:, 3:5],
  )
  by_image = strength[:, 5:, None, None, None]
  factor = 1 + _FACTOR * by_image
  images = images * factor[:, 0]
  mean = jnp.mean(images, axis=(1, 2, 3), keepdims=True)
  images = mean + (images - mean) * factor[:, 1]
  grey = jnp.mean(images, axis=-1, keepdims=True)
  images = jnp.clip(grey + (images - grey) * factor[:, 2], 0, 1)
  images = jnp.where(images > 1 - jnp.abs(by_image[:, 3]), 1 - images, images)
  levels = jnp.round(2 ** (8 - 4 * jnp.abs(by_image[:, 4]))) - 1
  coarse = jnp.round(images * levels) / levels
  images = jnp.where(by_image[:, 4] == 0, images, coarse)
  return _cut(images, drawn[:, 4:5] / 2, drawn[:, 5:7])


def _cut(images: jax.Array, side: jax.Array, centre: jax.Array) -> jax.Array:
  """Grey squares: side f32[N, 1] and centre f32[N, 2] are shares of the image's."""
  extent = jnp.array([images.shape[1:3]], jnp.float32)
  side, centre = side * extent, centre * extent

  def within(axis: int) -> jax.Array:
    pixel = jnp.arange(images.shape[1 + axis], dtype=jnp.float32)[None] + 0.5
    return jnp.abs(pixel - centre[:, axis, None]) < side[:, axis, None] / 2

  cut = within(0)[:, :, None, None] & within(1)[:, None, :, None]
  return jnp.where(cut, _GREY, images)
