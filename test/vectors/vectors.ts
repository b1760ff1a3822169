/**
 * The protocol's test vectors: a fixed key file, nonces and exponents, and every byte that follows from them in the
 * four combinations of strong and weak sides.
 */
import raw from "./vectors.json" with { type: "json" };

export const hex = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text, "hex"));

export interface PartyVector {
  weak: boolean;
  private_x: string | null;
  y: string;
  mac: string;
  message_288: string;
}

export interface PacketVector {
  direction: "client_to_server" | "server_to_client";
  packet_number: number;
  plaintext: string;
  packet_1060: string;
}

export interface ModeVector {
  client: PartyVector;
  server: PartyVector;
  y_sc: string;
  E_C: string;
  H_C: string;
  E_S: string;
  H_S: string;
  packets: PacketVector[];
}

export const vectors = raw;
export const modes = Object.entries(raw.modes as unknown as Record<string, ModeVector>);
