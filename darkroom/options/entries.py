"""Which entry of a generation text stands for which option. Knows names alone."""

from collections.abc import Mapping
from types import MappingProxyType

OPTIONS_BY_ENTRY: Mapping[str, str] = MappingProxyType(
    {
        "Face restoration": "face_restoration",
        "Model hash": "sd_model_checkpoint",
        "Emphasis": "emphasis",
        "Clip skip": "CLIP_stop_at_last_layers",
        "RNG": "randn_source",
        "Tiling": "tiling",
        "Hires refiner": "hires_fix_refiner_pass",
        "VAE": "sd_vae",
        "VAE Encoder": "sd_vae_encode_method",
        "VAE Decoder": "sd_vae_decode_method",
        "Conditional mask weight": "inpainting_mask_weight",
        "Noise multiplier": "initial_noise_multiplier",
        "Extra noise": "img2img_extra_noise",
        "NGMS": "s_min_uncond",
        "NGMS all steps": "s_min_uncond_all",
        "FP8 weight": "fp8_storage",
        "Token merging ratio": "token_merging_ratio",
        "Token merging ratio hr": "token_merging_ratio_hr",
        "DeepCache interval": "deepcache_interval",
        "Pad conds": "pad_cond_uncond",
        "Pad conds v0": "pad_cond_uncond_v0",
        "Old prompt editing timelines": "use_old_scheduling",
        "Downcast alphas_cumprod": "use_downcasted_alpha_bar",
        "Refiner switch by sampling steps": "refiner_switch_by_sample_steps",
        "Eta DDIM": "eta_ddim",
        "Eta": "eta_ancestral",
        "Sigma churn": "s_churn",
        "Sigma tmin": "s_tmin",
        "Sigma tmax": "s_tmax",
        "Sigma noise": "s_noise",
        "Schedule min sigma": "sigma_min",
        "Schedule max sigma": "sigma_max",
        "Schedule rho": "rho",
        "ENSD": "eta_noise_seed_delta",
        "Discard penultimate sigma": "always_discard_next_to_last_sigma",
        "SGM noise multiplier": "sgm_noise_multiplier",
        "UniPC variant": "uni_pc_variant",
        "UniPC skip type": "uni_pc_skip_type",
        "UniPC order": "uni_pc_order",
        "UniPC lower order final": "uni_pc_lower_order_final",
        "Noise Schedule": "sd_noise_schedule",
        "Skip Early CFG": "skip_early_cond",
        "Beta scheduler alpha": "beta_dist_alpha",
        "Beta scheduler beta": "beta_dist_beta",
        # The original looks for the two above and writes these: a text of its own does not come back.
        "Beta schedule alpha": "beta_dist_alpha",
        "Beta schedule beta": "beta_dist_beta",
    }
)
"""The options that a generation text tells of, by its entries, in the order in which they are looked for."""
