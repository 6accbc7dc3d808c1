"""The plain U-Net, the U-Net around any backbone, and deep supervision of their decoders."""

import copy
from itertools import pairwise

import pytest
import torch
from safetensors.torch import save_file

import model_dispatcher as dispatcher
from modeling import backbones, segmenter, unet
from modeling.segmenter import Normalization
from tools.errors import UserError

TINY = "unetify_test_resnet"
# one of each kind: strides from 2, from 4, channels last, from 1, gaps at 8 and finer, torchvision
KINDS = {
    "unet": (1, 2, 4, 8, 16),
    TINY: (2, 4, 8, 16, 32),
    "unetify_test_convnext": (4, 8, 16, 32),
    "unetify_convnext_atto": (4, 8, 16, 32),
    "unetify_resnet10t": (2, 4, 8, 16, 32),
    "unetify_mobilenetv3_small_050": (2, 4, 8, 16, 32),
    "unetify_test_efficientnet": (2, 4, 8, 16, 32),
    "unetify_efficientvit_m0": (16, 32),
    "unetify_tv-resnet18": (2, 4, 8, 16, 32),
    "unetify_tv-mobilenet_v3_small": (2, 4, 8, 16, 32),
}


@pytest.fixture(autouse=True)
def one_thread():
    """Networks so small wait for their threads longer than they compute, above all beside other work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def network_of(name, channels=3, max_features=512, deep_supervision=0, **options):
    scale, decoder = (
        Normalization((0.5,) * channels, (0.3,) * channels),
        dispatcher.Decoder(max_features, deep_supervision),
    )
    return dispatcher.build(name, channels=channels, normalization=scale, decoder=decoder, **options)


def disc(size=32):
    """A bright disc on dark noise (1, 3, size, size), and its mask (1, 1, size, size)."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    mask = ((y - 12) ** 2 + (x - 18) ** 2 <= 60).float()[None, None]
    return (0.1 * torch.rand(1, 3, size, size) + 0.7 * mask).clamp(0, 1), mask


# what differs in kind is tried each time, the rest in make test-slow
OFTEN = ("unet", TINY, "unetify_test_convnext", "unetify_tv-resnet18")
RARELY = [pytest.param(name, marks=pytest.mark.slow) for name in KINDS if name not in OFTEN]


@pytest.mark.parametrize("name", [*OFTEN, *RARELY])
def test_odd_sizes_and_any_channels_give_logits_of_that_size(name):
    network = network_of(name, channels=5, classes=2, max_features=64)
    assert tuple(feature.stride for feature in network.body.features) == KINDS[name]
    network.to(memory_format=torch.channels_last)
    with torch.no_grad():
        assert network.train()(torch.rand(2, 5, 64, 37)).shape == (2, 2, 64, 37)
        assert network.eval()(torch.rand(1, 5, 33, 70)).shape == (1, 2, 33, 70)
        assert network(torch.rand(1, 5, 1, 1)).shape == (1, 2, 1, 1)


@pytest.mark.parametrize("name", ["unet", "unetify_test_convnext"])
def test_gray_images(name):
    network = network_of(name, channels=1, max_features=32).eval()
    dark, bright = torch.zeros(1, 1, 40, 40), torch.ones(1, 1, 40, 40)
    assert not torch.allclose(network(dark), network(bright))


def test_transformers_with_channels_last_features_of_any_size():
    """Swin: only with another option does it take other images than its own, and its features are (N, H, W, C)."""
    network = network_of("unetify_swin_s3_tiny_224").eval()
    assert {feature.channels_last for feature in network.body.features} == {True}
    assert network(torch.rand(1, 3, 33, 64)).shape == (1, 1, 33, 64)


def test_plain_unet_is_the_papers_with_fewer_features():
    body = unet.plain(channels=3, classes=2, max_features=256)
    outputs = body.encoder(torch.zeros(1, 3, 64, 32))
    assert [tuple(output.shape[1:]) for output in outputs] == [
        (16, 64, 32), (32, 32, 16), (64, 16, 8), (128, 8, 4), (256, 4, 2),
    ]  # fmt: skip
    # by hand: 9 ci co + 9 co co weights and 4 co of the norms a double convolution, 4 ci co + co an enlargement
    widths, expected = [3, 16, 32, 64, 128, 256], 16 * 2 + 2
    for fine, coarse in pairwise(widths):
        expected += 9 * (fine + coarse) * coarse + 4 * coarse
    for coarse, fine in ((256, 128), (128, 64), (64, 32), (32, 16)):
        expected += 4 * coarse * fine + fine + 9 * (2 * fine + fine) * fine + 4 * fine
    assert sum(parameter.numel() for parameter in body.parameters()) == expected
    kernel = body.encoder.levels[4][0].weight  # from 128 features: 2 / (9 * 128) is the paper's variance
    assert kernel.std().item() == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.02)
    for wrong in (8, 100):
        with pytest.raises(UserError, match=f"MAX_FEATURES={wrong}: expected a multiple of 16"):
            unet.plain(max_features=wrong)


@pytest.mark.parametrize("name", ["unet", TINY])
def test_it_learns_one_picture_by_heart(name):
    torch.manual_seed(0)
    network, (image, mask) = network_of(name, max_features=32).train(), disc(64)
    images, masks = torch.cat([image, image.flip(3)]), torch.cat([mask, mask.flip(3)])
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-2)
    for _ in range(32):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(network(images), masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    predicted = network(images) > 0
    assert (predicted & (masks > 0)).sum() / (predicted | (masks > 0)).sum() > 0.8


@pytest.mark.parametrize("name", ["unet", "unetify_test_convnext", *RARELY])
def test_every_parameter_has_a_part_in_the_answer(name):
    """One that has none would stop training on several devices: a classifier's head, a stage after the last feature."""
    network = network_of(name, max_features=32).train()
    network(torch.rand(2, 3, 64, 64)).square().mean().backward()
    assert not [key for key, value in network.named_parameters() if value.grad is None]


def test_every_skip_reaches_the_output():
    network = network_of("unetify_test_efficientnet").eval()
    features = network.body.encoder(torch.rand(1, 3, 64, 64))
    maps = {
        kind.stride: value.detach().requires_grad_()
        for kind, value in zip(network.body.features, features, strict=True)
    }
    network.body.decoder(maps).square().sum().backward()
    assert all(value.grad.abs().sum() > 0 for value in maps.values())


def test_the_same_seed_gives_the_same_network():
    for name in (TINY, "unetify_tv-resnet18", "unet"):
        backbones._timm_features.cache_clear()
        dispatcher.frames_of.cache_clear()
        states = []
        for _ in range(2):  # the second time the trial's answer is known already
            torch.manual_seed(3)
            states.append(network_of(name, max_features=32).state_dict())
        torch.testing.assert_close(*states, rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::torch.jit.TracerWarning")  # it is deprecated, and used
@pytest.mark.slow
@pytest.mark.parametrize("name", ["unet", "unetify_test_convnext", "unetify_tv-resnet18"])
def test_tracing_keeps_the_answer(name):
    network, image = network_of(name, max_features=32, deep_supervision=1).eval(), torch.rand(1, 3, 45, 64)
    with torch.no_grad():
        traced = torch.jit.trace(network, image)
        other = torch.rand(2, 3, 45, 64)
        torch.testing.assert_close(traced(other), network(other), rtol=1e-4, atol=1e-5)


def test_a_copy_of_a_torchvision_network_goes_its_own_way():
    """Averaged weights are a copy in eval mode, and torchvision's extractor has a graph for each mode."""
    network = network_of("unetify_tv-mobilenet_v3_small").train()
    twin, image = copy.deepcopy(network).eval(), torch.rand(2, 3, 32, 32)
    before = twin(image)
    network(image)  # moves the statistics of this one's norms
    assert torch.equal(twin(image), before)
    assert not torch.equal(network.eval()(image), before)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("unetify_resnet43", ["timm has no model resnet43", "Did you mean resnet34", "unetify_tv-"]),
        ("unetify_tv-resnet43", ["torchvision has no model resnet43", "Did you mean resnet34"]),
        ("unetify_test_vit", ["features of several of the strides", "64 x 4 x 6", "smp_dpt_tu-"]),
        ("unetify_tv-squeezenet1_0", ["features of several of the strides", "squeezenet1_0", "such as"]),
        ("unetify_tv-vit_b_16", ["images of any size", "Wrong image height", "tv-resnet34"]),
        ("unetify_", ["smp_<architecture>_<encoder>", "unetify_<timm name>"]),
        ("unetify_hf-hub:someone/resnet", ["expected letters, digits"]),
    ],
)
def test_what_cannot_be_an_encoder_is_refused_with_the_way_on(name, words, capfd):
    with pytest.raises(UserError) as error:
        dispatcher.build(name)
    for word in words:
        assert word in str(error.value)
    assert capfd.readouterr().err == ""  # fx would print a traceback of its own


def test_a_shape_tells_its_stride_and_where_its_channels_are():
    assert backbones._feature(torch.zeros(1, 12, 8, 12)) == backbones.Feature(8, 12)
    assert backbones._feature(torch.zeros(1, 8, 12, 18)) == backbones.Feature(8, 18, channels_last=True)
    assert backbones._feature(torch.zeros(1, 8, 9, 12)) is None
    assert backbones._feature(torch.zeros(1, 96)) is None
    outputs = {"a": torch.zeros(1, 5, 32, 48), "b": torch.zeros(1, 6, 4, 6), "c": torch.zeros(1, 7, 32, 48)}
    chosen = backbones._finest_to_coarsest("x", outputs)
    assert chosen == {"c": backbones.Feature(2, 7), "b": backbones.Feature(16, 6)}


SUPERVISED = {
    "unet": 3,
    TINY: 4,
    "smp_unet_tu-test_resnet": 4,
    "smp_linknet_tu-test_resnet": 4,
    "smp_manet_tu-test_resnet": 4,
}


@pytest.mark.parametrize("name", SUPERVISED)
def test_deep_supervision_gives_a_list_in_training_only(name):
    most = SUPERVISED[name]
    network = network_of(name, classes=2, max_features=32, deep_supervision=most)
    levels = network.train()(torch.rand(2, 3, 45, 70))
    assert [tuple(level.shape) for level in levels] == [(2, 2, 45, 70)] * (most + 1)
    sum(level.square().mean() for level in levels[1:]).backward()
    assert all(head.weight.grad.abs().sum() > 0 for head in network.auxiliary)
    assert network.body.encoder.state_dict() and any(p.grad is not None for p in network.body.encoder.parameters())
    assert network.eval()(torch.rand(1, 3, 45, 70)).shape == (1, 2, 45, 70)
    with pytest.raises(UserError, match=f"has {most} coarser levels; say 0 to {most}"):
        network_of(name, max_features=32, deep_supervision=most + 1)


def test_levels_come_from_fine_to_coarse():
    network = network_of("unet", max_features=32, deep_supervision=3).train()
    widths = [head.in_channels for head in network.auxiliary]
    assert widths == [4, 8, 16]
    levels = network(torch.rand(2, 3, 64, 64))
    # an enlarged level changes little from one pixel to the next, the less the coarser it is
    steps = [level.diff(dim=3).abs().mean() / level.std() for level in levels]
    assert steps == sorted(steps, reverse=True)


def test_the_heads_are_not_shipped_and_the_rest_answers_the_same():
    supervised = network_of(TINY, deep_supervision=2)
    state = segmenter.shipped_state(supervised)
    assert not any("auxiliary" in key for key in state)
    assert set(supervised.state_dict()) - set(state) == {
        f"auxiliary.{level}.{kind}" for level in (0, 1) for kind in ("weight", "bias")
    }
    plain, image = network_of(TINY), torch.rand(1, 3, 50, 50)
    plain.load_state_dict(state)
    assert torch.equal(plain.eval()(image), supervised.eval()(image))


def test_shipped_weights_come_back_beside_the_heads():
    network, other = network_of(TINY, deep_supervision=2), network_of(TINY)
    heads = copy.deepcopy(network.auxiliary.state_dict())
    segmenter.load_shipped(network, segmenter.shipped_state(other))
    torch.testing.assert_close(segmenter.shipped_state(network), other.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(network.auxiliary.state_dict(), heads, rtol=0, atol=0)
    with pytest.raises(RuntimeError, match=r"body\.head\.weight"):
        segmenter.load_shipped(network, {k: v for k, v in other.state_dict().items() if k != "body.head.weight"})


@pytest.mark.parametrize("name", ["smp_fpn_tu-test_resnet", "smp_unetplusplus_resnet18", "smp_pspnet_tu-test_resnet"])
def test_deep_supervision_is_refused_where_a_decoder_has_no_coarser_blocks(name):
    with pytest.raises(UserError, match=r"DEEP_SUPERVISION=1: .* expected unet, unetify_\.\.\., smp_unet_"):
        dispatcher.build(name, decoder=dispatcher.Decoder(deep_supervision=1))


def test_supervision_changes_nothing_else():
    torch.manual_seed(1)
    without = network_of("smp_unet_tu-test_resnet").state_dict()
    torch.manual_seed(1)
    supervised = network_of("smp_unet_tu-test_resnet", deep_supervision=2)
    assert supervised.training and supervised.body.decoder.training
    torch.testing.assert_close(segmenter.shipped_state(supervised), without, rtol=0, atol=0)


@pytest.mark.parametrize("name", [TINY, "unetify_tv-resnet18"])
def test_an_encoders_file_gives_exactly_that_encoder(name, tmp_path):
    source, path = network_of(name, max_features=32).body.encoder, tmp_path / "encoder.safetensors"
    save_file({key: value.contiguous() for key, value in source.state_dict().items()}, path)
    fresh = network_of(name, max_features=32).body.encoder
    loaded = network_of(name, max_features=32, encoder_weights=str(path)).body.encoder
    assert any(not torch.equal(value, fresh.state_dict()[key]) for key, value in source.state_dict().items())
    torch.testing.assert_close(loaded.state_dict(), source.state_dict(), rtol=0, atol=0)


def test_files_of_timm_and_torchvision_and_smp_are_understood(tmp_path):
    import timm
    import torchvision

    for name, published in (
        ("unetify_test_convnext", timm.create_model("test_convnext")),  # stages.0.x, and stages_0.x of its features
        (TINY, timm.create_model("test_resnet")),
        ("unetify_tv-resnet18", torchvision.models.resnet18()),
        (TINY, dispatcher.build("smp_unet_tu-test_resnet")),  # a whole network: body.encoder.model.x
        ("smp_unet_tu-test_resnet", timm.create_model("test_resnet")),
    ):
        torch.save(published.state_dict(), tmp_path / "file.pth")
        loaded = network_of(name, encoder_weights=str(tmp_path / "file.pth")).body.encoder.state_dict()
        theirs = getattr(getattr(published, "body", published), "encoder", published).state_dict()
        kernels = [value for value in theirs.values() if value.ndim == 4]
        ours = [value for value in loaded.values() if value.ndim == 4]
        torch.testing.assert_close(ours, kernels, rtol=0, atol=0)
