"""Tiny random pipelines of every family, made and saved by diffusers itself."""

import shutil
from functools import cache
from pathlib import Path

import torch

MODELS = Path(__file__).parent / "parity" / "fixtures" / "models"
TINY_SD, TINY_DDPM = MODELS / "tiny_sd", MODELS / "tiny_ddpm"
PROJECTION = 24  # of the text encoders: another width than their states


def clip_tokenizer():
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(TINY_SD / "tokenizer")


def t5_tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import T5TokenizerFast

    letters = [chr(c) for c in range(32, 127) if chr(c) != " "]
    words = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((c, -3.0) for c in letters)]
    made = Tokenizer(models.Unigram(words, unk_id=2))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    named = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    return T5TokenizerFast(tokenizer_object=made, extra_ids=0, model_max_length=512, **named)


def clip(projection=False, hidden=32):
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=len(clip_tokenizer()),
        hidden_size=hidden,
        intermediate_size=37,
        num_hidden_layers=3,
        num_attention_heads=2,
        projection_dim=PROJECTION,
        bos_token_id=clip_tokenizer().bos_token_id,
        eos_token_id=clip_tokenizer().eos_token_id,
    )
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config).eval()


def t5():
    from transformers import T5Config, T5EncoderModel

    config = T5Config(vocab_size=len(t5_tokenizer()), d_model=32, d_ff=37, d_kv=8, num_layers=2, num_heads=2)
    return T5EncoderModel(config).eval()


def vae(**options):
    from diffusers import AutoencoderKL

    shape = {"block_out_channels": (8, 8), "norm_num_groups": 4, "latent_channels": 4, "sample_size": 32}
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    return AutoencoderKL(**{**shape, **blocks, **options}).eval()


def unet(**options):
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        **{
            "sample_size": 16,
            "block_out_channels": (8, 16),
            "norm_num_groups": 4,
            "layers_per_block": 1,
            "cross_attention_dim": 32,
            "attention_head_dim": 4,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            **options,
        }
    ).eval()


def pixels(**options):
    from diffusers import UNet2DModel

    return UNet2DModel(
        **{
            "sample_size": 16,
            "block_out_channels": (8, 16),
            "norm_num_groups": 4,
            "layers_per_block": 1,
            "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
            "attention_head_dim": 4,
            **options,
        }
    ).eval()


def ddim(**options):
    from diffusers import DDIMScheduler

    given = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
    return DDIMScheduler(**{**given, "clip_sample": False, "set_alpha_to_one": False, **options})


def sd():
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline.from_pretrained(TINY_SD, local_files_only=True)


def sd_v():
    pipeline = sd()
    pipeline.register_modules(scheduler=ddim(prediction_type="v_prediction"))
    return pipeline


def sdxl():
    from diffusers import StableDiffusionXLPipeline

    network = unet(
        cross_attention_dim=64,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=PROJECTION + 6 * 8,
    )
    return StableDiffusionXLPipeline(
        vae=vae(scaling_factor=0.13025),
        text_encoder=clip(),
        text_encoder_2=clip(projection=True),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        unet=network,
        scheduler=ddim(),
        add_watermarker=False,
    )


def sd3(with_t5=True):
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

    network = SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=16,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=80,
        caption_projection_dim=16,
        pooled_projection_dim=2 * PROJECTION,
        out_channels=16,
        pos_embed_max_size=16,
    )
    t5_80 = None
    if with_t5:
        from transformers import T5Config, T5EncoderModel

        t5_80 = T5EncoderModel(
            T5Config(vocab_size=len(t5_tokenizer()), d_model=80, d_ff=37, d_kv=8, num_layers=1, num_heads=2)
        )
    return StableDiffusion3Pipeline(
        transformer=network.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(
            latent_channels=16,
            scaling_factor=1.5305,
            shift_factor=0.0609,
            use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        text_encoder=clip(projection=True),
        tokenizer=clip_tokenizer(),
        text_encoder_2=clip(projection=True),
        tokenizer_2=clip_tokenizer(),
        text_encoder_3=t5_80 and t5_80.eval(),
        tokenizer_3=t5_tokenizer() if with_t5 else None,
    )


def flux(guidance=True):
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    network = FluxTransformer2DModel(
        in_channels=64,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=(4, 4, 8),
        guidance_embeds=guidance,
    )
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=vae(
            latent_channels=16,
            scaling_factor=0.3611,
            shift_factor=0.1159,
            use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        text_encoder=clip(),
        tokenizer=clip_tokenizer(),
        text_encoder_2=t5(),
        tokenizer_2=t5_tokenizer(),
        transformer=network.eval(),
    )


def ddpm():
    from diffusers import DDPMPipeline

    return DDPMPipeline.from_pretrained(TINY_DDPM, local_files_only=True)


def ddpm_class(classes=4):
    from diffusers import DDPMPipeline, DDPMScheduler

    return DDPMPipeline(unet=pixels(num_class_embeds=classes), scheduler=DDPMScheduler())


def ldm(quantised=True):
    from diffusers import LDMPipeline, VQModel

    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    shape = {"block_out_channels": (8, 8), "norm_num_groups": 4, "latent_channels": 3}
    code = VQModel(num_vq_embeddings=32, scaling_factor=0.4, **shape, **blocks) if quantised else vae(latent_channels=3)
    network = pixels(in_channels=3, out_channels=3)
    return LDMPipeline(vqvae=code.eval(), unet=network, scheduler=ddim())


@cache
def made(name, **options):
    """A pipeline by the name of its function; random, but the same every time."""
    torch.manual_seed(0)
    pipeline = globals()[name](**options)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def saved(name, folder, **options):
    """The folder that a pipeline is saved to."""
    made(name, **options).save_pretrained(folder, safe_serialization=True)
    return folder


def in_hub_cache(folder, cache, repository, commit="c" * 40, branch="main"):
    """A pipeline folder as the hub's cache holds it: blobs by name, links to them, a reference to the commit."""
    root = cache / f"models--{repository.replace('/', '--')}"
    (root / "refs").mkdir(parents=True, exist_ok=True)
    (root / "refs" / branch).write_text(commit)
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        place = root / "snapshots" / commit / path.relative_to(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        blob = root / "blobs" / str(path.relative_to(folder)).replace("/", "-")
        blob.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, blob)
        place.symlink_to(blob)
    return root
