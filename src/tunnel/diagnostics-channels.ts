/** The channels of `node:diagnostics_channel`, one for each type of event. */
import { channel } from "node:diagnostics_channel";

/** Channels by type of event. Their names are public. */
export const CHANNELS = {
  accepted: channel("spiped:connection:accepted"),
  authenticated: channel("spiped:connection:authenticated"),
  waiting: channel("spiped:connection:waiting"),
  connecting: channel("spiped:connection:connecting"),
  connected: channel("spiped:connection:connected"),
  opened: channel("spiped:connection:opened"),
  closed: channel("spiped:connection:closed"),
} as const;
