// Streams of events, few at a time: a browser keeps six connections to a server for all its tabs, and a stream holds one
// for as long as it lasts.

const MOST = 3; // of all tabs together
const MOST_OWN = 2; // of one tab, where tabs cannot agree: browsers offer no locks to pages over plain HTTP

let own = 0;

/** Do something with a stream: `use(true)`, a promise that lasts as long as the stream. `use(false)` if none is free. */
export async function withStream(use) {
  if (!navigator.locks) return own < MOST_OWN ? counted(use) : use(false);
  for (let place = 0; place < MOST; place += 1) {
    let had = false;
    await navigator.locks.request(`darkroom-stream-${place}`, { ifAvailable: true }, async (lock) => {
      had = Boolean(lock);
      if (had) await use(true);
    });
    if (had) return undefined;
  }
  return use(false);
}

async function counted(use) {
  own += 1;
  try {
    return await use(true);
  } finally {
    own -= 1;
  }
}
