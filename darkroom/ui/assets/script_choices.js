// What the values of an axis of an X/Y/Z plot can be picked from, as the API lists it.
import { api } from "./page.js";

const names = (path, key) => async () => (await api(`/sdapi/v1/${path}`)).map((one) => one[key]);
const fixed = (...values) => async () => values;
const after = (first, rest) => async () => [...first, ...(await rest())];

const checkpoints = names("sd-models", "title");
const samplers = names("samplers", "name");

const SOURCES = {
  "Sampler": samplers,
  "Hires sampler": samplers,
  "Checkpoint name": checkpoints,
  "Refiner checkpoint": after(["None"], checkpoints),
  "Schedule type": names("schedulers", "label"),
  "Hires upscaler": async () => [
    ...(await names("latent-upscale-modes", "name")()),
    ...(await names("upscalers", "name")()),
  ],
  "VAE": after(["Automatic", "None"], names("sd-vae", "model_name")),
  "Styles": names("prompt-styles", "name"),
  "Always discard next-to-last sigma": fixed("False", "True"),
  "SGM noise multiplier": fixed("False", "True"),
  "RNG source": fixed("GPU", "CPU", "NV"),
  "FP8 mode": fixed("Disable", "Enable for SDXL", "Enable"),
};

/** The names that an axis may be given; null where any text will do. */
export async function choicesOf(axis) {
  return (await SOURCES[axis]?.()) ?? null;
}
