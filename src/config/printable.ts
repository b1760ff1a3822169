/**
 * Escapes untrusted text (names of files, keys and tunnels) for logs and terminals. Control characters can forge log
 * lines and control terminals; invisible and bidirectional ones can make one name look like another.
 */

/** Control and format characters (bidi marks, zero-width ones), line separators, and substitutes for invalid UTF-8. */
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}\uFFFD]/u;
const ALL_UNPRINTABLE = new RegExp(UNPRINTABLE, "gu");

/** Returns true if a name can be shown without escaping. */
export function isPrintable(text: string): boolean {
  return !UNPRINTABLE.test(text);
}

/** Replaces each unprintable character with `\u{HEX}`. */
export function escapeUnprintable(text: string): string {
  return text.replace(ALL_UNPRINTABLE, (character) => `\\u{${character.codePointAt(0)!.toString(16)}}`);
}
