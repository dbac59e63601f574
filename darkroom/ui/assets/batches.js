// What the last batch of a page began with and which jobs came of it, and all of its pictures as one file.
import { archive } from "./archive.js";
import { api } from "./page.js";
import { base, say } from "./setup.js";

const names = new Map();
const jobs = new Map();

/** The files of the batch that a page is about to begin. */
export function beginBatch(page, files) {
  names.set(page, files);
}

/** The jobs that came of it, in the order of its files. */
export function begun(page, ids) {
  if (ids.length === names.get(page)?.length) jobs.set(page, ids);
}

/** The pictures of a page's last batch as a ZIP archive, named after the files. Throws an Error in words. */
export async function batchArchive(page) {
  const files = [];
  for (const [place, id] of (jobs.get(page) ?? []).entries()) {
    const { images } = await api(`/jobs/${id}`);
    for (const [number, image] of images.entries()) {
      const bytes = new Uint8Array(await (await fetch(base + image.url)).arrayBuffer());
      files.push({ name: nameOf(names.get(page)[place], place, number, image), bytes });
    }
  }
  if (!files.length) throw new Error(say("No picture of this batch is done yet."));
  return archive(files);
}

function nameOf(file, place, number, image) {
  const stem = file.replace(/\.[^.]*$/, "").replaceAll(/[\\/:*?"<>|]/g, "_");
  const ending = image.media_type.split("/").at(-1).replace("jpeg", "jpg");
  return `${place + 1}-${stem}${number ? `-${number + 1}` : ""}.${ending}`;
}
