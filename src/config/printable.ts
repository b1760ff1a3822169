/**
 * Text that others chose (names of files, of keys, of tunnels) and that reaches logs and terminals. Control characters
 * forge lines and drive terminals; invisible and bidirectional ones make one name look like another.
 */

/** Controls, format characters (bidi marks, zero-width ones), line separators, and what stands for invalid UTF-8. */
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}\uFFFD]/u;
const ALL_UNPRINTABLE = new RegExp(UNPRINTABLE, "gu");

/** True if a name can be shown as it is. */
export function isPrintable(text: string): boolean {
  return !UNPRINTABLE.test(text);
}

/** Writes each unprintable character as `\u{HEX}`. */
export function escapeUnprintable(text: string): string {
  return text.replace(ALL_UNPRINTABLE, (character) => `\\u{${character.codePointAt(0)!.toString(16)}}`);
}
