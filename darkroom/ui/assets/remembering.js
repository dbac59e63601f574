// What this browser remembers from one visit to the next, and what controls begin with.

/** Keep what stands in a group of controls. */
export function remember(name, values) {
  try {
    localStorage.setItem(`darkroom-${name}`, JSON.stringify(values));
  } catch {
    // A browser that keeps nothing starts anew each time.
  }
}

/** What stood there the last time; `now` if nothing was kept. */
export function recall(name, now) {
  try {
    const kept = JSON.parse(localStorage.getItem(`darkroom-${name}`) ?? "null");
    return Array.isArray(kept) && kept.length === now.length ? kept : now;
  } catch {
    return now;
  }
}

const natives = new Map();

/** [width, height] of a page: the side of the pictures that the chosen checkpoint was made for, unless they were changed.
 *  `sizes` is JSON: sides by checkpoint, that of the server's choice under no name. */
export function nativeSize(page, sizes, checkpoint, width, height) {
  const known = JSON.parse(sizes || "{}");
  const side = known[checkpoint] ?? known[""];
  const last = natives.get(page) ?? 512;
  const given = new URLSearchParams(location.search);
  const changed = width !== last || height !== last || given.has("width") || given.has("height");
  if (!side || changed) return [width, height];
  natives.set(page, side);
  return [side, side];
}
