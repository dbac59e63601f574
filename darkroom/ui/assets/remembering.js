// What this browser remembers from one visit to the next.

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
