/** Plans as they travel between processes. */
import type { KeyPlan, TunnelPlan } from "../../config/plan.ts";
import { Secret } from "../../protocol/secret.ts";

/** A plan as it can be sent to another process of this program; the receiver overwrites the keys it was sent. */
export type PortablePlan = Omit<TunnelPlan, "keys"> & {
  readonly keys: readonly (Omit<KeyPlan, "secret"> & { readonly key: Uint8Array })[];
};

export function packPlan(plan: TunnelPlan): PortablePlan {
  return { ...plan, keys: plan.keys.map(({ secret, ...key }) => ({ ...key, key: Secret.reveal(secret) })) };
}

export function unpackPlan(plan: PortablePlan): TunnelPlan {
  return { ...plan, keys: plan.keys.map(({ key, ...rest }) => ({ ...rest, secret: Secret.fromKey(key) })) };
}
