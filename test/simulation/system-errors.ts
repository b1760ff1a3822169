/** Error numbers as libuv returns them: negative. */
import { constants } from "node:os";

const { errno } = constants;

export const EAGAIN = -errno.EAGAIN;
export const ECANCELED = -errno.ECANCELED;
export const ECONNREFUSED = -errno.ECONNREFUSED;
export const ECONNRESET = -errno.ECONNRESET;
export const EHOSTUNREACH = -errno.EHOSTUNREACH;
export const EINVAL = -errno.EINVAL;
export const EMFILE = -errno.EMFILE;
export const ENOTCONN = -errno.ENOTCONN;
export const EPIPE = -errno.EPIPE;
export const ETIMEDOUT = -errno.ETIMEDOUT;
/** libuv's own. */
export const EOF = -4095;
