// What the API refused, in the reader's language: the frame of what it says, and the limits that are told most often.
// Values and names stay as they are, and so does a sentence that is not known here.
import { say } from "./setup.js";

const FRAME = /^(?<field>[\w.*[\] ()]+: )?(?<value>.+?) is not allowed; (?<allowed>.+)$/s;
const COUNT = "(?<count>[\\d.]+)";
const RANGE = "from (?<low>-?[\\d.]+) to (?<high>-?[\\d.]+)";

const LIMITS = [
  [/^known: (?<names>.+)$/s, (found) => say("known: {names}", found)],
  [/^there is none yet$/, () => say("there is none yet")],
  [/^there is no such option$/, () => say("there is no such option")],
  [/^true or false$/, () => say("true or false")],
  [/^one of (?<names>.+)$/s, (found) => say("one of {names}", found)],
  [new RegExp(`^${RANGE}$`), (found) => say("from {low} to {high}", found)],
  [new RegExp(`^a whole number ${RANGE}$`), (found) => say("a whole number") + say(" from {low} to {high}", found)],
  [new RegExp(`^a number ${RANGE}$`), (found) => say("a number") + say(" from {low} to {high}", found)],
  [new RegExp(`^at least ${COUNT}$`), (found) => say("at least {count}", found)],
  [new RegExp(`^at most ${COUNT}$`), (found) => say("at most {count}", found)],
  [new RegExp(`^at most ${COUNT} pictures$`), (found) => say("at most {count} pictures", found)],
  [new RegExp(`^at most ${COUNT} pixels$`), (found) => say("at most {count} pixels", found)],
  [new RegExp(`^at most ${COUNT} characters$`), (found) => say("at most {count} characters", found)],
];

/** A refusal of the API or of a page, as its reader says it; the name of the field stays in front. */
export function inWords(text) {
  const found = FRAME.exec(text)?.groups;
  if (!found) return say(text);
  return (found.field ?? "") + say("{value} is not allowed; {allowed}", { value: found.value, allowed: limit(found.allowed) });
}

function limit(allowed) {
  for (const [pattern, said] of LIMITS) {
    const found = pattern.exec(allowed);
    if (found) return said(found.groups ?? {});
  }
  return allowed;
}
