/** What the messages of one kind of failure share. */

const MAX_WORDS = 300;
const PLACEHOLDERS = /<(?:url|address|id|path)>|'…'|#|\(sealed\)/;

/** The longest words of a grouped message that stand in all of its failures: what the server's filter, which
 * looks for a part of `Class: message`, can be told. */
export function sharedWords(error: string, message: string): string {
  const pieces = `${error}: ${message}`.split(PLACEHOLDERS).map((it) => it.trim());
  const longest = pieces.reduce((a, b) => (b.length > a.length ? b : a), "");
  // Runs of spaces were made one in the message: only words that stand next to each other are sure.
  return longest.slice(0, MAX_WORDS);
}
