// Drives one npm client through what it offers and prints what it saw as JSON: node drive.js CLIENT PORT < PICTURE
"use strict";

const fs = require("node:fs");
const sharp = require("sharp");

const [client, port] = process.argv.slice(2);
const photo = fs.readFileSync(0);

async function size(image) {
  const { width, height } = await sharp(await image.toBuffer()).metadata();
  return [width, height];
}

async function refusal(call) {
  try {
    await call();
  } catch (error) {
    return error.response.status;
  }
  return null;
}

async function driveApi(name) {
  const { StableDiffusionApi } = require(name);
  const api = new StableDiffusionApi({ host: "127.0.0.1", port: Number(port), defaultStepCount: 3 });
  const small = { prompt: "a red apple", seed: 7, width: 128, height: 128 };
  const drawn = await api.txt2img({ ...small, negative_prompt: "blue", batch_size: 2 });
  const enlarged = await api.txt2img({ ...small, enable_hr: true, hr_scale: 1.5, hr_second_pass_steps: 2 });
  const redrawn = await api.img2img({ ...small, init_images: [sharp(photo)], denoising_strength: 0.5 });
  const mask = sharp({ create: { width: 128, height: 128, channels: 3, background: "white" } }).png();
  const inpainted = await api.img2img({ ...small, init_images: [sharp(photo)], mask_image: mask });
  const extra = await api.extraSingle({ image: sharp(photo), upscaler_1: "Lanczos", upscaling_resize: 2 });
  const notes = await api.pngInfo(sharp(Buffer.from(drawn.response.data.images[0], "base64")).withMetadata());
  const before = await api.getOptions();
  await api.setOptions({ CLIP_stop_at_last_layers: 1, sd_model_checkpoint: before.sd_model_checkpoint });
  await api.refreshCheckpoints();
  const progress = await api.getProgress(true);
  await api.waitForReady(0.05);
  return {
    drawn: await Promise.all(drawn.images.map(size)),
    seeds: JSON.parse(drawn.info).all_seeds,
    enlarged: await size(enlarged.image),
    redrawn: await size(redrawn.image),
    inpainted: await size(inpainted.image),
    extra: await size(extra.image),
    notes: typeof notes.info,
    model: await api.getCurrentModel(),
    models: (await api.getSdModels()).map((model) => model.title),
    progress: progress.progress,
    samplers: (await api.getSamplers()).length,
    upscalers: (await api.getUpscalers()).map((upscaler) => upscaler.name),
    flags: typeof (await api.getCmdFlags()),
    lists: [
      await api.getHypernetworks(),
      await api.getFaceRestorers(),
      await api.getRealesrganModels(),
      await api.getPromptStyles(),
    ].map(Array.isArray),
    refusal: await refusal(() => api.txt2img({ ...small, steps: -1 })),
  };
}

async function driveNodeSdWebui() {
  const sdwebui = require("node-sd-webui").default;
  const api = sdwebui({ apiUrl: `http://127.0.0.1:${port}` });
  const small = { prompt: "a red apple", seed: 7, width: 128, height: 128, steps: 3, samplingMethod: "Euler a" };
  const drawn = await api.txt2img({ ...small, batchSize: 2 });
  const hires = { steps: 2, denoisingStrength: 0.6, upscaler: "Latent", upscaleBy: 1.5 };
  const enlarged = await api.txt2img({ ...small, hires });
  const scripted = await api.txt2img({ ...small, script: { name: "Prompts from file or textbox", args: [false, false, "start", "a\nb"] } });
  const redrawn = await api.img2img({ ...small, imageData: [photo.toString("base64")] });
  const notes = await api.pngInfo({ imageData: drawn.images[0] });
  const sizes = (answer) => Promise.all(answer.images.map((image) => size(sharp(Buffer.from(image, "base64")))));
  return {
    drawn: await sizes(drawn),
    seeds: JSON.parse(drawn.info).all_seeds,
    enlarged: (await sizes(enlarged))[0],
    scripted: scripted.images.length,
    redrawn: (await sizes(redrawn))[0],
    prompt: notes.prompt,
    steps: notes.steps,
  };
}

const drive = client === "node-sd-webui" ? driveNodeSdWebui() : driveApi(client);
drive.then((seen) => console.log(JSON.stringify(seen))).catch((error) => {
  console.error(error.response ? `${error.message}: ${JSON.stringify(error.response.data)}` : error.stack);
  process.exit(1);
});
