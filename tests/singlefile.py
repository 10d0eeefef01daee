"""Tiny pipelines in one file, in the layout of the programs that trained the real ones."""

import re

import torch
from safetensors.torch import save_file

UNET = {"time_embedding.linear_1.": "time_embed.0.", "time_embedding.linear_2.": "time_embed.2."}
UNET |= {"conv_in.": "input_blocks.0.0.", "conv_norm_out.": "out.0.", "conv_out.": "out.2."}
RESNET = {"norm1.": "in_layers.0.", "conv1.": "in_layers.2.", "time_emb_proj.": "emb_layers.1."}
RESNET |= {"norm2.": "out_layers.0.", "conv2.": "out_layers.3.", "conv_shortcut.": "skip_connection."}
ATTENTION = {"group_norm.": "norm.", "to_q.": "q.", "to_k.": "k.", "to_v.": "v.", "to_out.0.": "proj_out."}
LEVELS = 2


def single_file(pipeline, path):
    """Names as the original has them: diffusers' conversion the other way round. U-Net and VAE of two levels."""
    found = {f"model.diffusion_model.{unet_name(n)}": v for n, v in pipeline.unet.state_dict().items()}
    for name, value in pipeline.vae.state_dict().items():
        as_convolution = ".attentions." in name and name.endswith(".weight") and "group_norm" not in name
        found[f"first_stage_model.{vae_name(name)}"] = value[..., None, None] if as_convolution else value
    for name, value in pipeline.text_encoder.state_dict().items():
        found[f"cond_stage_model.transformer.text_model.{name.removeprefix('text_model.')}"] = value
    found["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_file({name: value.contiguous().clone() for name, value in found.items()}, path)
    return path


SD3 = {"time_text_embed.timestep_embedder.linear_": "t_embedder.mlp.", "proj_out.": "final_layer.linear."}
SD3 |= {
    "time_text_embed.text_embedder.linear_": "y_embedder.mlp.",
    "norm_out.linear.": "final_layer.adaLN_modulation.1.",
}
SD3 |= {"pos_embed.proj.": "x_embedder.proj."}
BLOCK = {"attn.to_out.0.": "x_block.attn.proj.", "attn.to_add_out.": "context_block.attn.proj."}
BLOCK |= {
    f"{ff}.net.{ours}": f"{side}.mlp.fc{n}."
    for ff, side in (("ff", "x_block"), ("ff_context", "context_block"))
    for ours, n in (("0.proj.", 1), ("2.", 2))
}
BLOCK |= {"norm1.linear.": "x_block.adaLN_modulation.1.", "norm1_context.linear.": "context_block.adaLN_modulation.1."}


def sd3_file(pipeline, path):
    """The transformer alone: no text encoders, no VAE."""
    ours, found = pipeline.transformer.state_dict(), {}
    last = pipeline.transformer.config.num_layers - 1
    for name, value in ours.items():
        if name.startswith("norm_out.linear.") or name.startswith(f"transformer_blocks.{last}.norm1_context."):
            value = torch.cat(value.chunk(2)[::-1])  # scale and shift the other way round
        if match := re.fullmatch(r"transformer_blocks\.(\d+)\.(.*)", name):
            block, rest = match.groups()
            if rest.startswith(("attn.to_q.", "attn.add_q_proj.")):
                others = [ours[name.replace("_q", f"_{c}")] for c in "kv"]
                side = "x" if "to_q" in rest else "context"
                rest, value = f"{side}_block.attn.qkv.{rest.rpartition('.')[2]}", torch.cat([value, *others])
            elif rest.startswith(("attn.to_k", "attn.to_v", "attn.add_k", "attn.add_v")):
                continue
            else:
                rest = renamed(rest, BLOCK)
            name = f"joint_blocks.{block}.{rest}"
        elif name == "pos_embed.pos_embed":
            name = "pos_embed"
        else:
            name = renamed(name, SD3)
            name = name.replace("mlp.1.", "mlp.0.") if "embedder.mlp" in name else name
        found[f"model.diffusion_model.{name}"] = value
    save_file({name: value.contiguous().clone() for name, value in found.items()}, path)
    return path


def renamed(name, names):
    theirs = next((n for n in names if name.startswith(n)), "")
    return names.get(theirs, "") + name[len(theirs) :]


def unet_name(name):
    if any(name.startswith(n) for n in UNET):
        return renamed(name, UNET)
    side, block, kind, layer, rest = re.fullmatch(r"(\w+?)_blocks?\.(?:(\d)\.)?(\w+)\.(\d)\.(.*)", name).groups()
    rest, layer, block = renamed(rest, RESNET) if kind == "resnets" else rest, int(layer), int(block or 0)
    if side == "mid":
        return f"middle_block.{1 if kind == 'attentions' else 2 * layer}.{rest}"
    if side == "down":  # a layer and a downsampler a level
        rest = rest.replace("conv.", "op.") if kind == "downsamplers" else rest
        return f"input_blocks.{1 + 2 * block + (kind == 'downsamplers')}.{int(kind == 'attentions')}.{rest}"
    last = kind == "upsamplers"  # two layers a level
    return f"output_blocks.{2 * block + (1 if last else layer)}.{int(last or kind == 'attentions')}.{rest}"


def vae_name(name):
    name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    if match := re.fullmatch(r"(\w+)\.mid_block\.(\w+)\.(\d)\.(.*)", name):
        side, kind, layer, rest = match.groups()
        part = f"block_{int(layer) + 1}.{rest}" if kind == "resnets" else f"attn_1.{renamed(rest, ATTENTION)}"
        return f"{side}.mid.{part}"
    if match := re.fullmatch(r"(\w+)\.(down|up)_blocks\.(\d)\.(\w+)\.(\d)\.(.*)", name):
        side, way, block, kind, layer, rest = match.groups()
        level = int(block) if way == "down" else LEVELS - 1 - int(block)
        return f"{side}.{way}.{level}.{f'block.{layer}' if kind == 'resnets' else f'{way}sample'}.{rest}"
    return name
