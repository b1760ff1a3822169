/** A placeholder until the address parser lands. */
export type ResolvedAddress =
  | { kind: "unix"; path: string }
  | { kind: "tcp"; host: string; port: number; family: 4 | 6 };
