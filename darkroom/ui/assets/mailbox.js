// The way from scripts to handlers: each mailbox is a hidden component whose handler gets what is posted.
const boxes = new Map();
const waiting = new Map();

/** Called by a mailbox once it is there. */
export function mailbox(name, trigger) {
  boxes.set(name, trigger);
  for (const message of waiting.get(name) || []) trigger("submit", message);
  waiting.delete(name);
}

/** Give a handler a message, an object; it waits until its mailbox is there. */
export function post(name, message = {}) {
  const trigger = boxes.get(name);
  if (trigger) trigger("submit", message);
  else waiting.set(name, [...(waiting.get(name) || []), message]);
}
