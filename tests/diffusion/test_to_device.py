"""Between host and device: the same values, in few copies."""

import numpy as np
import pytest
import tiny
import torch

from mia_bench.diffusion.pipeline import layout
from mia_bench.diffusion.transfer import on_host, stacked, to_device


@pytest.fixture
def copies(monkeypatch):
    """Counts tensors that are taken to the host."""
    found, plain = [], torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self, *a, **k: found.append(self.shape) or plain(self, *a, **k))
    return found


def test_all_terms_leave_in_one_copy_for_each_kind(copies):
    halves = torch.randn(4, 2).to(torch.bfloat16)
    measured = [{"a": torch.randn(4), "b": torch.randn(4, 3, 2).transpose(1, 2)}, {"a": halves}, {}]
    before = [{name: value.clone() for name, value in terms.items()} for terms in measured]
    found = on_host(measured)
    assert len(copies) == 2
    assert [list(terms) for terms in found] == [["a", "b"], ["a"], []]
    for terms, wanted in zip(found, before, strict=True):
        assert all(torch.equal(terms[n], wanted[n]) and terms[n].dtype == wanted[n].dtype for n in wanted)


def test_what_is_no_tensor_stays_as_it_is():
    sparse, array = torch.eye(3).to_sparse(), np.arange(3)
    (found,) = on_host([{"sparse": sparse, "array": array, "number": 3.0, "graph": torch.ones(2, requires_grad=True)}])
    assert found["sparse"] is sparse and found["array"] is array and found["number"] == 3.0
    assert not found["graph"].requires_grad


def test_a_batch_of_a_run_leaves_the_device_once(tmp_path, copies):
    tiny.go(tmp_path, attacks="loss,pia,clid,logged")  # three batches of four
    assert len(copies) == 3


def test_stacked_is_stack():
    arrays = [np.random.default_rng(i).standard_normal((2, 3), dtype=np.float32) for i in range(3)]
    assert torch.equal(stacked(arrays, torch.device("cpu")), torch.from_numpy(np.stack(arrays)))
    assert to_device(torch.ones(2), torch.device("cpu")).tolist() == [1, 1]


def test_channels_last_where_matrix_units_are_used():
    assert layout("cuda", torch.float16) == layout("cuda", torch.bfloat16) == torch.channels_last
    assert layout("cuda", torch.float32) == layout("cpu", torch.float16) == torch.preserve_format


def test_attention_is_one_kernel(emoji, emoji_samples, make_batch, monkeypatch):
    """Every attention of U-Net, VAE and text encoder, not the slow products of queries and keys."""
    calls, plain = [], torch.nn.functional.scaled_dot_product_attention

    def counted(*inputs, **options):
        calls.append(inputs[0].shape)
        return plain(*inputs, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)

    def attentions(network):
        return sum(type(m).__name__ in ("Attention", "CLIPAttention", "CLIPSdpaAttention") for m in network.modules())

    emoji._texts.clear()
    states = emoji.condition(["a", "b"]).states["encoder_hidden_states"]
    assert len(calls) == attentions(emoji.text_encoder) > 0
    calls.clear()
    with torch.inference_mode():
        emoji.predict(
            torch.randn(2, *emoji.sample_shape), torch.zeros(2, dtype=torch.int64), encoder_hidden_states=states
        )
        assert len(calls) == attentions(emoji.unet) > 0
        calls.clear()
        emoji.picture(emoji.posterior(torch.zeros(2, 3, emoji.image_size, emoji.image_size))[:, 0])
        assert len(calls) == attentions(emoji.vae)


def test_latents_and_pictures_are_made_without_a_graph_and_can_enter_one(emoji, monkeypatch):
    modes, posterior, picture = [], emoji.posterior, emoji.picture
    monkeypatch.setattr(emoji, "posterior", lambda x: modes.append(torch.is_inference_mode_enabled()) or posterior(x))
    monkeypatch.setattr(emoji, "picture", lambda x: modes.append(torch.is_inference_mode_enabled()) or picture(x))
    latents = emoji.encode(torch.zeros(1, 3, emoji.image_size, emoji.image_size))
    made = [latents, emoji.encode(torch.zeros(1, 3, emoji.image_size, emoji.image_size), torch.ones_like(latents))]
    made.append(emoji.decode(latents))
    assert modes == [True] * 3
    for values in made:
        assert not values.is_inference()
        (values.requires_grad_() * 2).sum().backward()
