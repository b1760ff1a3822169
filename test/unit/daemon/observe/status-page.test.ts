/** The status page. */
import { describe, expect, it } from "vitest";
import { StatusPage } from "../../../../src/daemon/observe/status-page.ts";

describe("the status page", () => {
  it("plots the recorded rates, and escapes tunnel names", async () => {
    const page = new StatusPage(1000);
    const samples = (bytes: number) =>
      new Map([
        ["spiped_connections_total", [{ value: 3, labels: { tunnel: "<b>" } }]],
        ["spiped_bytes_total", [{ value: bytes, labels: { tunnel: "<b>", direction: "encrypted" } }]],
      ]);
    for (const bytes of [0, 1000, 3000, 3000]) page.record(samples(bytes));
    const html = page.render(samples(3000), "ready", "1");
    expect(html).toContain("&#60;b&#62;");
    expect(html).not.toContain("<b>");
    const points = /points="([^"]+)"/
      .exec(html)![1]!
      .split(" ")
      .map((point) => Number(point.split(",")[1]));
    expect(points).toEqual([34, 18, 2, 34]);
  });
});
