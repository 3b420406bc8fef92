"""Published image classifiers in PyTorch, as golden references for the zoo's imports.

The names and shapes of the state dicts are those of the public checkpoints: those of
chenyaofo/pytorch-cifar-models for CIFAR, and timm's for the vision transformers.
Images are f32[N, 3, H, W], standardised already; the models return logits.
"""

import functools
import math

import torch
from torch import nn


def create(name, num_classes, **overrides):
  """Makes the model `name` with PyTorch's initial values; `overrides` shrink a ViT."""
  make, fields = MODELS[name]
  return make(num_classes, **(fields | overrides))


@torch.no_grad()
def randomise(module, seed):
  """Fills all parameters and statistics at random; returns the module in eval mode.

  Models with BatchNorm are fitted to random images, so that their weights and
  statistics suit each other and the logits depend on the image at any depth.
  """
  generator = torch.Generator().manual_seed(seed)
  for name, value in module.state_dict().items():
    kind = name.rpartition('.')[-1]
    if kind == 'num_batches_tracked':
      continue
    value.normal_(generator=generator)
    if kind == 'running_var':
      value.mul_(0.3).exp_().clamp_(0.5, 2)
    elif kind == 'weight' and value.ndim == 1:
      negative = torch.rand(value.shape, generator=generator) < 0.05
      value.mul_(0.5).exp_()  # a few are large enough for ReLU6 to cut
      value[negative] *= -1
    elif kind == 'weight':
      value.div_(math.sqrt(value[0].numel()))
    else:  # biases, means, tokens and positions
      value.mul_(0.3)
  module.eval()
  if any(isinstance(layer, nn.BatchNorm2d) for layer in module.modules()):
    _fit(module, generator)
  head = [layer for layer in module.modules() if isinstance(layer, nn.Linear)][-1]
  head.weight.mul_(3)
  head.bias.mul_(3)
  return module


def _fit(module, generator):
  """Scales weights to outputs of unit variance, and statistics to what they see."""

  def scale(layer, inputs):
    outputs = layer.forward(*inputs)
    deviation, mean = torch.std_mean(outputs, (0, *range(2, outputs.ndim)))
    deviation.clamp_(min=0.02)
    if layer.bias is not None:
      layer.bias.sub_((mean - layer.bias) / deviation)
    layer.weight.div_(deviation.reshape(-1, *[1] * (layer.weight.ndim - 1)))

  def observe(norm, inputs):
    variance, mean = torch.var_mean(inputs[0], (0, 2, 3))
    norm.running_mean.add_(mean)
    norm.running_var.mul_(variance).clamp_(0.5, 2)

  fits = {nn.Conv2d: scale, nn.Linear: scale, nn.BatchNorm2d: observe}
  layers = [layer for layer in module.modules() if type(layer) in fits]
  hooks = [layer.register_forward_pre_hook(fits[type(layer)]) for layer in layers]
  texture = torch.randn(16, 3, 32, 32, generator=generator)
  module(texture + torch.randn(16, 3, 1, 1, generator=generator))
  for hook in hooks:
    hook.remove()


def named(**modules):
  """The modules one after another, under their names."""
  chain = nn.Sequential()
  for name, module in modules.items():
    chain.add_module(name, module)
  return chain


def conv_norm(inputs, outputs, size=3, stride=1, groups=1):
  """A convolution without bias and its BatchNorm, as a list."""
  fields = {'padding': size // 2, 'groups': groups, 'bias': False}
  return [nn.Conv2d(inputs, outputs, size, stride, **fields), nn.BatchNorm2d(outputs)]


def pool():
  """The mean over positions."""
  return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())


def stage(block, inputs, outputs, blocks, stride):
  """Blocks of which the first changes the channels and strides."""
  first = block(inputs, outputs, stride)
  return nn.Sequential(first, *[block(outputs, outputs, 1) for _ in range(blocks - 1)])


class BasicBlock(nn.Module):
  """Two convolutions beside a shortcut (He et al. 2016)."""

  def __init__(self, inputs, outputs, stride):
    super().__init__()
    self.conv1, self.bn1 = conv_norm(inputs, outputs, stride=stride)
    self.conv2, self.bn2 = conv_norm(outputs, outputs)
    shortcut = [] if inputs == outputs else conv_norm(inputs, outputs, 1, stride)
    self.downsample = nn.Sequential(*shortcut)

  def forward(self, x):
    y = torch.relu(self.bn1(self.conv1(x)))
    return torch.relu(self.bn2(self.conv2(y)) + self.downsample(x))


def resnet(num_classes, depth):
  """ResNet for CIFAR: three stages of 16, 32 and 64 channels."""
  blocks = (depth - 2) // 6
  conv1, bn1 = conv_norm(3, 16)
  return named(
    conv1=conv1,
    bn1=bn1,
    relu=nn.ReLU(),
    layer1=stage(BasicBlock, 16, 16, blocks, 1),
    layer2=stage(BasicBlock, 16, 32, blocks, 2),
    layer3=stage(BasicBlock, 32, 64, blocks, 2),
    pool=pool(),
    fc=nn.Linear(64, num_classes),
  )


def vgg(num_classes, convolutions):
  """VGG with BatchNorm (Simonyan and Zisserman 2015), on 32 by 32 pixels."""
  layers, inputs = [], 3
  for outputs, repeats in zip((64, 128, 256, 512, 512), convolutions, strict=True):
    for _ in range(repeats):
      layers.append(nn.Conv2d(inputs, outputs, 3, padding=1))
      layers += [nn.BatchNorm2d(outputs), nn.ReLU()]
      inputs = outputs
    layers.append(nn.MaxPool2d(2))
  dense = []
  for _ in range(2):
    dense += [nn.Linear(512, 512), nn.ReLU(), nn.Dropout()]
  features = nn.Sequential(*layers)
  classifier = nn.Sequential(*dense, nn.Linear(512, num_classes))
  return named(features=features, flatten=nn.Flatten(), classifier=classifier)


class Bottleneck(nn.Module):
  """An inverted residual with a linear end (Sandler et al. 2018)."""

  def __init__(self, inputs, outputs, stride, expansion):
    super().__init__()
    inside = expansion * inputs
    layers = [relu6(inputs, inside, 1)] if expansion > 1 else []
    layers.append(relu6(inside, inside, 3, stride, groups=inside))
    self.conv = nn.Sequential(*layers, *conv_norm(inside, outputs, 1))
    self.shortcut = stride == 1 and inputs == outputs

  def forward(self, x):
    return self.conv(x) + x if self.shortcut else self.conv(x)


def relu6(*args, **kwargs):
  """A convolution, BatchNorm and ReLU6."""
  return nn.Sequential(*conv_norm(*args, **kwargs), nn.ReLU6())


def mobilenetv2(num_classes, width):
  """MobileNetV2 for CIFAR: the stem and the second stage do not stride."""

  def scaled(channels):
    target = channels * width
    rounded = max(8, 8 * math.floor(target / 8 + 0.5))
    return rounded + 8 if 10 * rounded < 9 * target else rounded

  inputs = scaled(32)
  layers = [relu6(3, inputs)]
  widths = (16, 24, 32, 64, 96, 160, 320)
  for c, blocks, stride in zip(widths, (1, 2, 3, 4, 3, 3, 1), (1, 1, 2, 2, 1, 2, 1)):
    block = functools.partial(Bottleneck, expansion=1 if c == 16 else 6)
    layers += stage(block, inputs, scaled(c), blocks, stride)
    inputs = scaled(c)
  last = max(1280, scaled(1280))
  features = nn.Sequential(*layers, relu6(inputs, last, 1))
  classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(last, num_classes))
  return named(features=features, pool=pool(), classifier=classifier)


class ShuffleUnit(nn.Module):
  """Two branches whose channels are then interleaved (Ma et al. 2018)."""

  def __init__(self, inputs, outputs, stride):
    super().__init__()
    half = outputs // 2
    self.split = stride == 1

    def depthwise(channels):
      spatial = conv_norm(channels, channels, 3, stride, groups=channels)
      return [*spatial, *conv_norm(channels, half, 1), nn.ReLU()]

    entry = conv_norm(half if self.split else inputs, half, 1)
    self.branch1 = nn.Sequential(*[] if self.split else depthwise(inputs))
    self.branch2 = nn.Sequential(*entry, nn.ReLU(), *depthwise(half))

  def forward(self, x):
    left, right = x.tensor_split(2, 1) if self.split else (x, x)
    return torch.stack([self.branch1(left), self.branch2(right)], 2).flatten(1, 2)


def shufflenetv2(num_classes, widths):
  """ShuffleNetV2 for CIFAR: the stem does not stride, and no pooling follows it."""
  a, b, c, last = widths
  return named(
    conv1=nn.Sequential(*conv_norm(3, 24), nn.ReLU()),
    stage2=stage(ShuffleUnit, 24, a, 4, 2),
    stage3=stage(ShuffleUnit, a, b, 8, 2),
    stage4=stage(ShuffleUnit, b, c, 4, 2),
    conv5=nn.Sequential(*conv_norm(c, last, 1), nn.ReLU()),
    pool=pool(),
    fc=nn.Linear(last, num_classes),
  )


class RepBlock(nn.Module):
  """The sum of up to three normalised branches, as trained (Ding et al. 2021)."""

  def __init__(self, inputs, outputs, stride):
    super().__init__()
    same = stride == 1 and inputs == outputs
    self.rbr_identity = nn.BatchNorm2d(inputs) if same else None
    for name, size in (('rbr_dense', 3), ('rbr_1x1', 1)):
      convolution, norm = conv_norm(inputs, outputs, size, stride)
      self.add_module(name, named(conv=convolution, bn=norm))

  def forward(self, x):
    return torch.relu(sum(branch(x) for branch in self.children()))


def repvgg(num_classes, widths):
  """RepVGG-A for CIFAR: the stem and the first stage do not stride."""
  stem, (a, b, c, d) = min(64, widths[0]), widths
  return named(
    stage0=RepBlock(3, stem, 1),
    stage1=stage(RepBlock, stem, a, 2, 1),
    stage2=stage(RepBlock, a, b, 4, 2),
    stage3=stage(RepBlock, b, c, 14, 2),
    stage4=stage(RepBlock, c, d, 1, 2),
    pool=pool(),
    linear=nn.Linear(d, num_classes),
  )


class Attention(nn.Module):
  """Self-attention; one layer holds queries, keys and values, heads within each."""

  def __init__(self, width, heads):
    super().__init__()
    self.heads = heads
    self.qkv = nn.Linear(width, 3 * width)
    self.proj = nn.Linear(width, width)

  def forward(self, x):
    parts = self.qkv(x).tensor_split(3, -1)
    q, k, v = (part.unflatten(-1, (self.heads, -1)) for part in parts)
    scores = torch.einsum('nihd,njhd->nhij', q, k) / math.sqrt(q.shape[-1])
    mixed = torch.einsum('nhij,njhd->nihd', scores.softmax(-1), v)
    return self.proj(mixed.flatten(2))


class Block(nn.Module):
  """Attention and an MLP, each normalised before and beside a shortcut."""

  def __init__(self, width, heads):
    super().__init__()
    self.norm1 = nn.LayerNorm(width, eps=1e-6)
    self.attn = Attention(width, heads)
    self.norm2 = nn.LayerNorm(width, eps=1e-6)
    fc1, fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
    self.mlp = named(fc1=fc1, act=nn.GELU(), fc2=fc2)

  def forward(self, x):
    x = x + self.attn(self.norm1(x))
    return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
  """A vision transformer with a class token (Dosovitskiy et al. 2021)."""

  def __init__(self, num_classes, width, depth, heads, image_size=384, patch=16):
    super().__init__()
    tokens = 1 + (image_size // patch) ** 2
    self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
    self.pos_embed = nn.Parameter(torch.zeros(1, tokens, width))
    self.patch_embed = named(proj=nn.Conv2d(3, width, patch, patch))
    self.blocks = nn.Sequential(*[Block(width, heads) for _ in range(depth)])
    self.norm = nn.LayerNorm(width, eps=1e-6)
    self.head = nn.Linear(width, num_classes)

  def forward(self, x):
    patches = self.patch_embed(x).flatten(2).mT
    first = self.cls_token.expand(len(x), -1, -1)
    x = self.blocks(torch.cat([first, patches], 1) + self.pos_embed)
    return self.head(self.norm(x)[:, 0])


MODELS = {
  **{f'resnet{depth}': (resnet, {'depth': depth}) for depth in (20, 32, 44, 56)},
  'vgg11_bn': (vgg, {'convolutions': (1, 1, 2, 2, 2)}),
  'vgg13_bn': (vgg, {'convolutions': (2, 2, 2, 2, 2)}),
  'vgg16_bn': (vgg, {'convolutions': (2, 2, 3, 3, 3)}),
  'vgg19_bn': (vgg, {'convolutions': (2, 2, 4, 4, 4)}),
  'mobilenetv2_x0_5': (mobilenetv2, {'width': 0.5}),
  'mobilenetv2_x0_75': (mobilenetv2, {'width': 0.75}),
  'mobilenetv2_x1_0': (mobilenetv2, {'width': 1.0}),
  'mobilenetv2_x1_4': (mobilenetv2, {'width': 1.4}),
  'shufflenetv2_x0_5': (shufflenetv2, {'widths': (48, 96, 192, 1024)}),
  'shufflenetv2_x1_0': (shufflenetv2, {'widths': (116, 232, 464, 1024)}),
  'shufflenetv2_x1_5': (shufflenetv2, {'widths': (176, 352, 704, 1024)}),
  'shufflenetv2_x2_0': (shufflenetv2, {'widths': (244, 488, 976, 2048)}),
  'repvgg_a0': (repvgg, {'widths': (48, 96, 192, 1280)}),
  'repvgg_a1': (repvgg, {'widths': (64, 128, 256, 1280)}),
  'repvgg_a2': (repvgg, {'widths': (96, 192, 384, 1408)}),
  'vit_small_patch16_384': (ViT, {'width': 384, 'depth': 12, 'heads': 6}),
  'vit_base_patch16_384': (ViT, {'width': 768, 'depth': 12, 'heads': 12}),
  'vit_large_patch16_384': (ViT, {'width': 1024, 'depth': 24, 'heads': 16}),
}
