/** Serializes plans for messages between processes. */
import type { KeyPlan, TunnelPlan } from "../../config/plan.ts";
import { Secret } from "../../protocol/secret.ts";

/** A plan in a form that can be sent to a worker; `deserializePlan()` overwrites the keys. */
export type SerializedPlan = Omit<TunnelPlan, "keys"> & {
  readonly keys: readonly (Omit<KeyPlan, "secret"> & { readonly key: Uint8Array })[];
};

export function serializePlan(plan: TunnelPlan): SerializedPlan {
  return { ...plan, keys: plan.keys.map(({ secret, ...key }) => ({ ...key, key: Secret.reveal(secret) })) };
}

export function deserializePlan(plan: SerializedPlan): TunnelPlan {
  return { ...plan, keys: plan.keys.map(({ key, ...rest }) => ({ ...rest, secret: Secret.fromKey(key) })) };
}
