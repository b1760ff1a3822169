type Protocol = Record<string, unknown>;
export function makeTarget(protocol: Protocol): (input: Uint8Array) => void;
export function seeds(protocol: Protocol): Buffer[];
