/** Parses numbers on the command line as C's `strtoumax` and `strtod` do. */
import { SpipedError } from "../errors.ts";

/** A number is invalid; the message is the system's text for EINVAL or ERANGE. */
export class NumberError extends SpipedError {
  constructor(code: "EINVAL" | "ERANGE") {
    super(code, code === "EINVAL" ? "Invalid argument" : "Numerical result out of range");
  }
}

const INTEGER = /^[ \t\n\v\f\r]*([+-]?)(0[xX][\da-fA-F]+|0[0-7]*|[1-9]\d*)$/;
const MAX_UINTMAX = 2n ** 64n - 1n;

/**
 * Parses a count as `strtoumax` does with base 0: decimal, `0x` hexadecimal or `0` octal; a negative number wraps
 * around to a huge one.
 *
 * @returns the count; `Infinity`, meaning no limit, for 0 and for values that a `number` cannot represent exactly.
 * @throws NumberError
 */
export function parseCount(text: string): number {
  const match = INTEGER.exec(text);
  if (match === null) throw new NumberError("EINVAL");
  const [, sign, digits] = match as unknown as [string, string, string];
  const magnitude = BigInt(/^0[0-7]/.test(digits) ? `0o${digits.slice(1)}` : digits);
  if (magnitude > MAX_UINTMAX) throw new NumberError("ERANGE");
  const count = Number(BigInt.asUintN(64, sign === "-" ? -magnitude : magnitude));
  return count === 0 || !Number.isSafeInteger(count) ? Number.POSITIVE_INFINITY : count;
}

const SPACE_AND_SIGN = /^[ \t\n\v\f\r]*([+-]?)(.*)$/s;
const DECIMAL = /^(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;
const HEXADECIMAL = /^0x([\da-f]*)\.?([\da-f]*)(?:p([+-]?\d+))?$/i;
const NAN = /^nan(\(\w*\))?$/i;

/**
 * Parses a duration in seconds as `strtod` does: fractions, exponents, hexadecimal and `inf` are allowed.
 *
 * @returns the seconds, never negative; NaN for `nan`.
 * @throws NumberError
 */
export function parseSeconds(text: string): number {
  const [, sign, digits] = SPACE_AND_SIGN.exec(text) as unknown as [string, string, string];
  if (NAN.test(digits)) return Number.NaN;
  const infinite = /^inf(inity)?$/i.test(digits);
  const magnitude = infinite ? Number.POSITIVE_INFINITY : parseFinite(digits);
  if (sign === "-" && magnitude > 0) throw new NumberError("ERANGE");
  return magnitude;
}

function parseFinite(digits: string): number {
  const hexadecimal = HEXADECIMAL.exec(digits);
  let value: number;
  let mantissa: string;
  if (hexadecimal !== null) {
    const [, whole, fraction, exponent] = hexadecimal as unknown as [
      string,
      string,
      string,
      string | undefined,
    ];
    mantissa = whole + fraction;
    if (mantissa === "") throw new NumberError("EINVAL");
    value = Number(`0x${mantissa}`) * 2 ** (Number(exponent ?? 0) - 4 * fraction.length);
  } else {
    if (!DECIMAL.test(digits)) throw new NumberError("EINVAL");
    mantissa = digits.replace(/e.*/i, "");
    value = Number(digits);
  }
  const underflow = value === 0 && /[1-9a-f]/i.test(mantissa);
  if (!Number.isFinite(value) || underflow) throw new NumberError("ERANGE");
  return value;
}
