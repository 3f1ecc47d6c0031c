"""What every network must do: inherit `NetworkSuite`, give `config`, receive the tests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sketchscale.config import Execution, SegmentOptions, TrainOptions
from sketchscale.errors import InputError
from sketchscale.geometry import whole
from sketchscale.io.ome_zarr.arrays import read_box
from sketchscale.io.ome_zarr.image import open_image
from sketchscale.networks import NetworkConfig, create_network
from sketchscale.networks.adapt import adapt_weights
from sketchscale.networks.checkpoint import Model, load_model, save_model
from sketchscale.training.config import TrainingConfig
from sketchscale.training.loop import Hooks, train
from sketchscale.workflow.segment.arrays import fields_of_array, segment_array
from sketchscale.workflow.segment.segment import plan_segment, segment
from sketchscale.workflow.train.train import train as train_options
from tests.pipeline import draw_nuclei, store_image
from tests.training.examples import TINY, example, same, weights


class NetworkSuite:
    """Of networks for planes."""

    config: NetworkConfig

    @pytest.fixture(autouse=True)
    def _one_thread(self) -> Iterator[None]:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(before)

    @pytest.fixture
    def training(self) -> TrainingConfig:
        stride = create_network(self.config).stride
        return replace(TINY, network=self.config, steps=3, patch=-(-32 // stride) * stride)

    @pytest.fixture
    def taught(self, training: TrainingConfig, tmp_path: Path) -> Model:
        return train([example()], training, run_folder=tmp_path / "run")

    @pytest.fixture
    def folder(self, taught: Model, tmp_path: Path) -> str:
        save_model(tmp_path / "model", taught.network, taught.config, taught.provenance)
        return str(tmp_path / "model")

    def _image(self, size: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(1, self.config.channels, size, size, generator=generator, dtype=dtype)

    def test_output_has_the_size_of_the_input(self) -> None:
        network = create_network(self.config).eval()
        stride = network.stride
        with torch.inference_mode():
            found = network(torch.zeros(2, self.config.channels, 2 * stride, 3 * stride))
        assert found.shape == (2, self.config.outputs, 2 * stride, 3 * stride)
        assert network.bytes_per_pixel >= 4

    def test_an_output_depends_on_nothing_beyond_the_context(self) -> None:
        network = create_network(self.config).eval()
        size = 2 * network.context + 4 * network.stride
        size -= size % network.stride
        image = self._image(size).requires_grad_()
        reach = 0
        for at in range(size // 2, size // 2 + network.stride):
            (gradient,) = torch.autograd.grad(network(image)[0, :, at, at].sum(), image)
            reach = max(reach, int((torch.nonzero(gradient[0].abs().sum(dim=0)) - at).abs().max()))
        assert network.context // 2 < reach <= network.context

    def test_tiles_at_multiples_of_the_stride_agree_with_the_whole_image(self) -> None:
        network = create_network(self.config).double().eval()
        stride = network.stride
        reach = -(-network.context // stride) * stride
        image = self._image(2 * reach + 3 * stride, torch.float64)
        with torch.inference_mode():
            everything, tile = network(image), network(image[:, :, stride:, stride:])
        inner, shifted = slice(reach, reach + stride), slice(reach + stride, reach + 2 * stride)
        torch.testing.assert_close(tile[:, :, inner, inner], everything[:, :, shifted, shifted])

    def test_the_seed_alone_decides_the_weights(self) -> None:
        torch.manual_seed(5)
        before = torch.get_rng_state()
        a, b, c = (create_network(self.config, seed=seed).state_dict() for seed in (3, 3, 4))
        assert torch.equal(torch.get_rng_state(), before)
        assert all(torch.equal(a[k], b[k]) for k in a)
        assert any(not torch.equal(a[k], c[k]) for k in a)

    def test_a_patch_that_the_stride_does_not_divide_is_refused(self, training: TrainingConfig) -> None:
        stride = create_network(self.config).stride
        with pytest.raises(InputError, match=f"a multiple of {stride} px, .*--patch {training.patch}"):
            replace(training, patch=training.patch + 1)

    def test_three_steps_change_it_and_it_is_saved_and_loaded_as_it_was(self, taught: Model, folder: str) -> None:
        fresh = create_network(self.config, seed=TINY.seed).state_dict()
        assert any(not torch.equal(v, weights(taught)[k]) for k, v in fresh.items())
        loaded = load_model(folder)
        assert loaded.config == taught.config
        assert same(loaded, taught)

    def test_interrupted_and_resumed_ends_with_the_same_weights(
        self, taught: Model, training: TrainingConfig, tmp_path: Path
    ) -> None:
        steps: list[int] = []
        hooks = Hooks(interrupted=lambda: len(steps) == 2)
        cut = tmp_path / "cut"
        with pytest.raises(KeyboardInterrupt):
            train([example()], training, run_folder=cut, hooks=hooks, on_step=lambda s: steps.append(s.step))
        assert same(train([example()], training, run_folder=cut, resume=True), taught)

    def test_a_batch_that_is_no_number_changes_nothing_of_it(self, training: TrainingConfig, tmp_path: Path) -> None:
        image = example()
        image.image[:] = np.nan
        with pytest.raises(Exception, match="step 1: the loss is nan"):
            train([image], training, run_folder=tmp_path / "spoilt")
        again = train([example()], training, run_folder=tmp_path / "spoilt", resume=True)
        assert all(bool(torch.isfinite(v.float()).all()) for v in weights(again).values())

    def test_a_start_from_a_model_computes_what_it_computed(self, taught: Model, training: TrainingConfig) -> None:
        network = create_network(self.config, seed=9)
        network.load_state_dict(adapt_weights(taught, self.config))
        image = self._image(training.patch)
        with torch.inference_mode():
            torch.testing.assert_close(network.eval()(image), taught.network(image))

    def test_a_start_for_more_channels_and_outputs_fits(self, taught: Model) -> None:
        wanted = replace(self.config, channels=self.config.channels + 1, outputs=self.config.outputs + 1)
        create_network(wanted).load_state_dict(adapt_weights(taught, wanted), strict=True)

    def test_training_goes_on_from_a_model_by_its_options(self, folder: str, tmp_path: Path) -> None:
        options = TrainOptions(
            images=(store_image(tmp_path / "taught.zarr", draw_nuclei((64, 64))),),
            sketches=(str(tmp_path / "sketch.npy"),),
            sketch_kind="labels",
            out=str(tmp_path / "next"),
            network=self.config.name,
            init=folder,
            steps=1,
            batch=1,
            patch=8 * create_network(self.config).stride,
            threads=1,
        )
        np.save(tmp_path / "sketch.npy", example().labels)
        assert load_model(train_options(options).model).config.network == self.config
        with pytest.raises(InputError, match="did you mean"):
            train_options(replace(options, out=str(tmp_path / "none"), network=self.config.name + "t", init=None))
        assert not (tmp_path / "none").exists()

    def test_segmented_by_blocks_as_in_one_piece(self, taught: Model, folder: str, tmp_path: Path) -> None:
        tile = 16 * create_network(self.config).stride
        pixels = draw_nuclei((100, 130))
        options = SegmentOptions(model=folder, tile=tile, overlap=tile // 4, min_size=0)
        distance = fields_of_array(pixels[None], load_model(folder), options)[2]
        options = replace(options, threshold=float(np.quantile(distance, 0.7)))
        address = store_image(tmp_path / "image.zarr", pixels)
        lines = {line.stage: line for line in plan_segment(address, options)}
        assert lines["predict"].task_mb * 1e6 >= tile**2 * create_network(self.config).bytes_per_pixel
        result = segment(address, options, Execution(block=64))
        stored = read_box(open_image(address).label_ref("nuclei"), whole(pixels.shape))
        np.testing.assert_array_equal(stored, segment_array(pixels, options))
        assert result.n > 0
